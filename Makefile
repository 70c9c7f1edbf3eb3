# What people and CI do with this project; `make` lists it. Paths are relative, so the checkout may stand in a path with spaces.

# The system's Python, where it is new enough and can make a venv: distributions build theirs with profile-guided optimization,
# pyenv does not unless asked to, and with it a delivery costs a sixth less CPU (docs/performance.md). Else the one on PATH.
ifndef PYTHON
PYTHON := $(shell for python in /usr/bin/python3 python3; do \
	if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; done; echo $$python)
endif
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BROWSERS := chromium chromium-browser google-chrome

.DEFAULT_GOAL := help
.PHONY: help setup dev test check bench bench-spool bench-replies bench-analytics profile interop alerts chaos fuzz audit lock lock-java venv interop-venv browser

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
	@echo 'Options for the command behind a target go into ARGS: make dev ARGS="--registry"'

setup: venv ## prepares .venv and the packaged Kafka; does nothing the second time
	@$(BIN)/python -m bridge.local.artifacts kafka

dev: setup ## the whole thing on this machine, until Ctrl-C
	@$(BIN)/bridge dev $(ARGS)

# tests/parallel.py says how many processes -n auto is. One that crashes is not started again: its tests would begin anew.
test: setup browser ## every test, on a real Kafka, a real registry and a real browser
	@$(BIN)/python -m bridge.local.artifacts registry
	$(BIN)/python -m pytest -n auto --max-worker-restart 0 $(ARGS)

interop: setup interop-venv ## the SQL in deploy/ for Flink and ClickHouse, on the real ones; fetches 0.7 GB once
	@$(BIN)/python -m bridge.local.artifacts registry
	@$(BIN)/python -m tests.interop.jars fetch
	$(BIN)/python -m pytest tests/interop $(ARGS)

check: venv ## style, types, layers, and whether the locks belong to pyproject.toml
	$(BIN)/python locks/lock.py check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: venv ## the documentation as a site, in site/index.html
	$(BIN)/mkdocs --quiet build

catalogue: venv ## docs/catalogue.md, after a change in schemas/avro or in the street
	$(BIN)/python -m tests.docs.catalogue

bench: setup ## deliveries/s, events/s, latency and CPU, read back from Kafka
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-spool: setup ## deliveries/s into the spool while Kafka hangs, and live latency while it is drained
	$(BIN)/python benchmarks/spool.py $(ARGS)

bench-replies: setup ## how soon auto_reply answers, and how many a process answers in a second
	$(BIN)/python benchmarks/auto_reply.py $(ARGS)

bench-analytics: setup ## how fast analytics catches up from Kafka, in what memory, and where the time goes
	$(BIN)/python benchmarks/analytics.py $(ARGS)

profile: venv ## CPU µs per event for each step of the street
	$(BIN)/python benchmarks/profile_steps.py $(ARGS)

chaos: setup ## breaks a bridge and its broker at random; exit 1 on loss or disorder: ARGS="--minutes N --seed S"
	@$(BIN)/python -m tests.faults.chaos $(ARGS)

fuzz: venv ## bytes that nobody should send, to the parsing and to the public port: ARGS="--seconds N --seed S"
	@$(BIN)/python -m tests.fuzz $(ARGS)

alerts: ## checks and replays the alert rules with promtool, Debian's package prometheus has it
	@command -v promtool >/dev/null || { echo 'promtool is missing; get it with: sudo apt-get install -y prometheus' >&2; exit 1; }
	cd deploy/prometheus && promtool check rules alerts.yml && promtool test rules alerts_test.yml

# Not part of check: the answer changes without a commit, and needs an advisory service that can be reached. Not of
# locks/interop.txt: PyFlink says which versions, and they only ever see made-up events.
audit: ## known vulnerabilities of what locks/ names, but for interop's; needs the network
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder"; "$$folder/bin/python" -m pip --disable-pip-version-check install --quiet pip-audit; \
	failed=0; for lock in locks/bridge.txt locks/dev.txt; do \
		if "$$folder/bin/pip-audit" --strict --disable-pip --require-hashes --progress-spinner off -r "$$lock" \
			>"$$folder/said" 2>&1; then echo "$$lock: no known vulnerability"; continue; fi; \
		failed=1; tail -n 30 "$$folder/said" >&2; \
		if grep -q '^Found [0-9]* known vulnerabilit' "$$folder/said"; then \
			echo "$$lock: known vulnerabilities, named above; newer versions come with: make lock ARGS=--upgrade" >&2; \
		else echo "$$lock: NOT audited: the advisory service gave no answer for every package, see above" >&2; fi; \
	done; exit $$failed

lock: ## makes locks/*.txt from pyproject.toml; newer versions with ARGS=--upgrade
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder"; "$$folder/bin/python" -m pip --disable-pip-version-check install --quiet uv; \
	$(PYTHON) locks/lock.py write "$$folder/bin/uv" $(ARGS)

lock-java: venv ## makes the locks of Java's files, bridge/local/*.lock and tests/interop/flink.lock
	@$(BIN)/python -m bridge.local.artifacts lock
	@$(BIN)/python -m tests.interop.jars lock

# made-from is written last and removed first: a venv without it was interrupted, and is made anew. So is one that was made
# from another lock or in another place: its scripts hold its path.
venv:
	@set -e; made_from="$$(pwd) $$(sha256sum < locks/dev.txt)"; \
	if [ "$$(cat .venv/made-from 2>/dev/null)" != "$$made_from" ] || ! $(BIN)/python -c '' 2>/dev/null; then \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
			{ echo 'Python 3.11 or newer is needed; say which with: make PYTHON=/path/to/python3' >&2; exit 1; }; \
		rm -f .venv/made-from; \
		echo 'making .venv from locks/dev.txt with $(PYTHON) (once, and again when the lock changes; another: make PYTHON=python3.13)'; \
		$(PYTHON) -m venv --clear .venv; \
		$(PIP) install --require-hashes -r locks/dev.txt; \
		$(PIP) install --quiet --no-deps --no-build-isolation -e .; \
		printf '%s\n' "$$made_from" > .venv/made-from; \
	fi

# Another venv, because PyFlink wants older versions of what .venv has. It has wheels for Linux on x86-64 alone, and no Python
# after 3.12 yet. setuptools comes first, from the same lock: some of PyFlink's packages are built here.
interop-venv:
	@set -e; made_from="$$(pwd) $$(sha256sum < locks/interop.txt)"; folder=.venv-interop; \
	if [ "$$(cat $$folder/made-from 2>/dev/null)" != "$$made_from" ] || ! $$folder/bin/python -c '' 2>/dev/null; then \
		$(PYTHON) -c 'import platform, sys; sys.exit((sys.platform, platform.machine()) != ("linux", "x86_64") or not (3, 11) <= sys.version_info < (3, 13))' || \
			{ echo 'PyFlink needs Linux on x86-64 and Python 3.11 or 3.12; say which with: make interop PYTHON=/path/to/python3.12' >&2; exit 1; }; \
		rm -f $$folder/made-from; \
		echo 'making .venv-interop from locks/interop.txt (once, and again when that changes): 0.7 GB to fetch, 1.5 GB on disk'; \
		$(PYTHON) -m venv --clear $$folder; \
		sed -n '/^setuptools==/,/[^\\]$$/p' locks/interop.txt > $$folder/first.txt; \
		$$folder/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $$folder/first.txt; \
		$$folder/bin/python -m pip --disable-pip-version-check install --require-hashes --no-build-isolation -r locks/interop.txt; \
		printf '%s\n' "$$made_from" > $$folder/made-from; \
	fi

browser:
	@for name in $(BROWSERS); do if command -v $$name >/dev/null; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; \
	else \
		echo 'the tests in a browser need Chromium; get it with: sudo apt-get install -y chromium' >&2; exit 1; \
	fi
