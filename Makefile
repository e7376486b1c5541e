# Targets for people, each doing all its own set-up on a fresh machine: `make demo`, `make test`, `make test-clients`,
# `make test-deploy`, `make test-engines`.
# The rest are their steps.

SHELL := /bin/bash
AGENT := agent/target/release/paceline-agent

.PHONY: demo test test-clients test-deploy test-engines deps agent check ts-test rust-test redis clean

demo: deps agent-if-possible
	@npm run -s paceline -- demo $(if $(EXIT),--exit) $(DEMO_ARGS)

test: deps client-deps agent redis promtool chromium
	@bash test/run-all.sh

# The official Python SDK through the gateway; it wants Python 3.9 or newer and PyPI.
test-clients: deps
	@python3 -m venv --help >/dev/null 2>&1 || { echo "make: python3 with venv not found; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@test -x test/clients/.venv/bin/python || python3 -m venv test/clients/.venv
	@test/clients/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r test/clients/python/requirements.txt
	@test/clients/.venv/bin/python test/clients/python/checks.py

# Deployment files by the tools of Kubernetes, Helm and Compose, built from the Go proxy; without them `make test` skips these.
DEPLOY_CHECK := test/deploy/check
test-deploy: deps redis promtool
	@command -v go >/dev/null || { echo 'make: go not found; the tools are built with it: install Go (https://go.dev/dl) and try again' >&2; exit 1; }
	go build -C $(DEPLOY_CHECK) -o bin/deploy-check .
	go build -C $(DEPLOY_CHECK) -o bin/helm helm.sh/helm/v3/cmd/helm
	npx vitest run test/deploy

# The gateway in front of engines that nobody here wrote (transformers serve, llama.cpp's server), on a CPU with random weights: wants
# Python 3.10, gcc and cmake; 1.6 GB and some minutes the first time.
test-engines: deps client-deps
	@bash test/engines/setup.sh
	npx vitest run --config test/engines/vitest.config.ts

# npm ci only when the lock file has changed since the last install.
deps: node_modules/.package-lock.json
node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# The clients that the tests put in front of the gateway have dependencies of their own.
.PHONY: client-deps
client-deps: test/clients/node_modules/.package-lock.json
test/clients/node_modules/.package-lock.json: test/clients/package.json test/clients/package-lock.json
	npm ci --prefix test/clients --no-audit --no-fund --loglevel=error
	@touch $@

agent:
	@command -v cargo >/dev/null || { echo 'make: cargo not found; the agent is Rust: install Rust (https://rustup.rs) and try again' >&2; exit 1; }
	cargo build --release --locked --quiet --manifest-path agent/Cargo.toml

.PHONY: agent-if-possible
agent-if-possible:
	@if command -v cargo >/dev/null; then cargo build --release --locked --quiet --manifest-path agent/Cargo.toml || echo 'make: the agent did not build; the demo runs with its in-process stand-in' >&2; \
	else echo 'make: cargo not found, so no agent is built; the demo runs with its in-process stand-in' >&2; fi

redis:
	@bash test/ensure-redis.sh

.PHONY: chromium
chromium:
	@bash test/ensure-chromium.sh

.PHONY: promtool
promtool:
	@bash test/ensure-promtool.sh

clean:
	rm -rf node_modules dist agent/target test/clients/node_modules test/clients/.venv test/deploy/check/bin test/engines/.engines
