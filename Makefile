# The only door, for people and for CI. `make help` says what there is.
#
# PYTHON=...  the Python (3.11 or later) to make .venv with
# ARGS=...    options for run.py, pytest or the benchmark:  make run ARGS="--shards 4"
# WORKERS=n   how many tests `make test` runs at a time (0: all in one process, as pdb wants it)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install check test demo run bench soak lock clean

VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
WORKERS ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@echo "make install   make .venv and install what requirements.lock says"
	@echo "make demo      replay the bundled capture through everything and print what was indexed"
	@echo "make run       index the live network into the embedded PostgreSQL (ARGS=\"--shards 4\")"
	@echo "make test      lint, types and all tests"
	@echo "make check     lint and types only"
	@echo "make bench     events per second, end to end, with 1 and 2 shards"
	@echo "make soak      the long tests"
	@echo "make lock      for maintainers: write requirements.lock anew (needs uv)"
	@echo "make clean     remove .venv and all caches"

# Installs only when the lock differs from what was installed, or the environment does not run.
install:
	@if $(PY) -c '' 2>/dev/null && cmp -s requirements.lock $(VENV)/installed.lock; then exit 0; fi; \
	set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    python=; old=; bare=; \
	    for name in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	        version=$$("$$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	        if ! "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            old="$$old $$name ($$version)"; continue; fi; \
	        if ! "$$name" -c 'import ensurepip, venv' 2>/dev/null; then bare=$$version; continue; fi; \
	        python=$$name; break; \
	    done; \
	    if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	        echo "Python $$bare cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python$$bare-venv), then run make again." >&2; exit 1; \
	    fi; \
	    if [ -z "$$python" ]; then \
	        echo "Python 3.11 or later is needed$${old:+, found only$$old}: install it (Debian, Ubuntu: apt install python3 python3-venv), or name one with PYTHON=..., then run make again." >&2; exit 1; \
	    fi; \
	    echo "making $(VENV) with $$python ($$version)"; \
	    rm -rf $(VENV); \
	    "$$python" -m venv $(VENV); \
	fi; \
	rm -f $(VENV)/installed.lock; \
	echo "installing what requirements.lock says"; \
	if ! $(PY) -m pip install -qq --require-hashes --no-deps --only-binary :all: -r requirements.lock; then \
	    echo "The packages could not be installed; the lines above say why. Without a network, point pip at a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS), then run make again." >&2; exit 1; \
	fi; \
	cp requirements.lock $(VENV)/installed.lock

check: install
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

test: check
	$(PY) -m pytest -m "not soak" -n $(WORKERS) --dist worksteal $(ARGS)

soak: install
	$(PY) -m pytest -m soak --timeout=0 $(ARGS)

# The demo has a database of its own, which goes when it ends.
demo: install
	@folder=$$(mktemp -d "$${TMPDIR:-/tmp}/skyshard-demo.XXXXXX") && chmod 755 "$$folder" && \
	trap 'rm -rf "$$folder"' EXIT && trap 'exit 130' INT TERM && \
	SKYSHARD_MONITOR__PORT=0 $(PY) run.py --source demo --until-caught-up --data-dir "$$folder/data" $(ARGS)

run: install
	$(PY) run.py $(ARGS)

bench: install
	$(PY) -m bench.end_to_end $(ARGS)

lock:
	@command -v uv >/dev/null || { echo "uv is needed to write requirements.lock: pip install uv" >&2; exit 1; }
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --upgrade --output-file requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
