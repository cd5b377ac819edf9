# Two commands do everything, set-up included: `make demo` and `make test`.
# They work from any folder (make -C FOLDER demo), any number of times, and offline once set up.

# The whole of the list, not its last word: the path may have spaces.
ROOT := $(shell dirname "$(strip $(MAKEFILE_LIST))")
PYTHON ?= python3
VENV ?= .venv
# nproc counts no more than OMP_NUM_THREADS, which says nothing of how many jobs may run.
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# One thread a process: the parallelism is between jobs.
RUN := cd "$(ROOT)" && export OMP_NUM_THREADS=1 PATH="$$(cd "$(VENV)" && pwd)/bin:$$PATH" &&
PIP := "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check
DEMO := snakemake --configfile config/demo.yaml --cores $(CORES)
# What a job prints and the count of finished jobs are shown; what Snakemake says of each job is not.
QUIET := --quiet rules host reason

.PHONY: help setup demo test test-faults lint clean-demo

help:
	@echo "make demo   run the whole study in miniature on the CPU; results in results/demo"
	@echo "make test   run the tests"
	@echo "make test-faults  run the tests of nodes that fail, on a Slurm that they start (as root)"
	@echo "make setup  only set up the environment in $(VENV)"
	@echo "make lint   check the format of Python and Snakemake files"

setup:
	@cd "$(ROOT)"; set -e; \
	if [ -e "$(VENV)/.ready" ] && ! [ requirements.lock -nt "$(VENV)/.ready" ]; then exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or later is needed, this is " \
	  + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'; \
	echo "Setting up the environment in $(VENV) (once, a few minutes)"; \
	$(PYTHON) -m venv "$(VENV)"; \
	$(PIP) -r requirements.lock; \
	$(PIP) --no-deps --no-build-isolation -e .; \
	touch "$(VENV)/.ready"

demo: setup
	@$(RUN) $(DEMO) $(QUIET)
	@$(RUN) $(DEMO) --report results/demo/report.html --quiet all
	@$(RUN) cat results/demo/tables/table1.md results/demo/tables/efficiency.md
	@echo
	@echo "Look at  results/demo/figures/fig2.png  to  fig5.png"
	@echo "         results/demo/tables/   table1.md, efficiency.md, cost.md, runs.csv"
	@echo "         results/demo/report.html   (all of it, in a browser)"

test: setup
	@$(RUN) python -m pytest -n auto --maxprocesses 8 --dist loadfile --ignore tests/cluster
# There is one cluster, whose time limits want idle cores.
	@if [ "$$PRETRAINING_TEST_CLUSTER" = 1 ]; then $(RUN) python -m pytest -n0 tests/cluster; \
	else echo "Without PRETRAINING_TEST_CLUSTER=1: nothing was tested on a Slurm cluster"; fi

test-faults: setup
	@$(RUN) PRETRAINING_TEST_CLUSTER=1 python -m pytest -n0 -m faults tests/cluster

lint: setup
	@$(RUN) ruff check . && ruff format --check . && snakefmt --check Snakefile workflow && snakemake --lint

clean-demo:
	rm -rf "$(ROOT)/results/demo"
