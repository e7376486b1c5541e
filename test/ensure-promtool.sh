#!/usr/bin/env bash
# Prometheus' own checker for the tests: there already, or taken out of Debian's package (which, installed, would start a server),
# or a clear message.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v promtool >/dev/null && exit 0
bin=test/deploy/check/bin
[ -x "$bin/promtool" ] && exit 0
if command -v apt-get >/dev/null; then
  echo 'fetching promtool for the tests' >&2
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  chmod 755 "$scratch"
  [ "$(id -u)" = 0 ] && { apt-get update -qq >/dev/null 2>&1 || true; }
  if (cd "$scratch" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb out); then
    mkdir -p "$bin"
    cp "$scratch/out/usr/bin/promtool" "$bin/promtool"
    "$bin/promtool" --version >/dev/null && exit 0
  fi
fi
echo 'promtool not found: install it (Debian: apt-get install prometheus; or from https://prometheus.io/download) and try again' >&2
exit 1
