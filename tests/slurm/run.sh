#!/usr/bin/env bash
# Tests on a real SLURM: install it where it is missing, start a private cluster of two nodes, test, stop the cluster.
#     run.sh [MARKER [OPTION of pytest …]]
# Without root or Debian's packages they are skipped with a warning; with SLURM=required that is an error.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
    printf '\n%s\n  SLURM TESTS SKIPPED: %s\n%s\n\n' "$(printf '=%.0s' {1..100})" "$1" "$(printf '=%.0s' {1..100})" >&2
    if [ "${SLURM:-}" = required ]; then exit 1; else exit 0; fi
}

[ "$(id -u)" -eq 0 ] || skip "a cluster can only be started by root"
if ! { command -v slurmctld && command -v slurmd && command -v srun && command -v munged; } >/dev/null; then
    command -v apt-get >/dev/null || skip "slurmctld, slurmd, srun or munged is missing and there is no apt-get"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge ||
        skip "the Debian packages slurmctld, slurmd, slurm-client and munge could not be installed"
fi
tests/slurm/cluster.sh sweep
[ ! -e /etc/slurm/slurm.conf ] || skip "this machine belongs to a cluster (/etc/slurm/slurm.conf)"

folder=$(mktemp -d)
trap 'tests/slurm/cluster.sh stop "$folder"' EXIT
tests/slurm/cluster.sh start "$folder"
SLURM_CLUSTER=$folder python -m pytest -m "${1:-slurm and not whole}" --durations=0 tests/slurm "${@:2}"
