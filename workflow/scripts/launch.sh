#!/usr/bin/env bash
# Start a program in all its processes: launch.sh NODES PROCESSES GPUS THREADS LOG PROGRAM ARGUMENT…
# with processes, GPUs and threads of one node. The only file that knows srun and torchrun.
#
# Inside a SLURM job (sbatch, salloc, a Snakemake job) srun starts torchrun, even on one node: SLURM signals the
# processes of a step before it kills them, but not always those of a batch script. Without SLURM, one node is used.
#
# Variables that are set already keep their values. MILCO_SRUN holds further options of srun, MILCO_WRAP a command to
# put before torchrun, such as `apptainer exec --nv milco.sif`.
set -euo pipefail

nodes=$1 processes=$2 gpus=$3 threads=$4 log=$5
shift 5
# A signal to the whole job must not end this script or the log: processes that are saving still write to it.
exec > >(trap '' HUP INT TERM && exec tee "$log") 2>&1
trap : TERM

export OMP_NUM_THREADS=$((threads > processes ? threads / processes : 1)) # torchrun would give each process one
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
export MILCO_LAST_WORDS=$PWD/$log.last # final messages of the programs, printed below all tracebacks
rm -f "$MILCO_LAST_WORDS"
read -ra wrap <<<"${MILCO_WRAP:-}"
torchrun=("${wrap[@]}" torchrun --nproc-per-node="$processes")
program=(-m -- milco.stages "$@")
status=0

if [ -z "${SLURM_JOB_ID:-}" ]; then
    if [ "$nodes" -ne 1 ]; then
        echo "launch.sh: nodes=$nodes needs SLURM: set nodes=1, or use --profile profiles/slurm" >&2
        exit 2
    fi
    "${torchrun[@]}" --standalone "${program[@]}" || status=$?
else
    # The job's Snakemake removes most SLURM variables, so SLURM itself is asked.
    allocation=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%N %e')
    mapfile -t hosts < <(scontrol show hostnames "${allocation% *}")
    if [ "${#hosts[@]}" -lt "$nodes" ]; then
        echo "launch.sh: nodes=$nodes, but job $SLURM_JOB_ID holds ${#hosts[@]} (${hosts[*]})" >&2
        exit 2
    fi
    hosts=("${hosts[@]:0:nodes}")
    export MILCO_DEADLINE=${MILCO_DEADLINE:-$(date --date="${allocation##* }" +%s 2>/dev/null || true)}
    master=${MASTER_ADDR:-${hosts[0]}}
    port=${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))} # two jobs may share a node
    read -ra options <<<"${MILCO_SRUN:-}"
    if [ "$gpus" -gt 0 ]; then options+=("--gpus-per-node=$gpus"); fi
    # shellcheck disable=SC2016
    srun --overlap --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$threads" \
        --nodelist="$(IFS=, && echo "${hosts[*]}")" --kill-on-bad-exit=1 "${options[@]}" \
        bash -c '
            fail() { echo "launch.sh: $SLURMD_NODENAME $1 must lie on a disk that all nodes share" >&2; exit 1; }
            cd "$1" 2>/dev/null || fail "does not see $1: the project"
            command -v "$2" >/dev/null || fail "does not find $2: the environment"
            shift
            export PET_NODE_RANK=$SLURM_NODEID # torchrun --node-rank
            exec "$@"
        ' launch.sh "$PWD" "${torchrun[@]}" --nnodes="$nodes" --master-addr="$master" --master-port="$port" \
        "${program[@]}" || status=$?
fi

if [ -e "$MILCO_LAST_WORDS" ]; then
    sort -u "$MILCO_LAST_WORDS"
    # If no message is an error, a training stopped early and must be restarted: EX_TEMPFAIL.
    grep -q "^milco: error" "$MILCO_LAST_WORDS" || status=75
    rm "$MILCO_LAST_WORDS"
fi
exit "$status"
