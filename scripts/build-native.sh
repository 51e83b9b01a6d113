#!/usr/bin/env bash
# Builds build/native/{subpage.node,shim.so}. Idempotent and quick (native.bash).
set -euo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-cc}
OUT=build/native
# Beside us in a checkout; further up where the package is installed.
INCLUDES=("$(node -p "require('node:path').dirname(require.resolve('node-api-headers'))" 2>/dev/null || true)/include")
if [ ! -f "${INCLUDES[0]}/node_api.h" ]; then
  echo "build-native: the package node-api-headers is missing: run npm install" >&2
  exit 1
fi
source scripts/native.bash

is_x86=$([ "$(uname -m)" = x86_64 ] && echo true || echo false)
core=()
for source in native/core/*.c; do
  case $source in *_avx2.c) $is_x86 || continue ;; esac
  core+=("$source")
done

compile "${core[@]}" native/disk/*.c native/addon/*.c
link "$OUT/subpage.node" -lxxhash -llz4 -lzstd -lpthread

compile native/shim/*.c
link "$OUT/shim.so" -ldl -lpthread
