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

# passing_signals COMMAND...: run it; a signal to this script is one to it, and gives the
# code that a shell reports for it.
passing_signals() {
    local code=0 stopped=
    "$@" <&0 &
    local child=$!
    for name in INT TERM HUP; do
        # Now: which process and which signal.
        # shellcheck disable=SC2064
        trap "stopped=$((128 + $(kill -l $name))); kill -$name $child" $name
    done
    # A trap ends the waiting, not what is waited for.
    while kill -0 $child 2>/dev/null; do
        code=0
        wait $child || code=$?
    done
    return "${stopped:-$code}"
}

# with_torchrun GPUS TOOL ARGS...: on this machine, or as one of NNODES machines.
with_torchrun() {
    passing_signals "$PYTHON" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$1" \
        "$TOOLS/$2" "${@:3}" --launcher pytorch
}

# with_srun PARTITION JOB_NAME TOOL ARGS...: told STOP_S seconds before its time ends.
with_srun() {
    # SRUN_ARGS holds several words.
    # shellcheck disable=SC2086
    passing_signals srun -p "$1" \
        --job-name="$2" \
        --gres="gpu:${GPUS_PER_NODE:-8}" \
        --ntasks="${GPUS:-8}" \
        --ntasks-per-node="${GPUS_PER_NODE:-8}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        --signal="TERM@${STOP_S:-300}" \
        ${SRUN_ARGS:-} \
        "$PYTHON" -u "$TOOLS/$3" "${@:4}" --launcher=slurm
}
