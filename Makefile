# make app   set up, then worker and app; Ctrl-C stops both.   make test   set up, then all tests.
# make lint  ruff and mypy.   make bench   the benchmarks, one JSON object a line.   make clean   forget caches, keep runs.
.PHONY: app test lint bench clean help
PYTHON ?=
WORKERS ?= 2
export PYTHON

help:
	@sed -n '1,2p' Makefile

app:
	@sh .ci/venv requirements.txt && exec .venv/bin/python -m app $(ARGS)

test:
	@sh .ci/venv requirements.txt requirements-dev.txt && exec .venv/bin/python -m pytest -n $(WORKERS) $(ARGS)

lint:
	@sh .ci/venv requirements.txt requirements-dev.txt && .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

bench:
	@sh .ci/venv requirements.txt && exec .venv/bin/python -m benchmarks $(ARGS)

clean:
	@rm -rf .pytest_cache .mypy_cache .ruff_cache runs/cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
