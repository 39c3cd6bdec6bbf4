#!/usr/bin/env bash
# Train under Slurm, for example GPUS=8 tools/slurm_train.sh dev gn CONFIG work_dirs/gn
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
# Slurm stops a training STOP_S (300) seconds before its time ends, or to make room for
# another; with REQUEUE=1 it then goes on: a batch job is put into the queue again, and
# elsewhere srun is called again.
set -euo pipefail
source "$(dirname "$0")/_launch.sh"
usage_unless 4 $# 'PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]'
if [ -n "${REQUEUE:-}" ] && [[ " ${*:5} " != *' --resume'* ]]; then
    set -- "$@" --resume
fi
code=0
with_srun "$1" "$2" train.py "$3" --work-dir="$4" "${@:5}" || code=$?
# SIGTERM and SIGHUP.
if [ -n "${REQUEUE:-}" ] && { [ $code -eq 143 ] || [ $code -eq 129 ]; }; then
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    exec "$0" "$@"
fi
exit $code
