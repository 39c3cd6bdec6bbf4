#!/usr/bin/env bash
# Train under Slurm, for example GPUS=8 tools/slurm_train.sh dev gn CONFIG work_dirs/gn
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
set -euo pipefail
source "$(dirname "$0")/_launch.sh"
usage_unless 4 $# 'PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]'
with_srun "$1" "$2" train.py "$3" --work-dir="$4" "${@:5}"
