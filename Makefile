# `make help` lists the targets. Everything runs in .venv, which the targets make themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := demo-data
DEVICE ?= cpu
PROCESSES ?= 1
SHARE ?= 1
WEB := engine/annotation/web
NPM := sh $(WEB)/npm.sh $(CURDIR)/$(VENV) $(PYTHON)
WEB_SOURCES := $(shell find $(WEB)/src $(WEB)/public $(WEB)/licenses -type f) \
  $(addprefix $(WEB)/,index.html package.json vite.config.ts third_party.ts svelte.config.js tsconfig.json)

.DEFAULT_GOAL := help
.PHONY: help setup check web test test-all bench bench-gpu demo train-bundled pins clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing maskwheel into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) -e '.[test]'
	@touch $@

setup: $(VENV)/.test  ## make the environment with everything that tests need

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	$(NPM) ci --no-audit --no-fund
	@touch $@

$(WEB)/dist/index.html: $(WEB)/node_modules/.package-lock.json $(WEB_SOURCES)
	$(NPM) run build
	@touch $@

web: $(WEB)/dist/index.html  ## build the annotation page (Node.js: the system's, else pip's)

check: $(VENV)/.test $(WEB)/node_modules/.package-lock.json  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NPM) run check

test: $(VENV)/.test web  ## the test suite (minutes)
	$(BIN)/pytest -n auto --dist loadfile -m 'not slow'

test-all: $(VENV)/.test web  ## the test suite with the slow tests and new random examples
	$(BIN)/pytest --hypothesis-profile=searching

bench: $(VENV)/.test web  ## benchmarks, rows for RESULTS.md: [SEGMENT_ANYTHING=checkout]
	$(BIN)/python -m tests.benchmarks.bench_masks
	$(BIN)/python -m tests.benchmarks.bench_measuring
	$(BIN)/python -m tests.benchmarks.bench_bundled
	$(BIN)/python -m tests.benchmarks.bench_encoder $(if $(SEGMENT_ANYTHING),--segment-anything $(SEGMENT_ANYTHING))
	$(BIN)/python -m tests.benchmarks.bench_sam_decoder
	$(BIN)/python -m tests.benchmarks.bench_peers $(if $(SEGMENT_ANYTHING),--segment-anything $(SEGMENT_ANYTHING)) \
	  $(if $(SEGMENT_ANYTHING_FAST),--segment-anything-fast $(SEGMENT_ANYTHING_FAST))
	$(BIN)/python -m tests.benchmarks.bench_stages
	$(BIN)/python -m tests.benchmarks.bench_stages --model vit_b --height 1500 --width 2250 --count 1
	$(BIN)/python -m tests.benchmarks.bench_stages --processes 2
	$(BIN)/python -m tests.benchmarks.bench_start
	$(BIN)/python -m tests.benchmarks.bench_dataset
	$(BIN)/python -m tests.benchmarks.bench_releases --masks 50000
	$(BIN)/python -m tests.benchmarks.bench_exports --images 24 --masks 100
	$(BIN)/python -m tests.benchmarks.bench_reading
	$(BIN)/python -m tests.benchmarks.bench_scale
	$(BIN)/python -m tests.benchmarks.bench_decoder
	$(BIN)/python -m tests.benchmarks.bench_browser --threads 1 2
	$(BIN)/python -m tests.benchmarks.bench_browser --model vit_b --threads 1 2
	$(BIN)/python -m tests.benchmarks.bench_page

bench-gpu: $(VENV)/.test  ## images/s on this GPU: ARGS="--segment-anything ../segment-anything"
	$(BIN)/python -m tests.benchmarks.bench_gpu $(ARGS)

demo: $(VENV)/.base  ## mask real photos, print a table, write report.html
	$(BIN)/python -m tests.examples.demo_photos $(DEMO)/photos
	$(BIN)/maskwheel auto $(DEMO)/photos --workspace $(DEMO)/workspace --overlays
	$(BIN)/maskwheel report --workspace $(DEMO)/workspace --output $(DEMO)/report.html

train-bundled: $(VENV)/.base  ## train the bundled model: DATA=folder [DEVICE=cuda] [PROCESSES=2] [SHARE=0.1]
	@test -n "$(DATA)" || { echo "usage: make train-bundled DATA=folder"; exit 2; }
	$(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m engine.learning.bundled \
	  --data $(DATA) --device $(DEVICE) --share $(SHARE)

pins:  ## resolve the newest versions anew and write constraints.txt
	$(PYTHON) -m venv $(VENV)-pins
	$(VENV)-pins/bin/python -m pip install --quiet '.[test]'
	(head -1 constraints.txt; $(VENV)-pins/bin/python -m pip freeze --exclude maskwheel | sed 's/+cpu//') > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-pins

clean:  ## remove the environment and the demo's results
	rm -rf $(VENV) $(DEMO) $(WEB)/node_modules $(WEB)/dist
