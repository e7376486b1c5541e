#!/usr/bin/env bash
# What `make test-engines` needs, from PyPI alone: transformers with torch in a virtual environment (1.4 GB), llama.cpp's server built
# from the source that llama-cpp-python is shipped with (some minutes), and a small model with random weights for each. What is
# there already stays.
set -euo pipefail
cd "$(dirname "$0")"

LLAMA_CPP_PYTHON=0.3.36
here=$PWD/.engines
say() { echo "engines: $*" >&2; }

for tool in gcc g++ cmake readelf nm; do
  command -v "$tool" >/dev/null || { say "$tool not found; on Debian: apt-get install build-essential cmake"; exit 1; }
done
python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { say 'wants Python 3.10 or newer with venv; on Debian: apt-get install python3-venv'; exit 1; }
mkdir -p "$here"

# Anew where what is to be installed has changed.
wanted=$(cat requirements.txt cuda-stubs.py | sha256sum)
if [ "$(cat "$here/venv.made" 2>/dev/null)" != "$wanted" ]; then
  say 'installing transformers and torch'
  rm -rf "$here/venv"
  python3 -m venv "$here/venv"
  "$here/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements.txt
  "$here/venv/bin/python" cuda-stubs.py "$("$here/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" >&2
  echo "$wanted" >"$here/venv.made"
fi

if [ "$(cat "$here/llama-server.made" 2>/dev/null)" != "$LLAMA_CPP_PYTHON" ]; then
  say 'building llama.cpp (some minutes)'
  build=$(mktemp -d)
  trap 'rm -rf "$build"' EXIT
  "$here/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$build" "llama-cpp-python==$LLAMA_CPP_PYTHON"
  tar -xzf "$build"/llama_cpp_python-*.tar.gz -C "$build"
  # -O1: the kernels are C, and keep their -O3; the rest is compiled in half the time.
  cmake -S "$build"/llama_cpp_python-*/vendor/llama.cpp -B "$build/out" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DGGML_OPENMP=OFF >"$build/log"
  cmake --build "$build/out" --target llama-server --parallel "$(nproc)" >>"$build/log" 2>&1 || { tail -30 "$build/log" >&2; exit 1; }
  cp "$build/out/bin/llama-server" "$here/llama-server"
  echo "$LLAMA_CPP_PYTHON" >"$here/llama-server.made"
fi

wanted=$(sha256sum <make-model.py)
if [ "$(cat "$here/model.made" 2>/dev/null)" != "$wanted" ]; then
  "$here/venv/bin/python" make-model.py "$here/model" >&2
  echo "$wanted" >"$here/model.made"
fi
