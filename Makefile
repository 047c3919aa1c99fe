# Each target makes its own .venv first; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/installed

.PHONY: demo demo-detect test test-all lint bench docs clean

demo: $(STAMP)
	$(BIN)/python -m trainers.classify --flagfile=configs/demo.cfg

demo-detect: $(STAMP)
	$(BIN)/python -m trainers.detect --flagfile=configs/digits_detection.cfg \
	  --epochs=6 --workdir=runs/demo_detect

# Three workers keep two cores busy: some tests wait, for processes of their own above all.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3

# Adds what is marked `long` and some kills at random moments; CONTRIBUTING.md lists both.
test-all: test
	$(BIN)/python -m pytest -n 3 -m long
	$(BIN)/python -m tests.kills --kills=30

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m benchmarks

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/pdoc --docformat google --output-directory build/docs tfbio

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: tfbio needs Python 3.11 or newer; choose one with make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	touch $(STAMP)

clean:
	rm -rf .venv runs
