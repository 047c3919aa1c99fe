# Each target makes its own .venv first; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/installed

.PHONY: demo demo-detect test test-all rehearse lint bench bench-peers docs clean

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

# Every config of ImageNet and COCO, on a few images: begun, resumed and evaluated.
rehearse: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m rehearsal -v

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# BioTorch's gradients and ours, layer by layer: docs/peers.md. The peers' environment is theirs
# alone; with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu it takes a fifth of the disk.
bench-peers: $(STAMP) .venv-peers/installed
	.venv-peers/bin/python benchmarks/peers/biotorch_gradients.py build/peers
	$(BIN)/python -m benchmarks.peers build/peers

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/pdoc --docformat google --output-directory build/docs tfbio

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: tfbio needs Python 3.11 or newer; choose one with make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	touch $(STAMP)

# Without BioTorch's own requirements, which are notebooks and plots for the most part.
.venv-peers/installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement $<
	.venv-peers/bin/python -m pip install --quiet --no-deps biotorch==0.0.16
	touch $@

clean:
	rm -rf .venv .venv-peers runs
