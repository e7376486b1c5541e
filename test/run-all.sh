#!/usr/bin/env bash
# Everything there is to check, in the order that fails soonest. The last line is the plain count of tests.
set -uo pipefail
cd "$(dirname "$0")/.."
failed_steps=()
step() { # name, command...
  local name=$1; shift
  echo "== $name"
  "$@" || failed_steps+=("$name")
}

report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT

step 'type check' npm run -s typecheck
step 'lint' npm run -s lint
step 'build' npm run -s build
step 'rust format' cargo fmt --all --check --manifest-path agent/Cargo.toml
step 'rust lint' cargo clippy --quiet --locked --all-targets --manifest-path agent/Cargo.toml -- -D warnings
step 'rust tests' bash -c 'set -o pipefail; cargo test --quiet --locked --manifest-path agent/Cargo.toml 2>&1 | tee "$0/rust.txt"' "$report"
step 'typescript tests' npx vitest run --reporter=default --reporter=json --outputFile.json="$report/vitest.json"

# Rust: one "test result: ok. N passed; M failed; K ignored" per binary. TypeScript: one JSON report.
count() { grep -oE "[0-9]+ $1" "$report/rust.txt" 2>/dev/null | awk '{ total += $1 } END { print total + 0 }'; }
field() { node -e 'try { console.log(JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8"))[process.argv[2]] ?? 0) } catch { console.log(0) }' "$report/vitest.json" "$1"; }
passed=$(( $(count passed) + $(field numPassedTests) ))
failed=$(( $(count failed) + $(field numFailedTests) ))
skipped=$(( $(count ignored) + $(field numPendingTests) ))
if [ ${#failed_steps[@]} -gt 0 ]; then echo "failed: ${failed_steps[*]}"; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ ${#failed_steps[@]} -eq 0 ] && [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
