# Everything a newcomer needs: `make demo` and `make test`. Nothing has to be installed by hand beside rustup, Python and a C compiler.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
PYTHON ?= python3
ARGS ?=
TOOLCHAIN := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)

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

# Only what is missing: a toolchain that is there is left alone.
setup:
	@rustup toolchain list | grep -q "^$(TOOLCHAIN)" || rustup toolchain install $(TOOLCHAIN) --profile minimal --no-self-update
	@rustup target list --installed --toolchain $(TOOLCHAIN) | grep -q wasm32-wasip2 || rustup target add wasm32-wasip2 --toolchain $(TOOLCHAIN)
	@rustup component list --installed --toolchain $(TOOLCHAIN) | grep -q clippy || rustup component add rustfmt clippy --toolchain $(TOOLCHAIN)

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
