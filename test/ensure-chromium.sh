#!/usr/bin/env bash
# A real browser for the tests of the dashboard: there already, installed when we may, or a clear message; those tests are skipped then.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do command -v "$name" >/dev/null && exit 0; done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo 'installing chromium for the tests' >&2
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 && command -v chromium >/dev/null && exit 0
fi
echo 'chromium not found: the tests of the dashboard in a browser are skipped; to have them, install it (Debian: apt-get install chromium)' >&2
