# The commands of the project. `make demo` and `make test` need nothing but a Rust toolchain: what is missing is
# installed by scripts/setup.sh, which says what it does (and, without root, what to run).

SHELL := /bin/bash
# Outside the checkout, so that a second clone on the same machine reuses what is built.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/backstay/target
STORE ?= local
DEMO_FLAGS ?=
TEST_FLAGS ?=
BENCH ?= logical
BENCH_FLAGS ?=
# The library of notifications has the name that its programs would have.
BENCH_PACKAGES := $(patsubst %,-p backstay-%,$(patsubst notify,notify-programs,$(notdir $(wildcard bins/*))))
# `make bench BENCH=wal WAL_RUS=--wal-rus` also builds that peer, in a quarter of an hour.
WAL_RUS ?=

.PHONY: help demo test check deny bench soak setup setup-tests setup-bench

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo     a database is backed up, destroyed, restored and proven equal   (STORE=s3: into a local S3 server)
demo: setup
	cargo run --quiet -p backstay-examples --bin demo -- --store $(STORE) $(DEMO_FLAGS)

## make test     every test, with real servers on loopback
test: setup-tests
	cargo test --workspace --all-features --no-fail-fast $(TEST_FLAGS)

## make check    formatting, lints, documentation, directions between crates
check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --quiet
	scripts/check-directions.sh

## make deny     licences, sources and doubled versions of all dependencies (builds cargo-deny first, once)
deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

## make bench    beside the tools one would use otherwise (BENCH=logical, physical, wal, redis, files, fault-matrix or notify)
# Programs run from a folder that the servers' account may enter, which root's home is not.
bench: setup-bench
	cargo build --release $(BENCH_PACKAGES) -p backstay-benches
	@set -e; programs=$$(mktemp -d); trap 'rm -rf "$$programs"' EXIT; chmod 755 "$$programs"; \
	find "$$CARGO_TARGET_DIR/release" -maxdepth 1 -type f -perm -100 -exec cp -t "$$programs" {} +; \
	"$$programs/$(BENCH)" $(BENCH_FLAGS)

## make soak     long runs: hundreds of kills, tens of thousands of flipped bits, every fault at every call
soak: setup-tests
	BACKSTAY_SOAK=1 cargo test --release --workspace --all-features -- --nocapture

setup:
	@scripts/setup.sh

# The peers of the logical benchmark come with PostgreSQL.
setup-bench:
	@scripts/setup.sh $(if $(filter logical redis,$(BENCH)),,$(if $(filter notify,$(BENCH)),--notify-peers,$(if $(filter files,$(BENCH)),--restic,--pgbackrest $(WAL_RUS))))

setup-tests:
	@scripts/setup.sh --postgres 14 --postgres 16 --postgres 17 --postgres 18 --redis --moto --sinks
