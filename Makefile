# Everything runs in an environment of its own (.venv); the first target that needs it makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# As a module, so that the code of this folder runs, whatever the environment was made from.
GUIDEDRIFT := $(BIN)/python -m pipeline.command
# What a Python package brings as a pickle, converted once (eval/features/efficientnet.py).
CONVERTED := models/extractors/efficientnet_lite0.safetensors
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
# For instance: make repro OVERRIDES="arms.cfg.scale=4". Values with spaces need quotes: OVERRIDES="negative='bad hands'"
OVERRIDES ?=
PORT ?= 5000
WORKERS ?= 2

# make accepts any name=value as a variable, and is silent about those that nothing reads.
VARIABLES := A AUDIT B BENCH DRY_RUN ERROR_RATE FUZZ LABELLER LABEL_PORT OVERRIDES PORT PRIVATE PYTHON REFERENCE REPO WHAT WORKERS
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(firstword $(filter-out $(VARIABLES),$(GIVEN)))
NEAREST := $(filter $(UNKNOWN)%,$(VARIABLES))
ifneq ($(UNKNOWN),)
$(error $(UNKNOWN) is not a variable of this Makefile, which has $(VARIABLES); $(if $(NEAREST),did you mean $(NEAREST)="$($(UNKNOWN))"?,a value of the study goes into OVERRIDES="$(UNKNOWN)=$($(UNKNOWN))"))
endif

.PHONY: help setup params repro answers compare-folders test test-slow chaos lint audit bench fuzz mlflow experiments label-studio label-demo publish train gpu worldcheck feature-spaces lock clean

help: ## list the commands
	@awk '/^##@ / { print substr($$0, 5) } /^[a-z-]+:.*## / { name = $$0; sub(/:.*/, "", name); sub(/.*## /, ""); printf "  make %-14s %s\n", name, $$0 }' $(MAKEFILE_LIST)

##@ run

repro: $(READY) $(CONVERTED) ## generate, measure, compare, report and track the study; finished work is kept
	@$(GUIDEDRIFT) run --yes -- $(OVERRIDES)

compare-folders: $(READY) $(CONVERTED) ## two folders of images against real ones, without a network (A=... B=... REFERENCE=...)
	@$(GUIDEDRIFT) compare-folders --reference "$(REFERENCE)" "$(A)" "$(B)" -- $(OVERRIDES)

params: $(READY) ## compose conf/ into params.yaml (OVERRIDES="key=value ...")
	@$(BIN)/python -m pipeline.compose $(OVERRIDES)

setup: $(READY) $(CONVERTED) ## make the Python environment (.venv), once

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"guidedrift needs Python 3.11 or later; $(PYTHON) is {v[0]}.{v[1]}")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(CONVERTED): | $(READY)
	@$(BIN)/python -m eval.features.efficientnet $@

answers: $(READY) $(CONVERTED) ## every claim's study that has not run yet, hours; then docs/answers.md
	@$(BIN)/python -m docs.answers.run

clean: ## delete what `make repro` made (not the environment, not mlflow.db)
	rm -rf data metrics plots reports dvc.lock .dvc/cache .dvc/tmp

##@ look

mlflow: $(READY) ## the runs, on http://127.0.0.1:5000 (PORT=...) or where MLFLOW_TRACKING_URI says
	@$(GUIDEDRIFT) mlflow --port $(PORT)

experiments: $(READY) ## the params and numbers in which DVC's experiments differ (dvc exp run -S ...)
	@$(GUIDEDRIFT) experiments

##@ label

label-studio: $(READY) ## start Label Studio on loopback, to label images (LABEL_PORT=...)
	@$(GUIDEDRIFT) label $(if $(LABEL_PORT),--port $(LABEL_PORT))

label-demo: $(READY) ## SIMULATED labels by the embedded judge (ERROR_RATE=0.1 LABELLER=judge)
	@$(BIN)/python -m labeling.label_studio.demo --error-rate $(or $(ERROR_RATE),0.1) $(if $(LABELLER),--labeller $(LABELLER))

##@ publish

publish: $(READY) ## study to the Hub (REPO=owner/name WHAT=dataset|models PRIVATE=true DRY_RUN=1)
	@HF_HUB_OFFLINE=0 $(BIN)/python -m pipeline.publishing.publish $(if $(REPO),repo_id=$(REPO)) $(if $(WHAT),what=$(WHAT)) $(if $(PRIVATE),private=$(PRIVATE)) $(if $(DRY_RUN),--dry-run)

##@ develop

# Two workers, each with the tests of whole files; libraries compute on one core, and whoever waits for another leaves it.
test: $(READY) $(CONVERTED) ## run the tests on two cores (WORKERS=4)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-slow: $(READY) ## run the simulations behind the statistics; takes minutes
	$(BIN)/python -m pytest -m slow -s

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

chaos: $(READY) $(CONVERTED) ## kill `dvc repro` at 20 random moments (docs/reliability.md); takes minutes
	$(BIN)/python -m pytest -m slow -s tests/integration/test_chaos.py

fuzz: $(READY) ## 100,000 hostile inputs of each kind; takes half an hour (FUZZ="1000 shards")
	PYTHONPATH=.:tests:tests/pipeline nice -n 10 $(BIN)/python -P tests/fuzz.py $(FUZZ)

audit: $(READY) ## known vulnerabilities in requirements.lock, if a database answers (AUDIT="...")
	$(BIN)/python .ci/audit.py $(AUDIT)

bench: $(READY) $(CONVERTED) ## all benchmarks, on an idle machine; over an hour (BENCH="verify study")
	$(BIN)/python -m benchmarks $(BENCH)

train: $(READY) ## train the embedded networks; resumes (models/tinybooru/README.md)
	$(BIN)/python -m models.tinybooru.train

gpu: $(READY) ## train the embedded networks on a GPU, time-boxed and resumable (SECONDS_OF_TRAINING=420)
	$(BIN)/python -m models.tinybooru.train networks --size gpu --seconds $(or $(SECONDS_OF_TRAINING),420)

worldcheck: $(READY) ## let the judge measure the embedded networks; resumes; over an hour on two cores
	$(BIN)/python -m models.tinybooru.worldcheck

feature-spaces: $(READY) $(CONVERTED) ## what each feature space sees of known changes (docs/feature-spaces.md); two minutes
	$(BIN)/python -m models.tinybooru.spaces

lock: $(READY) ## resolve pyproject.toml into requirements.lock
	$(BIN)/python -m uv pip compile --quiet --upgrade --python-version 3.11 --no-emit-index-url --no-emit-find-links --extra dev --extra ray --extra s3 pyproject.toml -o requirements.lock
