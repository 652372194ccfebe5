#!/usr/bin/env bash
# Start a training program with torchrun: launch.sh NODES PROCESSES_PER_NODE THREADS PROGRAM ARGUMENT…
# The only file that knows torchrun. NODES must be 1: one machine, one or several processes.
set -euo pipefail

nodes=$1 processes=$2 threads=$3
shift 3
if [ "$nodes" -ne 1 ]; then
    echo "launch.sh: nodes=$nodes is not supported yet, set nodes=1" >&2
    exit 2
fi
# torchrun would give each process a single thread; share the rule's threads among them instead.
export OMP_NUM_THREADS=$((threads / processes > 0 ? threads / processes : 1))
exec torchrun --standalone --nproc-per-node="$processes" -m -- milco "$@"
