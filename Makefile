# Everything runs in an environment of its own (.venv); the first target that needs it makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
# For instance: make repro OVERRIDES="arms.cfg.scale=4"
OVERRIDES ?=
PORT ?= 5000

.PHONY: help setup params repro test test-slow chaos lint audit bench fuzz mlflow experiments label-studio label-demo publish train gpu worldcheck lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make the Python environment (.venv), once

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"guidedrift needs Python 3.11 or later; $(PYTHON) is {v[0]}.{v[1]}")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

params: $(READY) ## compose conf/ into params.yaml (OVERRIDES="key=value ...")
	@$(BIN)/python -m pipeline.compose $(OVERRIDES)

repro: params ## draw, score, compare, report and track the study; what is done stays done
	@$(BIN)/python -m pipeline.recover
	@$(BIN)/dvc repro
	@echo "report: reports/index.html   numbers: dvc metrics show   runs: make mlflow"

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(READY) ## run the simulations behind docs/labeling-statistics.md and docs/statistics.md; they take minutes
	$(BIN)/python -m pytest -m slow -s

chaos: $(READY) ## kill `dvc repro` at 20 random moments and compare (docs/reliability.md); it takes minutes
	$(BIN)/python -m pytest -m slow -s tests/integration/test_chaos.py

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: $(READY) ## known vulnerabilities of requirements.lock; says so where no database can be reached (AUDIT="...")
	$(BIN)/python .ci/audit.py $(AUDIT)

bench: $(READY) ## all benchmarks into docs/benchmarks.md, on an idle machine (BENCH="verify study"); over an hour
	$(BIN)/python -m benchmarks $(BENCH)

fuzz: $(READY) ## 100,000 hostile configurations, prompts, shards and label files (FUZZ="1000 shards"); takes half an hour
	nice -n 10 $(BIN)/python tests/fuzz.py $(FUZZ)

mlflow: $(READY) ## look at the runs on http://127.0.0.1:5000 (PORT=...); with MLFLOW_TRACKING_URI: says where they are
	@$(BIN)/python -m pipeline.tracking.server --port $(PORT)

# `dvc exp show` alone has a column for every param, metric and dependency of every arm: hundreds.
experiments: $(READY) ## the params and numbers in which DVC's experiments differ (dvc exp run -S ...)
	@$(BIN)/dvc exp show --no-pager --only-changed --hide-workspace --drop '^(data|eval|labeling|labels|metrics|models|pipeline|prompts|reports)(/[^:]*)?$$|^Created'

label-studio: $(READY) ## start Label Studio on loopback, to label pictures (LABEL_PORT=...)
	@$(BIN)/python -m labeling.server $(if $(LABEL_PORT),--port $(LABEL_PORT))

label-demo: $(READY) ## SIMULATED labels by the embedded judge, to try the loop (ERROR_RATE=0.1 LABELLER=judge)
	@$(BIN)/python -m labeling.demo --error-rate $(or $(ERROR_RATE),0.1) $(if $(LABELLER),--labeller $(LABELLER))

publish: $(READY) ## the study's dataset to the Hugging Face Hub (REPO=owner/name WHAT=dataset|models PRIVATE=true DRY_RUN=1)
	@HF_HUB_OFFLINE=0 $(BIN)/python -m pipeline.publish $(if $(REPO),repo_id=$(REPO)) $(if $(WHAT),what=$(WHAT)) $(if $(PRIVATE),private=$(PRIVATE)) $(if $(DRY_RUN),--dry-run)

train: $(READY) ## train the embedded networks again; resumes (see models/tinybooru/README.md)
	$(BIN)/python -m models.tinybooru.train

gpu: $(READY) ## train world 3's networks, time-boxed and resumable, on a GPU if there is one (SECONDS_OF_TRAINING=420)
	$(BIN)/python -m models.tinybooru.gpu --out models/tinybooru/checkpoints/v3/out --state models/tinybooru/checkpoints/v3 --seconds $(or $(SECONDS_OF_TRAINING),420)

worldcheck: $(READY) ## draw with the shipped networks and let the judge measure them (resumes; 74 minutes on two cores)
	$(BIN)/python -m models.tinybooru.worldcheck

lock: $(READY) ## resolve pyproject.toml into requirements.lock anew
	$(BIN)/python -m uv pip compile --quiet --upgrade --python-version 3.11 --no-emit-index-url --no-emit-find-links --extra dev --extra ray --extra s3 pyproject.toml -o requirements.lock

clean: ## delete what `make repro` made (not the environment, not mlflow.db)
	rm -rf data plots reports .dvc/cache .dvc/tmp
