#!/usr/bin/env bash
# Evaluate on several GPUs, or CPU processes where there are none.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
source "$(dirname "$0")/_launch.sh"
usage_unless 3 $# 'CONFIG CHECKPOINT GPUS [flags of tools/test.py]'
with_torchrun "$3" test.py "$1" "$2" "${@:4}"
