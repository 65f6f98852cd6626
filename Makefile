# All tasks of developers and CI in this repository. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
export HOLDFAST_CACHE ?= $(HOME)/.cache/holdfast
export IMAGE := holdfast:$(shell scripts/version)
IMAGE2 := $(IMAGE)-next
PROTOS := $(wildcard store/holdfast/proto/*.proto)

.PHONY: help setup run test test-fast operator-sim operator-mutants kube e2e kube-down image lint format proto generate lock tools bench bench-failover bench-client bench-edge coverage clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.done ## make .venv with everything; the command then is .venv/bin/holdfast

$(VENV)/.done: requirements/dev.txt pyproject.toml
	@scripts/ensure-python
	@echo "== making .venv (about a minute)"
	@test -x $(BIN)/python || "$$(scripts/ensure-python --print)" -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

run: setup ## demonstration: a local cluster with an edge replica; runs until Ctrl-C
	@$(BIN)/python -m holdfast_lab demo

# Tests of what is pure and of what is on disks; none of them needs a process. `coverage` runs them.
COVERED := $(addprefix store/tests/,raft member kv auth watch edge served storage machine)

test: setup tools lint ## all tests except those on a real Kubernetes
	@$(MAKE) --no-print-directory coverage
	$(BIN)/pytest store/tests $(addprefix --ignore=,$(COVERED))
	$(BIN)/pytest operator/tests

# With STORE=holdfast the API server keeps its own data in holdfast instead of etcd.
export STORE ?= etcd

test-pythons: ## the tests that need no process, on each available Python from 3.12 on
	@scripts/test-pythons

kube: setup image tools ## a real Kubernetes (kind) with the operator, a cluster, an edge pool and a configuration
	@e2e/cluster up
	@e2e/cluster load $(IMAGE) $(IMAGE2)
	@e2e/show

e2e: setup image tools ## the tests on a real Kubernetes (kind); E2E=FILES for some of them
	@e2e/cluster up
	@e2e/cluster load $(IMAGE) $(IMAGE2)
	$(BIN)/pytest $(or $(E2E),e2e) -s

kube-down: ## remove the Kubernetes of make kube
	@e2e/cluster down

image: setup ## the container images; uses the network only if it has to
	@e2e/images $(IMAGE) $(IMAGE2)

test-fast: setup ## only the tests that need no process
	$(BIN)/pytest store/tests -m "not integration and not sim" -x -q

lint: setup ## ruff, mypy, the layers, the docs' references, and that generated files are current
	$(BIN)/ruff check store operator benchmarks e2e
	$(BIN)/ruff format --check store operator benchmarks e2e
	$(BIN)/mypy
	cd store && MYPYPATH=.:../operator ../$(BIN)/mypy --config-file ../pyproject.toml -p tests
	$(BIN)/mypy operator/tests
	$(BIN)/lint-imports
	$(BIN)/python scripts/check-layers
	$(BIN)/python scripts/check-docs
	@scripts/check-generated
	@scripts/generate --check

format: setup ## format the code
	$(BIN)/ruff check --fix store operator benchmarks e2e
	$(BIN)/ruff format store operator benchmarks e2e

proto: setup ## generate modules from the .proto sources
	$(BIN)/python -m grpc_tools.protoc -I store --python_out=store --pyi_out=store $(PROTOS)

generate: setup proto ## generate CRDs, the chart's copy of them, and plain manifests
	@scripts/generate

lock: ## pin the installed packages, with hashes; needs uv
	uv pip compile -q pyproject.toml --extra server --extra tracing --extra flags --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/server.txt
	uv pip compile -q pyproject.toml --extra operator --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/operator.txt
	uv pip compile -q pyproject.toml --extra server --extra tracing --extra operator --extra plan --extra flags --extra settings --extra dynaconf --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/dev.txt

tools: ## build etcdctl, etcd and its load generator from Go modules
	@scripts/build-tools

bench: setup tools ## benchmark holdfast and etcd, one after the other in one run
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/append_latency.py
	$(BIN)/python benchmarks/peer_transport.py

bench-failover: setup tools ## how long writes fail after the leader is killed, compared with etcd
	$(BIN)/python benchmarks/failover.py

bench-client: setup tools ## clients while a member is frozen or slow: ours, etcd's in Go, one in Python
	$(BIN)/python benchmarks/client.py

bench-edge: setup tools ## what replicas cost members, directly and behind relays, compared with etcd's watches
	$(BIN)/python benchmarks/edge.py
	$(BIN)/python benchmarks/edge_join.py

bench-cells: setup ## registers, transactions and queues between three clusters, near and 50 ms away
	$(BIN)/python benchmarks/cells.py

bench-watchers: setup tools ## ten thousand watchers of one key, compared with etcd
	$(BIN)/python benchmarks/many.py watchers

bench-leases: setup tools ## fifty thousand leases kept alive for five minutes, compared with etcd
	$(BIN)/python benchmarks/many.py leases

soak: setup ## all operations at once for SECONDS=1800: checks memory growth and errors
	$(BIN)/python benchmarks/soak.py

operator-sim: setup ## the operator in SEEDS=200 simulated worlds, from SEED=0 on
	$(BIN)/python -m holdfast_operator.sim --seeds $(or $(SEEDS),200) --from $(or $(SEED),0)

operator-mutants: setup ## break each rule of the operator, and see that a simulated world notices
	$(BIN)/python -m holdfast_operator.sim --mutants

fuzz: setup ## each attack by itself for ATTACK_SECONDS=10, then all attacks for SECONDS=600
	cd store && ../$(BIN)/python -m tests.fuzz.alone $(or $(ATTACK_SECONDS),10)
	cd store && ../$(BIN)/python -m tests.fuzz.hostile $(or $(SECONDS),600) $(or $(SEED),1)

differential: setup tools ## OPS=100000 random calls to holdfast and etcd, all answers compared; SEED=1
	OPS=$(or $(OPS),100000) SEED=$(or $(SEED),1) $(BIN)/pytest store/tests/differential -s -q

check-perf: setup tools ## etcdctl check perf --load=s against three members
	$(BIN)/python benchmarks/check_perf.py

coverage: setup ## lines and branches that tests reach, of what is pure and of what is on disks
	$(BIN)/coverage run -m pytest -q -m "not integration" $(COVERED)
	$(BIN)/coverage report

clean: ## remove everything that was built here (not the cache)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find store operator -name __pycache__ -type d -prune -exec rm -rf {} +
