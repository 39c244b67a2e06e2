# Two commands to know: `make demo` and `make test`. Each sets up all that it needs, once.
#
#   PYTHON=/path/to/python   the interpreter of a new environment (default: the newest found)
#   VENV=.venv               where the environment is
#   JOBS=8                   how many tests run at once (they wait more than they compute)
#   ARGS="..."               more arguments for `hubbub demo` or pytest

VENV ?= .venv
JOBS ?= 8
ARGS ?=
BIN := $(VENV)/bin
PINS := requirements/dev.txt requirements/constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WSCAT := 6.1.0
WS := 8.23.0
CENTRIFUGE := 5.8.0
TYPESCRIPT := 5.9.3
NODE_TYPES := 22.20.7
PYRIGHT := 1.1.414
NODE_MODULES := node_modules/.wscat-$(WSCAT)-ws-$(WS)-centrifuge-$(CENTRIFUGE)-typescript-$(TYPESCRIPT)-types-$(NODE_TYPES)-pyright-$(PYRIGHT)
PYRIGHT_JS := node_modules/pyright/index.js
ATHERIS := 3.0.0
AUTOBAHN := 25.10.1
OLD_PIP := --quiet --disable-pip-version-check --no-python-version-warning

# What is compiled is kept: a run of the tests starts a thousand processes, and each worker reads 300 files of tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs coverage bench conformance fuzz soak screenshot test-all browser clean

help:
	@echo "make demo        serve the demo at http://localhost:8080/websocket"
	@echo "make test        run the tests"
	@echo "make lint        style, types, and whether the generated pages are up to date"
	@echo "make format      let ruff repair the style"
	@echo "make docs        write the generated pages"
	@echo "make coverage    run the tests; branch coverage below the edges must be over 95 %"
	@echo "make test-all    run the tests on every Python from 3.11 to 3.14 that is installed"
	@echo "make bench       measure against other hubs; writes docs/benchmarks.md (hours; ARGS=--quick: minutes)"
	@echo "make conformance the Autobahn test suite, Firefox, a short fuzzing run (minutes; ARGS=--full: an hour or two)"
	@echo "make fuzz        fuzz the inbound lane, guided by coverage (ARGS='--runs 1000000')"
	@echo "make soak        hostile clients, faults, fleets, a soak, for minutes (ARGS=--full: an hour; writes docs/reliability.md)"
	@echo "make screenshot  take the README's picture of the demo again"
	@echo "make clean       remove what the targets made"

demo: $(VENV)/.demo
	$(BIN)/hubbub demo $(ARGS)

test: $(VENV)/.dev browser
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.dev $(NODE_MODULES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/gen_docs.py --check
	@mkdir -p artifacts
	@PATH="$(abspath $(BIN)):$$PATH" node $(PYRIGHT_JS) --verifytypes hubbub --ignoreexternal \
		>artifacts/pyright.txt || { cat artifacts/pyright.txt; exit 1; }
	@grep completeness artifacts/pyright.txt

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python tools/gen_docs.py

coverage: $(VENV)/.dev browser
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --fail-under=95 \
		--include="$$($(BIN)/python tools/house.py files words wire dialects brokers messages hub)"

bench:
	@python=$$(sh tools/find_python.sh $(PYTHON)) && "$$python" -m benchmarks.run $(ARGS)

conformance: $(VENV)/.dev .venv-wstest/.made
	@sh tools/bring.sh firefox-esr firefox-esr
	$(BIN)/python -m stress.firefox_check
	$(BIN)/python -m stress.fuzz_frames --blind --runs 20000
	$(BIN)/python -m stress.autobahn_suite $(ARGS)

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m stress.fuzz_frames $(ARGS)

soak: $(VENV)/.dev browser
	$(BIN)/python -m stress.run $(ARGS)

screenshot: $(VENV)/.dev browser
	$(BIN)/python tools/screenshot.py

test-all:
	@pythons=$$(sh tools/find_python.sh --all) && set -e && for python in $$pythons; do \
		echo "=== $$python"; \
		$(MAKE) --no-print-directory test PYTHON=$$python \
			VENV=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	done

# The environment. The stamps say what is in it: .made is empty, .demo runs the demo, .dev the tests.

$(VENV)/.made:
	@python=$$(sh tools/find_python.sh $(PYTHON)) && echo "making $(VENV) with $$python" \
		&& "$$python" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml $(PINS)
	$(PIP) -c requirements/dev.txt -e '.[demo,local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml $(PINS)
	$(PIP) -r requirements/dev.txt -e '.[demo,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP) 'atheris==$(ATHERIS)'
	@touch $@

# The Autobahn test suite, Python 2 code: an environment that a virtualenv of old makes. wsaccel only
# makes the suite faster, and needs a C compiler.

.venv-wstest/.made: requirements/wstest.txt
	@python2=$$(sh tools/find_python.sh --2.7) && python=$$(sh tools/find_python.sh $(PYTHON)) \
		&& echo "making .venv-wstest with $$python2" \
		&& "$$python" -m venv --clear .venv-wstest/tool \
		&& .venv-wstest/tool/bin/python -m pip install --quiet --disable-pip-version-check 'virtualenv<20.16' \
		&& .venv-wstest/tool/bin/virtualenv --quiet --clear --python "$$python2" .venv-wstest/env
	@.venv-wstest/env/bin/pip install $(OLD_PIP) -r requirements/wstest.txt
	@.venv-wstest/env/bin/pip install $(OLD_PIP) --no-deps 'autobahntestsuite==$(AUTOBAHN)'
	@.venv-wstest/env/bin/pip install $(OLD_PIP) wsaccel==0.6.3 >/dev/null 2>&1 \
		|| echo "wsaccel could not be built: the suite will be slower"
	@touch $@

# What the tests drive from outside: a real browser (Chromium without what draws windows takes a quarter of the time), node for
# hubbub.js, wscat, ws, the Centrifuge SDK, tsc, curl, nginx, and what hands a socket over as systemd does.

browser: $(NODE_MODULES)
	@[ -n "$$CHROMIUM" ] || sh tools/bring.sh chromium-headless-shell chromium-headless-shell 2>/dev/null \
		|| sh tools/bring.sh chromium chromium
	@sh tools/bring.sh cc gcc
	@sh tools/bring.sh curl curl
	@[ "$$(uname)" != Linux ] || sh tools/bring.sh ip iproute2
	@[ "$$(uname)" != Linux ] || sh tools/bring.sh nginx nginx
	@[ "$$(uname)" != Linux ] || sh tools/bring.sh systemd-socket-activate systemd

$(NODE_MODULES):
	@sh tools/bring.sh node nodejs
	@sh tools/bring.sh npm npm
	@npm install --prefix . --no-save --no-package-lock --no-audit --no-fund --loglevel=error \
		--fetch-retries=2 --fetch-timeout=60000 \
		wscat@$(WSCAT) ws@$(WS) centrifuge@$(CENTRIFUGE) typescript@$(TYPESCRIPT) @types/node@$(NODE_TYPES) pyright@$(PYRIGHT)
	@touch $@

clean:
	rm -rf $(VENV) .venv-* node_modules artifacts benchmarks/.venv benchmarks/node_modules benchmarks/build stress/build build dist .coverage* .hypothesis \
		.mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
