#!/usr/bin/env bash
# A real redis-server for the tests: there already, installed when we may, or a clear message.
set -euo pipefail
command -v redis-server >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo 'installing redis-server for the tests' >&2
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null 2>&1 && command -v redis-server >/dev/null && exit 0
fi
echo 'redis-server not found: install it (Debian: apt-get install redis-server) and try again' >&2
exit 1
