# Everything a person does with Weir, from a fresh clone. `make run` and `make test` install what they
# lack (.ci/install tells what), ask nothing, and can be run again at any time.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where cargo puts what it builds, and where the tools that only this project needs are kept.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
TOOLS := $(abspath target/tools)
export PATH := $(TOOLS)/bin:$(HOME)/.cargo/bin:$(PATH)
export CARGO_TERM_PROGRESS_WHEN ?= auto

# The tests fuzz each target for this many seconds; `make fuzz FUZZ_SECONDS=600` looks longer.
FUZZ_SECONDS ?= 5

.PHONY: help run test rust-test doc-test sdk-test fuzz lint release schema catalog bench image clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: ## Build Weir and serve the quickstart: simulated providers, a demo key, a ready curl line
	@.ci/install build
	cargo build --locked --package gateway --bin weir
	@exec "$(TARGET)/debug/weir" serve

test: ## Every test: Rust, documentation, fuzz targets, official client libraries
	@.ci/install build test
	@$(MAKE) rust-test doc-test fuzz sdk-test

rust-test:
	cargo build --locked --workspace --bins
	cargo nextest run --locked --workspace --no-fail-fast

doc-test:
	cargo test --locked --workspace --doc

sdk-test:
	@test -x "$(TARGET)/debug/weir" || cargo build --locked --package gateway --bin weir
	cd tests/sdk/node && WEIR_BIN="$(TARGET)/debug/weir" npm test
	cd tests/sdk/python && WEIR_BIN="$(TARGET)/debug/weir" "$(TOOLS)/bin/python" -m pytest

fuzz: ## Fuzz each target for FUZZ_SECONDS
	@.ci/fuzz $(FUZZ_SECONDS)

lint: ## Formatting, clippy, licences and sources of dependencies, unused dependencies
	@.ci/install build lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@.ci/audit
	cargo shear

release: ## The binary to put into service: target/release/weir (full optimisation: minutes)
	@.ci/install build
	cargo build --locked --release --package gateway --bin weir
	@echo "built $(TARGET)/release/weir"

schema: ## Write config/weir.schema.json anew
	cargo run --locked --package gateway --bin weir -- schema > config/weir.schema.json.new
	mv config/weir.schema.json.new config/weir.schema.json

catalog: ## Fetch public prices and write config/catalog anew
	@.ci/install lint
	rm -rf target/catalog && "$(TOOLS)/bin/pip" install --disable-pip-version-check --quiet --no-deps --target target/catalog litellm
	"$(TOOLS)/bin/python" config/catalog/refresh.py "$$(date -I)" target/catalog

bench: ## Weir beside nginx in one run: the table, also in load-tests/RESULTS.md (minutes)
	@.ci/install build
	load-tests/bench.sh

image: ## The container image weir:latest
	docker build --tag weir:latest .

clean: ## Remove what was built and installed here
	rm -rf target tests/sdk/node/node_modules tests/fuzz/target
