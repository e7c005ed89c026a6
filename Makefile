# Everything a newcomer needs: python3, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
BENCH_READY := $(VENV)/.bench-ready
export DAGSTER_HOME := $(CURDIR)
# Nothing here calls home.
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test bench ui lint format lock clean

demo: $(READY) ## carry data/demo from raw pairs to a scoreboard
	$(BIN)/python -m clipcov_assets.demo

test: $(DEV_READY) ## every test
	$(BIN)/python -m pytest

bench: $(BENCH_READY) ## ours and the peers, measured side by side: rewrites docs/performance.md (three quarters of an hour)
	$(BIN)/python -m benchmarks

ui: $(READY) ## Dagster on http://127.0.0.1:3000, its reports and galleries on :3001, MLflow on :5000
	mkdir -p var
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
	  --backend-store-uri sqlite:///$(CURDIR)/var/mlflow.db > var/mlflow.log 2>&1 & mlflow=$$!; \
	$(BIN)/python -m clipcov_assets.pages > var/pages.log 2>&1 & pages=$$!; \
	trap "kill $$mlflow $$pages" EXIT INT TERM; \
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg dev --host 127.0.0.1 --port 3000

lint: $(DEV_READY) ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_READY) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## write requirements.lock anew from pyproject.toml: the newest versions in range, and versions only
	$(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet '.[dev]'
	.lock/bin/pip freeze --exclude clipcov-assets | grep -E '^[A-Za-z0-9_.-]+==' > requirements.lock
	rm -rf .lock

clean: ## forget everything that was made
	rm -rf var

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml requirements.lock | $(VENV)/bin/pip
	@echo "installing into $(VENV): about 7 GB, a few minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable .
	touch $@

# Once for both: what is installed for tests runs the demo, too.
$(DEV_READY): pyproject.toml requirements.lock | $(VENV)/bin/pip
	@echo "installing into $(VENV): about 8 GB, a few minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $(READY) $@

$(BENCH_READY): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[bench]'
	touch $@
