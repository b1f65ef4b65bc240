# make          what there is
# make test     everything that must hold, on a machine with Rust, a C compiler, Python 3, curl and openssl

CARGO ?= cargo
PYTHON ?= python3
VENV := .venv

.PHONY: help setup test format lint deny tests docs kill bench fuzz

help:
	@echo "make test    formatting, lints, licences, all tests (kills included), documentation"
	@echo "make kill    300 rounds of kill -9 against the release build"
	@echo "make bench   the figures of the README, each against its limit"
	@echo "make fuzz    ten minutes on the parsers (needs the nightly toolchain and cargo-fuzz)"

test: setup format lint deny docs tests

# Installs what the tests need beside Rust: two cargo commands and a Python environment of our own.
setup: $(VENV)/installed
	@for tool in cc curl openssl; do \
	  command -v $$tool >/dev/null || { echo "make: $$tool is missing; install it first (Debian: apt-get install build-essential curl openssl)"; exit 1; }; done
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install cargo-nextest --locked
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked

$(VENV)/installed: tests/clients/requirements.txt
	@$(PYTHON) -m venv $(VENV) || { echo "make: Python 3 with venv is missing (Debian: apt-get install python3-venv)"; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	@touch $@

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# The advisories' database is a download of its own; where it cannot be had, that is said and the rest holds.
deny:
	$(CARGO) deny --locked check --hide-inclusion-graph licenses bans sources
	@$(CARGO) deny --locked check --hide-inclusion-graph advisories 2>$(VENV)/advisories.log \
	  && echo "no known advisories" \
	  || { grep -q "failed to fetch advisory database" $(VENV)/advisories.log \
	       && echo "NOT CHECKED: security advisories, because their database cannot be fetched from here" \
	       || { cat $(VENV)/advisories.log; exit 1; }; }

tests:
	$(CARGO) nextest run --workspace --locked --no-fail-fast

docs:
	$(CARGO) test --workspace --locked --doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --locked --no-deps

kill:
	KASSA_KILL_ROUNDS=300 $(CARGO) nextest run --profile long --release --locked --test kill --no-capture

bench:
	$(CARGO) bench --locked --bench shop

fuzz:
	@for target in request envelope content; do \
	  (cd pipeline && mkdir -p fuzz/corpus/$$target && $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=200 -max_len=4096) || exit 1; done
