# make demo    install, then the whole pipeline on real data, from nothing to results/demo/report.html
# make test    install, then style, types, all tests and a miniature of the workflow; make test-fast: without what trains
#              or starts other programs; make test-slurm: on a private SLURM cluster of two nodes; make test-engines:
#              Lucene itself on our feed, downloaded for it
# make test-lowest    the quick tests and the workflow's with the oldest packages that pyproject.toml allows, in .venv-lowest
# make rehearsal    the paper's experiment and its variants, unchanged, on tiny stand-ins for all that they fetch;
#                   make rehearsal-slurm: the same on the private cluster
# make bench   the fast parts on the demo, side by side with the plain way: docs/performance.md
#              (TSV=FOLDER: the pads of your own parallel text too)
# make gpu     checks one GPU against the processor, measures its speed and runs the demo's trainings; first
#              `make gpu-bundle` where the demo is (ARGS: parts, --minutes N, --tiny)
# make doctor  whether a machine, or the nodes of a cluster (PROFILE=profiles/slurm), can train
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
# Only one run at a time; the kernel ends the lock with the process, so that a killed run blocks nothing.
LOCK := $(if $(shell command -v flock),flock --nonblock --close --conflict-exit-code 75 .demo.lock)

.PHONY: demo install install-for-tests test test-fast test-lowest test-engines rehearsal test-slurm rehearsal-slurm bench gpu gpu-bundle doctor dry-run dag clean

demo: $(VENV)/installed
	@$(LOCK) true || { echo "make: another run of this folder is still going on (.demo.lock); wait for it or end it"; exit 1; }
	$(LOCK) env $(SNAKEMAKE) --nolock all

bench: $(VENV)/installed-for-tests
	$(ACTIVE) python benchmarks/padding.py $(if $(TSV),--tsv "$(TSV)")
	for part in head stages encoding export search table; do $(ACTIVE) python benchmarks/$$part.py || exit 1; done

# Nothing is installed: the machine with the GPU may reach no registry.
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
