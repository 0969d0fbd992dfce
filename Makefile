# Everything a developer runs; CI calls the same targets.
PYTHON ?= python3
CHECKPOINT ?=
VENV := .venv
BIN := $(VENV)/bin
# tests run in this many processes at once: they often wait for the servers that they start
PROCESSES ?= 2
PYTEST := pytest --numprocesses $(PROCESSES) --dist loadfile
INSTALLED := $(VENV)/.installed
FOR_DEMO := $(VENV)/.installed-for-demo
# the graph is run on these as well: the versions in Triton's images 26.05 to 26.07
RUNTIMES := $(addprefix $(VENV)/onnxruntimes/,1.24.4 1.27.0)

# CUDA builds of ONNX Runtime for dry runs: the version in Triton's image, and the newest
CUDA_RUNTIMES := $(addprefix $(VENV)/onnxruntimes-gpu/,1.27.0 1.31.1)

# from 1.32 on, ONNX Runtime sends telemetry to its makers unless told otherwise
export ORT_DISABLE_TELEMETRY ?= 1

# tools/install.py leaves compiling to the first import, and its result is kept: compiling again in
# each process would make the exporter start in 19 s instead of 7
unexport PYTHONDONTWRITEBYTECODE

# an environment keeps the Python that it was made with
ifneq ($(and $(wildcard $(BIN)/python),$(filter-out file,$(origin PYTHON)),$(filter-out clean,$(or $(MAKECMDGOALS),help))),)
THERE := $(shell $(BIN)/python --version)
ASKED := $(shell $(PYTHON) --version)
ifneq ($(THERE),$(ASKED))
$(error $(VENV) has $(THERE), and PYTHON=$(PYTHON) is $(ASKED): remove it first with "make clean")
endif
endif

.DEFAULT_GOAL := help
# in parallel, two targets would set up the one environment at the same time
.NOTPARALLEL:
.PHONY: help demo test test-client cuda-dry-run coverage docs api lint types install bench train-chitchat clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-15s %s\n", $$1, $$2}'

demo: $(FOR_DEMO) ## set up, export a checkpoint, serve it, rank real conversations (CHECKPOINT=hub id or folder)
	@$(BIN)/python demo/demo.py $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)')

test: lint types $(RUNTIMES) ## run lint, types and all tests
	$(BIN)/$(PYTEST)

# the client alone, with the newest and with the oldest allowed releases of its dependencies
CLIENTS := $(addprefix $(VENV)/client-,newest oldest)
test-client: $(addsuffix /.installed,$(CLIENTS)) ## run the client's tests in bare installs of it
	for client in $(CLIENTS); do $$client/bin/python -m $(PYTEST) -q tests/client tests/contract || exit 1; done

$(VENV)/client-%/.installed: pyproject.toml tools/oldest.py
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	if [ $* = oldest ]; then $(PYTHON) tools/oldest.py; fi > $(@D)/constraints.txt
	$(@D)/bin/pip install --quiet --constraint $(@D)/constraints.txt --editable . pytest pytest-xdist hypothesis trustme
	@touch $@

coverage: $(INSTALLED) ## measure how much of the client its own tests run, branches included
	$(BIN)/pytest tests/client tests/contract tests/text --cov-branch \
		--cov=reward_client --cov=reward_contract --cov=reward_text --cov-report=term:skip-covered

docs: $(INSTALLED) ## build the documentation site in .site/; python3 -m http.server --directory .site shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

api: $(INSTALLED) ## rewrite the snapshot of the public names, after an intended change
	$(BIN)/python tools/public_api.py > tests/docs/public_api.txt

cuda-dry-run: $(INSTALLED) $(CUDA_RUNTIMES) ## run the graphs for GPUs on the real CUDA provider without a GPU (fetches 400 MB once, needs gcc)
	$(BIN)/python tools/dry_run.py
	$(BIN)/pytest tests/cuda

lint: $(INSTALLED) ## check style and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## check types with mypy, strictly in the packages
	$(BIN)/mypy

install: $(INSTALLED) ## set up the environment in .venv

# One environment for all parts. constraints.txt pins what CI and the demo use; the package
# itself has ranges. torch is the build that pip finds for this platform.
$(INSTALLED): pyproject.toml constraints.txt
	@tools/host.sh $(PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/install.py $(VENV) '.[dev]'
	@touch $(FOR_DEMO) $@

# The part of the environment that the demo needs; what is there already is kept.
$(FOR_DEMO): pyproject.toml constraints.txt
	@tools/host.sh $(PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/install.py $(VENV) '.[export,serve]'
	@touch $@

$(VENV)/onnxruntimes/%: | $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --target $@ onnxruntime==$*

$(VENV)/onnxruntimes-gpu/%: | $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --target $@ onnxruntime-gpu==$*

bench: $(INSTALLED) ## benchmark graph, server, overload and client on a tiny model, in minutes; SUITES and OPTIONS choose others
	$(BIN)/python -m reward_bench $(or $(SUITES),graph client server overload) $(or $(OPTIONS),--quick)

CHITCHAT := .checkpoints/chitchat
train-chitchat: $(INSTALLED) ## train checkpoints/chitchat again into .checkpoints/, within an hour
	$(BIN)/gpt2-reward rows $(CHITCHAT)-rows --chitchat
	$(BIN)/gpt2-reward train $(CHITCHAT)-rows/train.jsonl --validation $(CHITCHAT)-rows/validation.jsonl \
		--from-scratch 4,4,128 --output $(CHITCHAT) --pack 512 --batch-size 6 --epochs 1 \
		--precision bf16 --token-loss 0.5 --learning-rate 5e-4 --scheduler cosine --warmup 0.05 \
		--weight-decay 0.01 --save-dtype float16
	cp checkpoints/chitchat/README.md $(CHITCHAT)
	$(BIN)/python tools/judge_checkpoint.py $(CHITCHAT) $(CHITCHAT)-rows

clean: ## remove what the targets above have made
	rm -rf $(VENV) .site .coverage .checkpoints .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf demo/model_repository
	find model_repository -mindepth 2 -maxdepth 2 -type d -exec rm -rf {} +
