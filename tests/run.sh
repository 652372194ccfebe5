#!/usr/bin/env bash
# Every check: style, types, then the tests. `make test` calls it with the virtual environment on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
snakefmt --check workflow
mypy milco
snakemake --lint --configfile config/demo.yaml
python -m pytest
