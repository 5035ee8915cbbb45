# Every target makes .venv on first use, and only then.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help report lab test check notebooks bench lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

report: .venv/ready  ## run the reports on the bundled data: out/reports/index.html
	$(BIN)/kit report --jobs 2
	@echo "Open out/reports/index.html"

lab: .venv/ready  ## open the lessons in JupyterLab
	$(BIN)/kit lab

# Python, and so every kernel, loads tests/offline/sitecustomize.py, which refuses the network
QUIETLY := KIT_QUIET=1 MPLBACKEND=Agg PYTHONPATH=$(CURDIR)/tests/offline
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope -q
NBVAL := $(PYTEST) --nbval --nbval-cell-timeout=120 -p no:cacheprovider -o addopts= notebooks

test: .venv/ready  ## unit tests, doctests, every notebook under strict nbval, another CPU's arithmetic
	$(QUIETLY) $(PYTEST)
	$(QUIETLY) OMP_NUM_THREADS=1 $(NBVAL)
	$(QUIETLY) OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE $(NBVAL)

check: .venv/ready  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

notebooks: .venv/ready  ## execute every notebook, clean it, stamp its time and memory
	$(BIN)/python notebooks/execute.py

bench: .venv-bench/ready  ## measure against the named peers: benchmarks/results/
	for file in benchmarks/bench_*.py; do .venv-bench/bin/python $$file || exit 1; done

lock:  ## resolve the pins anew: requirements.lock and environment.yml
	$(PYTHON) -m venv --clear out/lock
	out/lock/bin/pip install -q torch==2.13.0
	out/lock/bin/pip install -q '.[test]'
	out/lock/bin/python tests/lock.py

clean:  ## remove what was made, .venv included
	rm -rf .venv .venv-bench out build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: expected Python 3.11 or later, got $$($(PYTHON) --version). Type: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.lock
	$(BIN)/pip install -q --no-deps -e .
	touch $@

.venv-bench/ready: requirements.lock benchmarks/requirements-bench.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -q -r requirements.lock
	.venv-bench/bin/pip install -q --no-deps -r benchmarks/requirements-bench.txt
	.venv-bench/bin/pip install -q --no-deps -e .
	touch $@
