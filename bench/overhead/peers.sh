#!/usr/bin/env bash
# Installs the gateways that `npm run bench:overhead` compares with, each at one version, from the registries of Debian, npm and
# PyPI, into bench/overhead/.peers (git-ignored). `peers.sh NAME...` installs only those. A peer that cannot be had is said and
# left out: the bench measures what is there.
#
# Bifrost is not among them: its npm package is a launcher that downloads its binary from a site of its own, and the Go module
# proxy has no version of its HTTP transport.
set -uo pipefail
cd "$(dirname "$0")"
mkdir -p .peers
wanted=${*:-nginx haproxy portkey litellm sglang-router vllm-router smg}
failed=

python_peer() { # NAME REQUIREMENT...
  local name=$1
  shift
  python3 -m venv ".peers/$name" && ".peers/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
}

for name in $wanted; do
  echo "peers: $name"
  case $name in
    # Debian's own version of the release it runs on; the bench prints which.
    nginx | haproxy) command -v "$name" >/dev/null || apt-get install -y -qq --no-install-recommends "$name" >/dev/null ;;
    portkey) npm install --silent --no-save --no-package-lock --prefix .peers/portkey @portkey-ai/gateway@1.15.2 ;;
    litellm) python_peer litellm 'litellm[proxy]==1.106.12' ;;
    # Routers for model servers, in Rust, shipped as wheels: SGLang's, vLLM's, and SGLang's successor. Their launchers import
    # nothing of the engines.
    sglang-router) python_peer sglang-router sglang-router==0.3.2 ;;
    vllm-router) python_peer vllm-router vllm-router==0.1.17 ;;
    smg) python_peer smg smg==1.13.0 ;;
    *) echo "peers: no peer '$name'" >&2 && false ;;
  esac || { echo "peers: $name could not be installed" >&2; failed="$failed $name"; }
done
[ -z "$failed" ] || { echo "peers: not installed:$failed" >&2; exit 1; }
