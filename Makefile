# `make` lists the targets. Each installs what it needs (Debian packages, cargo tools, the ClickHouse engine), once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo test kernels nics bench accuracy peers instructions check-instructions lint fuzz clean cargo engine nextest cargo-fuzz

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
export CARGO_TARGET_DIR ?= $(CURDIR)/target

WEB := analyzer/web
FUZZ_SECONDS ?= 60

# Cargo tools, at versions that this toolchain builds.
NEXTEST := 0.9.151
CARGO_FUZZ := 0.13.2

# $(call say,WHAT): what the next lines do.
say = @printf '\n==> %s\n' '$(1)'

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: cargo engine nextest cargo-fuzz $(WEB)/node_modules/.package-lock.json ## Install everything that any target needs
	@.ci/packages.sh build lint test web fuzz demo accuracy bench instructions dpdk

build: cargo ## Build the wirespan binary (release) into target/release
	@.ci/packages.sh build
	$(call say,building the release binary)
	cargo build --release --locked
	@echo "$(CARGO_TARGET_DIR)/release/wirespan"

demo: build engine ## Watch real servers in network namespaces: table, map, page (ONCE=1 ends by itself; needs root)
	@.ci/packages.sh demo
	@deploy/demo/run.sh "$(CARGO_TARGET_DIR)/release/wirespan"

test: cargo engine nextest $(WEB)/node_modules/.package-lock.json ## Run all tests (as root, those of live capture too)
	@.ci/packages.sh build test web dpdk
	$(call say,testing the front end)
	cd $(WEB) && npm test
	$(call say,testing the page in Chromium)
	cd $(WEB) && npm run e2e
	$(call say,testing the documentation examples)
	cargo test --workspace --features dpdk --locked --doc --quiet
	$(call say,testing the crates)
	cargo nextest run --workspace --features dpdk --locked --profile ci
	@$(MAKE) --no-print-directory check-instructions

kernels: cargo engine ## Boot older and newer kernels of Debian in qemu, and run tests of capture and tracing there (SUITES=bookworm)
	@.ci/kernels.sh $(SUITES)

nics: cargo ## Boot two kernels of Debian in qemu with NICs that it emulates, and run tests of AF_XDP and --offload on their drivers (needs root)
	@.ci/kernels.sh --nics $(SUITES)

bench: cargo engine ## Measure: one line per measurement, beside its physical limit
	@.ci/packages.sh build bench
	cargo run --release --locked -p wirespan-perf -- all

accuracy: cargo ## Compare the links of real services' calls with the truth, into analyzer/stitch/ACCURACY.md (needs root)
	@.ci/packages.sh build accuracy
	cargo run --locked -p wirespan-perf -- accuracy --write analyzer/stitch/ACCURACY.md

NFSTREAM := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wirespan/nfstream
peers: ## Install the slower programs that `make bench` compares with: tshark, nfstream
	@.ci/packages.sh bench peers
	@[[ -x $(NFSTREAM)/bin/python ]] || python3 -m venv $(NFSTREAM)
	@$(NFSTREAM)/bin/pip install --quiet nfstream

# Optimised, but with nothing that differs from build to build, and without the parts that are not counted.
INSTRUCTIONS := cargo run --quiet --locked -p wirespan-perf --no-default-features --profile instructions \
	--config 'profile.instructions.inherits="release"' --config 'profile.instructions.lto="off"' \
	--config profile.instructions.debug=0 -- instructions

instructions: cargo ## Count instructions per packet anew, into perf/instructions.txt
	@.ci/packages.sh build instructions
	$(INSTRUCTIONS) --write

check-instructions: cargo ## Fail when a stage takes 5 % more instructions per packet than perf/instructions.txt says
	@.ci/packages.sh build instructions
	$(call say,counting instructions per packet)
	$(INSTRUCTIONS)

lint: cargo $(WEB)/node_modules/.package-lock.json ## Check format, lints, scripts, dependency arrows and the built front end
	@.ci/packages.sh build lint web dpdk
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	$(call say,format)
	cargo fmt --all --check
	@# It does not find files whose `mod` is written by a macro.
	rustfmt --edition 2024 --check $$(git ls-files 'analyzer/l7/src/protocols/*.rs')
	$(call say,dependency arrows)
	python3 .ci/arrows.py
	$(call say,scripts)
	git ls-files '*.sh' .ci/run | xargs shellcheck -x
	$(call say,the committed page is what its sources build)
	cd $(WEB) && npm run check --silent
	$(call say,clippy)
	cargo clippy --workspace --all-targets --features dpdk --locked -- -D warnings

fuzz: cargo cargo-fuzz ## Run every fuzz target for FUZZ_SECONDS each (60)
	@.ci/packages.sh build fuzz
	@.ci/fuzz.sh $(FUZZ_SECONDS)

clean: ## Remove what was built here (installed packages and the user's cache stay)
	cargo clean
	rm -rf $(WEB)/node_modules

# What the targets above need.

cargo:
	@command -v cargo >/dev/null || { echo "cargo was not found: install Rust 1.95 or newer with rustup" >&2; exit 1; }

engine:
	@[[ -n "$${WIRESPAN_LIBCHDB:-}" ]] || { .ci/packages.sh engine; analyzer/store/setup-libchdb.sh; }

# These two only start other programs, so they are built fast rather than optimised.
nextest cargo-fuzz: export CARGO_PROFILE_RELEASE_OPT_LEVEL := 0
nextest cargo-fuzz: export CARGO_PROFILE_RELEASE_LTO := off
nextest cargo-fuzz: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS := 16

nextest: cargo
	@command -v cargo-nextest >/dev/null || { .ci/packages.sh build; echo "==> installing cargo-nextest"; \
		env -u CARGO_TARGET_DIR cargo install --locked --quiet --no-default-features --features default-no-update cargo-nextest@$(NEXTEST); }

cargo-fuzz: cargo
	@command -v cargo-fuzz >/dev/null || { .ci/packages.sh build; echo "==> installing cargo-fuzz"; \
		env -u CARGO_TARGET_DIR cargo install --locked --quiet cargo-fuzz@$(CARGO_FUZZ); }

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	@.ci/packages.sh web
	@echo "==> installing the front end's packages"
	@cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json
