# Everything a newcomer needs: `make demo` and `make test`. Assumed are rustup, Python with pip, a C compiler and make; the Rust
# toolchain and its WebAssembly target are installed here, as rust-toolchain.toml says.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
PYTHON ?= python3
ARGS ?=

TOOLCHAIN := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# Guests are built for wasm, with the profile that users are told to use.
GUESTS := flights-clean flights-delays word-split word-count dedup running-totals convert record-upper
# Written on bare bindings: they have no tests of their own, and natively built they would have their macros' dependencies, and with
# these the WebAssembly compiler, built a second time.
BARE_GUESTS := record-upper contract record-contract wasi-probe
GUEST_FLAGS := --profile guest --target wasm32-wasip2

# To stderr, like what cargo says: the output of `make bench` is one line of JSON.
say = @echo "== $(1)" >&2

.PHONY: help setup build guests demo test proof fuzz schemathesis lint format bench release readme clean

help:
	@echo "make demo     the main job on real flights: deployed over HTTP, killed with kill -9, started again, checked by an oracle"
	@echo "              (make demo ARGS=--quick: with a sample, without a download)"
	@echo "make test     all tests, and the commands of the README"
	@echo "make fuzz     what comes from outside, bent in every way, for FUZZ_SECONDS=600"
	@echo "make schemathesis  made-up requests against the description of the HTTP API (SCHEMATHESIS_EXAMPLES=1000 looks longer)"
	@echo "make proof    a crash at every step, pairs of crashes, and kill -9 under load: hours, one JSON line of figures"
	@echo "              (KILLS=1000 SEED=.. by default; make proof KILLS=20 PAIRS_ONE_OF=50 POINTS_ONE_OF=20 is a short one)"
	@echo "make bench    one benchmark run, one JSON line: make bench ARGS=\"--workload w2 --keys 1000 --seconds 20\""
	@echo "make build    the host, in $(TARGET_DIR)/debug/tidegate"
	@echo "make guests   the example operators as components, in $(TARGET_DIR)/wasm32-wasip2/guest/"
	@echo "make release  the binary that users install, in $(TARGET_DIR)/release/tidegate"
	@echo "make lint     formatting and clippy; make format mends the former"

# Asks rustup for what is missing only: an install goes to the network even where there is nothing to do.
setup:
	@command -v rustup >/dev/null || { echo "rustup is needed: it installs the Rust toolchain"; exit 1; }
	@rustup run $(TOOLCHAIN) cargo fmt --version >/dev/null 2>&1 \
	  && rustup run $(TOOLCHAIN) cargo clippy --version >/dev/null 2>&1 \
	  && rustup target list --toolchain $(TOOLCHAIN) --installed 2>/dev/null | grep -qx wasm32-wasip2 \
	  || { echo "== installing Rust $(TOOLCHAIN) with the target wasm32-wasip2" >&2; \
	    rustup toolchain install $(TOOLCHAIN) --no-self-update --profile minimal --component rustfmt --component clippy \
	      --target wasm32-wasip2 >&2; }

build: setup
	$(call say,building the host (the first time takes some minutes: it compiles a compiler for WebAssembly))
	@$(CARGO) build --package tidegate

guests: setup
	$(call say,building the operators for wasm32-wasip2)
	@$(CARGO) build $(GUEST_FLAGS) $(addprefix --package ,$(GUESTS))

demo: build guests
	@echo
	@$(PYTHON) examples/flights/demo.py $(ARGS)

# Tests build the guests they need themselves.
test: build guests
	$(call say,tests)
	@$(CARGO) test --workspace $(addprefix --exclude ,$(BARE_GUESTS)) $(ARGS)
	$(call say,made-up requests against the description of the API)
	@PYTHON=$(PYTHON) tests/schemathesis.sh
	$(call say,the commands of the README)
	@tests/readme.sh

# `make test` does this for some seconds.
fuzz: setup
	$(call say,bent inputs of every kind for $(or $(FUZZ_SECONDS),600) s)
	@FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(CARGO) test --package tidegate-tests --test fuzz -- --nocapture $(ARGS)

schemathesis: build
	$(call say,schemathesis: made-up requests against the description of the API)
	@PYTHON=$(PYTHON) tests/schemathesis.sh

# Its parts and their extent: tests/src/bin/proof.rs.
proof: setup
	$(call say,building the host and the proof)
	@$(CARGO) build --package tidegate --package tidegate-tests --bin tidegate --bin proof
	@TIDEGATE_BINARY=$(abspath $(TARGET_DIR))/debug/tidegate $(TARGET_DIR)/debug/proof

readme: build guests
	@tests/readme.sh

lint: setup
	$(call say,formatting)
	@$(CARGO) fmt --all --check
	$(call say,clippy)
	@$(CARGO) clippy --workspace --all-targets -- -D warnings

format: setup
	@$(CARGO) fmt --all

bench: setup guests
	$(call say,building the host and the driver for speed)
	@$(CARGO) build --release --package tidegate --package tidegate-bench
	@$(TARGET_DIR)/release/bench $(ARGS)

release: setup
	$(call say,building the host for speed)
	@$(CARGO) build --release --package tidegate

clean:
	$(CARGO) clean
