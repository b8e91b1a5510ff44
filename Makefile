PYTHON ?= python3
STAMP := .venv/.ready

# Where bytecode is not kept, every process of a test compiles the engine anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test long faults bench serve
setup: $(STAMP)
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "paychan needs Python 3.11 to 3.13; this is %d.%d. Try: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
demo: setup
	.venv/bin/paychan demo
test: setup
	.venv/bin/pytest
long: setup
	TESTS_LENGTH=long .venv/bin/pytest
faults: setup
	.venv/bin/python -m tests.faults --full --write bench/results/faults.json --write bench/results/faults.md
bench: setup
	.venv/bin/paychan bench all
serve: setup
	.venv/bin/paychan serve
