#!/usr/bin/env bash
# All checks: style, types, tests. `fast`: only tests that train nothing and start no program. `lowest`: those and the
# workflow tests, without the style checkers, whose older versions have other rules.
# `make test`, `make test-fast` and `make test-lowest` call it with the virtual environment on the path.
set -euo pipefail
cd "$(dirname "$0")/.."

check() {
    "$@" || {
        printf '\nfailed; repeat:  %s\n' "$*" >&2
        exit 1
    }
}

processes=(-n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder) # conftest.py puts the long files first
wanted="not slurm and not rehearsal and not engines"
if [ "${1:-}" = lowest ]; then
    check python -m pytest "${processes[@]}" -m "not slow and $wanted"
    check python -m pytest tests/stages/test_workflow.py
    exit
fi
check ruff check .
check ruff format --check .
check snakefmt --check workflow
check mypy milco
if [ "${1:-}" = fast ]; then
    check python -m pytest "${processes[@]}" -m "not slow and $wanted"
else
    check snakemake --lint --configfile config/demo.yaml
    if ! command -v chromium chromium-browser google-chrome >/dev/null; then
        printf '\n*** NO CHROMIUM: the page of `milco serve` is NOT tested; apt-get install chromium ***\n\n' >&2
        wanted+=" and not browser"
    fi
    check python -m pytest "${processes[@]}" --durations 20 -m "$wanted"
fi
