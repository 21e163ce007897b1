# Two commands do everything: `make quickstart` and `make test`. The rest is for people who work on the project.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Material for MkDocs prints a page about its successor otherwise.
export NO_MKDOCS_2_WARNING := 1

.PHONY: help quickstart bench test proofs proofs-shown proofs-fuzzed proofs-installed proofs-scale faults check check-style mlflow notebook badge pictures reference docs docs-site clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# A stamp, so that a second call installs nothing; it is touched last, so that a broken install is tried again.
.venv/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11. Name a newer one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-ray.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

QUICKSTART := --set data_dir=data/quickstart --set output_dir=artifacts/models/quickstart

quickstart: .venv/installed  ## install, then ETL, LoRA training and evaluation on the embedded data and encoder
	$(BIN)/python -m etl --config configs/quickstart/data.yaml
	$(BIN)/python -m multiregime --config configs/recommended/lora.yaml $(QUICKSTART)
	$(BIN)/python -m eval --checkpoint-path artifacts/models/quickstart
	@echo
	@$(BIN)/python -m bankintent explain --brief --model-dir artifacts/models/quickstart \
	  "my card has not arrived yet" "what is the weather in paris"
	@echo
	@echo "The bundle is artifacts/models/quickstart. Next:"
	@echo "  ask it something    $(BIN)/python -m bankintent explain \"I lost my card\" --model-dir artifacts/models/quickstart"
	@echo "  promise a precision $(BIN)/python -m bankintent policy --model-dir artifacts/models/quickstart --set target.precision=0.95"
	@echo "  serve it            MODEL_DIR=artifacts/models/quickstart $(BIN)/uvicorn backend:app"
	@echo "  try it on a page    $(BIN)/python -m frontend --model-dir artifacts/models/quickstart"
	@echo "  look at the runs    make mlflow"
	@echo "  real BANKING77      $(BIN)/python -m etl --config configs/banking77/data.yaml"
	@echo "                      $(BIN)/python -m multiregime --config configs/banking77/lora.yaml"

bench: .venv/installed  ## all CPU benchmarks on the quickstart bundle; about 15 minutes on two idle cores
	@test -f data/quickstart/manifest.json || $(BIN)/python -m etl --config configs/quickstart/data.yaml
	@test -f artifacts/models/quickstart/manifest.json \
	  || $(BIN)/python -m multiregime --config configs/recommended/lora.yaml $(QUICKSTART)
	$(BIN)/python -m benchmarks

PYTEST := $(BIN)/python -m pytest
WITHOUT_FUZZ := --ignore tests/test_api_fuzz.py
BY_FILE := -n 2 --dist loadfile --no-loadscope-reorder $(WITHOUT_FUZZ)
# Two proofs of one file take longer than all others: each test goes to the process that is free.
BY_TEST := -n 2 --dist loadgroup --no-loadscope-reorder $(WITHOUT_FUZZ)

# The fuzzed operations of the API share a name, of which pytest-xdist would run one: they have a call of their own.
test: .venv/installed-dev  ## install, then run the tests
	$(PYTEST) $(BY_FILE) -m "not proof and not scale"
	$(PYTEST) tests/test_api_fuzz.py

# Side by side: the fuzzed requests alone would leave a core idle.
proofs: .venv/installed-dev  ## the slow tests: every shown command, real processes, browsers, thousands of requests
	$(MAKE) --no-print-directory --jobs 2 proofs-shown proofs-fuzzed
	$(MAKE) --no-print-directory proofs-installed

proofs-shown:
	$(PYTEST) $(BY_TEST) --ignore tests/test_installed.py -m proof --durations 10

proofs-fuzzed:
	FUZZ_CASES=1000 $(PYTEST) tests/test_api_fuzz.py

# By itself: .ci/run has it serve the bundle of the quickstart.
proofs-installed:
	$(PYTEST) tests/test_installed.py

# On clusters, containers and millions of rows: by itself, since it takes long and starts what a test run should not.
proofs-scale: .venv/installed-dev  ## several processes and machines, many tenants, data past the memory, deployment
	$(PYTEST) -m scale --durations 10

faults: .venv/installed-dev  ## every fault that is done on purpose, at full size: kills, damages, attacks (docs/explanation/faults.md); over an hour
	$(BIN)/python -m tests.faults

check: test check-style  ## the tests, the linter, the type checker and the rules of reading

check-style: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) tests/test_style.py

notebook: .venv/installed-dev  ## execute the walkthrough anew and save it with its outputs (OUT=... saves it elsewhere)
	rm -rf artifacts/studies/walkthrough
	$(BIN)/python -m notebooks.execute $(if $(OUT),--output $(OUT))

badge: .venv/installed-dev  ## the Colab badge and the notebook's address, from Repository in pyproject.toml
	$(BIN)/python -m notebooks.colab

reference: .venv/installed  ## the JSON Schemas and the generated pages of docs/reference, from the code
	$(BIN)/python -m docs.tools.reference

pictures: .venv/installed-dev  ## the README's screenshots of both pages, with the quickstart bundle and chromium
	$(BIN)/python -m docs.tools.pictures artifacts/models/quickstart

docs: docs-site  ## build the documentation, serve it on http://127.0.0.1:8001 and open it
	@$(BIN)/python -m docs.tools.serve

docs-site: .venv/installed-dev  ## build the documentation into site/; a broken link or anchor is an error
	$(BIN)/mkdocs build --strict --quiet

mlflow: .venv/installed  ## serve the page with all tracked runs, and print its address
	@$(BIN)/python -m bankintent.tracking
	$(BIN)/mlflow ui --backend-store-uri sqlite:///artifacts/mlflow.db --host 127.0.0.1 --port 5000

clean:  ## remove the virtual environment; data and artifacts stay
	rm -rf .venv
