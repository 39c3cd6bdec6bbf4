# Shared by dist_*.sh and slurm_*.sh: start a tool in several processes.
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
export PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}"

# usage_unless COUNT GIVEN TEXT: stop with TEXT if fewer than COUNT words were given.
usage_unless() {
    if [ "$2" -lt "$1" ]; then
        echo "usage: $0 $3" >&2
        exit 2
    fi
}

# with_torchrun GPUS TOOL ARGS...: on this machine, or as one of NNODES machines.
with_torchrun() {
    exec "$PYTHON" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$1" \
        "$TOOLS/$2" "${@:3}" --launcher pytorch
}

# with_srun PARTITION JOB_NAME TOOL ARGS...
with_srun() {
    # SRUN_ARGS holds several words.
    # shellcheck disable=SC2086
    exec srun -p "$1" \
        --job-name="$2" \
        --gres="gpu:${GPUS_PER_NODE:-8}" \
        --ntasks="${GPUS:-8}" \
        --ntasks-per-node="${GPUS_PER_NODE:-8}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "$PYTHON" -u "$TOOLS/$3" "${@:4}" --launcher=slurm
}
