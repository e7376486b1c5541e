# Two targets for people, each doing all its own set-up on a fresh machine: `make demo` and `make test`.
# The rest are their steps.

SHELL := /bin/bash
AGENT := agent/target/release/paceline-agent

.PHONY: demo test deps agent check ts-test rust-test redis clean

demo: deps agent-if-possible
	@npm run -s paceline -- demo $(if $(EXIT),--exit) $(DEMO_ARGS)

test: deps agent redis
	@bash test/run-all.sh

# npm ci only when the lock file has changed since the last install.
deps: node_modules/.package-lock.json
node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
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

clean:
	rm -rf node_modules dist agent/target
