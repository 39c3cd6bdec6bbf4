#!/usr/bin/env bash
# Train on several GPUs, or CPU processes where there are none.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
source "$(dirname "$0")/_launch.sh"
usage_unless 2 $# 'CONFIG GPUS [flags of tools/train.py]'
with_torchrun "$2" train.py "$1" "${@:3}"
