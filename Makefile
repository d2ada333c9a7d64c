# A bare Python 3.11 is all that is needed: every target makes the virtual environment it uses.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= runs/demo

export NO_ALBUMENTATIONS_UPDATE = 1
export HF_HUB_OFFLINE ?= 1
# libgomp's spinning barrier makes two threads slower than one on shared machines.
export GOMP_SPINCOUNT ?= 0

.PHONY: setup demo test fast slow check format clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: setup  ## learn six tasks on the built-in scenes, export, predict, report
	$(BIN)/python tools/demo.py --out $(OUT)

test: setup  ## every test
	$(BIN)/pytest -m "not gpu"

fast: setup
	$(BIN)/pytest

slow: setup
	$(BIN)/pytest -m slow

check: setup  ## what CI wants before the slow tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist runs
