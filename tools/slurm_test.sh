#!/usr/bin/env bash
# Evaluate under Slurm, for example GPUS=8 tools/slurm_test.sh dev gn CONFIG CHECKPOINT
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
set -euo pipefail
source "$(dirname "$0")/_launch.sh"
usage_unless 4 $# 'PARTITION JOB_NAME CONFIG CHECKPOINT [flags of tools/test.py]'
with_srun "$1" "$2" test.py "$3" "$4" "${@:5}"
