# Everything a newcomer needs: `make demo` and `make test`. Nothing has to be installed by hand beside rustup, Python and a C compiler.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
PYTHON ?= python3
ARGS ?=

# Guests are built for wasm; with the profile that users are told to use.
GUESTS := flights-clean flights-delays word-count dedup running-totals convert record-upper
TEST_GUESTS := contract record-contract wasi-probe
GUEST_FLAGS := --quiet --profile guest --target wasm32-wasip2

.PHONY: help setup build guests demo test lint bench release clean

help:
	@echo "make demo     the main job on real flights: deployed over HTTP, killed with kill -9, started again, checked by an oracle"
	@echo "make test     all tests"
	@echo "make bench    one benchmark run, one JSON line: make bench ARGS=\"--workload w2 --keys 1000 --seconds 20\""
	@echo "make guests   the example operators as components, in target/wasm32-wasip2/guest/"
	@echo "make release  the binary that users install, in target/release/tidegate"
	@echo "make lint     formatting and clippy"

setup:
	@rustup toolchain install --no-self-update $$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) --profile minimal \
	  --component rustfmt --component clippy --target wasm32-wasip2 >/dev/null 2>target/setup.log \
	  || { cat target/setup.log; exit 1; }

target:
	@mkdir -p target

setup: | target

build: setup
	@echo "building the host (the first time takes some minutes: it compiles a WebAssembly compiler)"
	@$(CARGO) build --quiet --package tidegate

guests: setup
	@echo "building the operators for wasm32-wasip2"
	@$(CARGO) build $(GUEST_FLAGS) $(addprefix --package ,$(GUESTS))

test-guests: setup
	@$(CARGO) build $(GUEST_FLAGS) $(addprefix --package ,$(TEST_GUESTS))

demo: build guests
	@$(PYTHON) examples/flights/demo.py $(ARGS)

test: build guests test-guests
	$(CARGO) test --workspace $(ARGS)

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench: setup guests
	@$(CARGO) build --quiet --release --package tidegate --package tidegate-bench
	@target/release/bench $(ARGS)

release: setup
	$(CARGO) build --release --package tidegate

clean:
	$(CARGO) clean
