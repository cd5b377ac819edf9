# Two commands do everything, set-up included: `make demo` and `make test`.
# They work from any folder (make -C <folder> demo), any number of times, and offline once set up.

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
PYTHON ?= python3
VENV ?= $(ROOT)/.venv
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
READY := $(VENV)/.ready
# One thread a process: the parallelism is between jobs.
RUN := cd "$(ROOT)" && export OMP_NUM_THREADS=1 PATH="$(VENV)/bin:$$PATH" &&
DEMO := snakemake --configfile config/demo.yaml --cores $(CORES)
# What a job prints and the count of finished jobs are shown; what Snakemake says of each job is not.
QUIET := --quiet rules host reason

.PHONY: help setup demo test lint clean-demo

help:
	@echo "make demo   run the whole study in miniature on the CPU; results in results/demo"
	@echo "make test   run the tests"
	@echo "make setup  only set up the environment in $(VENV)"
	@echo "make lint   check the format of Python and Snakemake files"

setup: $(READY)

$(READY): $(ROOT)/requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"error: Python {v[0]}.{v[1]} is too old, 3.11 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)")'
	@echo "Setting up the environment in $(VENV) (once, a few minutes)"
	$(PYTHON) -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -r "$(ROOT)/requirements.lock"
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$(ROOT)"
	@touch "$@"

demo: $(READY)
	@$(RUN) $(DEMO) $(QUIET)
	@$(RUN) $(DEMO) --report results/demo/report.html --quiet all
	@$(RUN) cat results/demo/tables/table1.md results/demo/tables/efficiency.md
	@echo
	@echo "Look at  results/demo/figures/fig2.png  and  fig3.png"
	@echo "         results/demo/tables/   table1.md, efficiency.md, cost.md, runs.csv"
	@echo "         results/demo/report.html   (all of it, in a browser)"

test: $(READY)
	@$(RUN) python -m pytest

lint: $(READY)
	@$(RUN) ruff check . && ruff format --check . && snakefmt --check . && snakemake --lint

clean-demo:
	rm -rf "$(ROOT)/results/demo"
