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
# The libraries are a part of it, and nobody else's: it needs none of them where it is installed.
link "$OUT/subpage.node" -Wl,--exclude-libs,ALL -Wl,-Bstatic -lxxhash -llz4 -lzstd -Wl,-Bdynamic -lpthread

compile native/shim/*.c native/disk/chunk_map.c
link "$OUT/shim.so" -ldl -lpthread
