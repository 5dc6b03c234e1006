# One way in: `make lab` to see it work, `make test` to prove it.
# The build cache lies outside the clone; set WEFT_CACHE to move it.
WEFT_CACHE ?= $(HOME)/.cache/weft
export CARGO_TARGET_DIR ?= $(WEFT_CACHE)/target
export WEFT_CACHE

.PHONY: help lab build deps test lint fmt bench vm fuzz clean

help: ## Say what each target does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

lab: build ## Build, bring up 3 nodes with the example shop, check it, say what to try next
	bin/weft lab up --nodes 3 -f examples/shop
	bin/weft lab check

build: deps ## Build the release executables and link them into bin/
	cargo build --release --locked -p weft-cli
	@scripts/build-cni.sh
	@mkdir -p bin && ln -sf $(CARGO_TARGET_DIR)/release/weft $(CARGO_TARGET_DIR)/release/weft-cni bin/

deps: ## Install the system packages that are missing (says which)
	@scripts/install-deps.sh run

test: ## Every test lane, with a closing count
	@scripts/install-deps.sh test
	@scripts/test.sh

lint: ## rustfmt and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## Format the sources
	cargo fmt --all

bench: build ## The figures of docs/performance.md, each against its peer
	@scripts/install-deps.sh bench
	bench/run.sh

vm: build ## The virtual machine lane alone: kernels and features this machine lacks
	@scripts/install-deps.sh vm
	scripts/vm-test.sh

fuzz: ## A minute of fuzzing on every parser of outside bytes
	scripts/fuzz.sh 60

clean: ## Remove what the build left in the clone (the cache stays)
	rm -rf bin
