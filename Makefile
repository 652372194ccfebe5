# make demo    install, then run the whole pipeline on real data; writes results/demo/report.html
# make test    install, then check style and types, and run all tests and a miniature of the workflow; make test-fast:
#              no tests that train or start programs; make test-slurm: on a private SLURM cluster of two nodes; make
#              test-engines: download Lucene and test the feed with it
# make test-lowest    the quick tests and the workflow's with the oldest packages that pyproject.toml allows, in
#                     .venv-lowest
# make rehearsal    the paper's experiment and its variants, unchanged, on tiny stand-ins for all downloads;
#                   make rehearsal-slurm: the same on the private cluster
# make bench   benchmark the optimised parts against plain ones on the demo: docs/performance.md
#              (TSV=FOLDER: also measure padding on your own parallel text)
# make gpu     check one GPU against the CPU, measure its speed and run the demo's trainings; run `make gpu-bundle`
#              first, on the machine with the demo (ARGS: parts, --minutes N, --tiny)
# make doctor  check that this machine, or the nodes of a cluster (PROFILE=profiles/slurm), can train
# TORCH chooses the torch to install, for instance TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
# or TORCH=torch for the registry's newest build with CUDA.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= requirements.txt
TORCH ?= torch==2.13.0
CONFIG ?= config/demo.yaml
PROFILE ?= profiles/local
ACTIVE := PATH="$(abspath $(VENV))/bin:$$PATH"
SNAKEMAKE := $(ACTIVE) snakemake --profile $(PROFILE) --configfile $(CONFIG)
# Only one run at a time. The kernel releases the lock when the process ends, so a killed run blocks nothing.
LOCK := $(if $(shell command -v flock),flock --nonblock --close --conflict-exit-code 75 .demo.lock)

.PHONY: demo install install-for-tests test test-fast test-lowest test-engines rehearsal test-slurm rehearsal-slurm bench gpu gpu-bundle doctor dry-run dag clean

demo: $(VENV)/installed
	@$(LOCK) true || { echo "make: another run of this folder is still going on (.demo.lock); wait for it or end it"; exit 1; }
	$(LOCK) env $(SNAKEMAKE) --nolock all

bench: $(VENV)/installed-for-tests
	$(ACTIVE) python benchmarks/padding.py $(if $(TSV),--tsv "$(TSV)")
	for part in head stages encoding export search table; do $(ACTIVE) python benchmarks/$$part.py || exit 1; done

# Installs nothing: the machine with the GPU may have no network.
gpu:
	$(ACTIVE) python benchmarks/gpu.py $(ARGS)

gpu-bundle: $(VENV)/installed
	$(ACTIVE) python benchmarks/gpu_whole.py

dry-run: $(VENV)/installed
	$(SNAKEMAKE) --dry-run all

dag: $(VENV)/installed
	rm -f dag.svg
	$(SNAKEMAKE) --rulegraph dot all | "$(VENV)/bin/python" -m milco.stages dag --output dag.svg

install: $(VENV)/installed

install-for-tests: $(VENV)/installed-for-tests

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet --constraint $(CONSTRAINTS) --editable .
	touch $@

# Further packages for the tests: checkers, search engines, ONNX.
$(VENV)/installed-for-tests: $(VENV)/installed
	$(VENV)/bin/pip install --quiet --constraint $(CONSTRAINTS) --editable ".[test]"
	touch $@

doctor: $(VENV)/installed
	$(SNAKEMAKE) doctor

test: $(VENV)/installed-for-tests
	$(ACTIVE) tests/run.sh

test-fast: $(VENV)/installed-for-tests
	$(ACTIVE) tests/run.sh fast

test-lowest:
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=tests/lowest.txt .venv-lowest/installed-for-tests
	PATH="$(abspath .venv-lowest)/bin:$$PATH" tests/run.sh lowest

rehearsal: $(VENV)/installed-for-tests
	$(ACTIVE) python -m pytest -m rehearsal -s tests/rehearsal

# Anserini and a Java runtime stay in .engines.
test-engines: $(VENV)/installed-for-tests
	$(ACTIVE) MILCO_ENGINES="$(abspath .engines)" python -m pytest -m engines tests/tools

test-slurm: $(VENV)/installed-for-tests
	$(ACTIVE) tests/slurm/run.sh

rehearsal-slurm: $(VENV)/installed-for-tests
	$(ACTIVE) tests/slurm/run.sh whole

clean:
	rm -rf artifacts logs resources results dag.svg
