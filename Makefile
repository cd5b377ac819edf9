# Two commands do everything, set-up included: `make demo` and `make test`.
# They work from any folder (make -C FOLDER demo), any number of times, and offline once set up.

# The whole list, not its last word: the path may have spaces.
ROOT := $(shell dirname "$(strip $(MAKEFILE_LIST))")
PYTHON ?= python3
VENV ?= .venv
# nproc obeys OMP_NUM_THREADS, which does not limit the number of jobs.
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# One thread a process: jobs run in parallel.
RUN := cd "$(ROOT)" && export OMP_NUM_THREADS=1 PATH="$$(cd "$(VENV)" && pwd)/bin:$$PATH" &&
PIP := "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check
PYTEST := python -m pytest -n auto --maxprocesses 8 --dist loadfile --ignore tests/cluster
DEMO := snakemake --configfile config/demo.yaml --cores $(CORES)
# Show what jobs print and how many have finished; hide what Snakemake prints about each job.
QUIET := --quiet rules host reason

.PHONY: help setup check demo test test-all lint clean-demo

help:
	@echo "make demo      run the whole study in miniature on the CPU; results in results/demo"
	@echo "make test      run the tests of every part: a few minutes"
	@echo "make test-all  add the slow tests, and those of a Slurm cluster that they start (as root)"
	@echo "make check     check a configuration, CONFIG=config/config.yaml, and say what is planned"
	@echo "make setup     only set up the environment in $(VENV)"
	@echo "make lint      check the format of files and the order of imports"

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

check: setup
	@$(RUN) python workflow/scripts/check.py $(CONFIG)

demo: setup
	@$(RUN) $(DEMO) $(QUIET)
	@$(RUN) $(DEMO) --report results/demo/report.html --quiet all
	@$(RUN) cat results/demo/tables/table1.md && echo && cat results/demo/logs/summary.log
	@echo
	@echo "Look at  results/demo/summary.html   (tables and figures on one page, in a browser)"
	@echo "         results/demo/report.html    (the same, with the jobs that made each of them)"
	@echo "         results/demo/tables/        (table1.md, efficiency.md, cost.md, runs.csv)"

test: setup
	@$(RUN) $(PYTEST) -m "not slow"

# Tests on the cluster have time limits that need idle cores: they run last, one after the other.
test-all: setup
	@$(RUN) $(PYTEST)
	@$(RUN) PRETRAINING_TEST_CLUSTER=1 python -m pytest -n0 tests/cluster

lint: setup
	@$(RUN) ruff check . && ruff format --check . && snakefmt --check Snakefile workflow && \
	lint-imports --no-logo --no-cache && snakemake --lint

clean-demo:
	rm -rf "$(ROOT)/results/demo"
