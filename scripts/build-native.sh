#!/usr/bin/env bash
# Builds build/native/{subpage.node,shim.so,plugin.so,holder,reaper}. Idempotent and quick: an object is compiled again only when its
# source or a header changed; concurrent calls wait for each other; results are moved into place whole.
set -euo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-cc}
OUT=build/native
OBJECTS=$OUT/objects
mkdir -p "$OBJECTS"
exec 9>"$OUT/.lock"
flock 9

# Beside us in a checkout; further up where the package is installed.
HEADERS=$(node -p "require('node:path').dirname(require.resolve('node-api-headers'))" 2>/dev/null || true)/include
if [ ! -f "$HEADERS/node_api.h" ]; then
  echo "build-native: the package node-api-headers is missing: run npm install" >&2
  exit 1
fi

FLAGS=(-std=gnu11 -O3 -g1 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -I"$HEADERS")
# Every x86 host that runs virtual machines has version 2 (SSE 4.2, popcnt); more is asked for at run time, per file.
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac

isa_flags() {
  case $1 in
    *_avx2.c) echo -mavx2 -mbmi -mbmi2 -mlzcnt ;;
  esac
}

# Compiles sources into objects, two at a time; lists the objects in `objects`. Headers of both folders count.
objects=()
compile() {
  local source object newest pids=() pid
  newest=$(ls -t native/*/*.h scripts/build-native.sh 2>/dev/null | head -1)
  for source in "$@"; do
    object=$OBJECTS/$(basename "$(dirname "$source")")-$(basename "$source" .c).o
    objects+=("$object")
    if [ "$object" -nt "$source" ] && [ "$object" -nt "$newest" ]; then continue; fi
    # shellcheck disable=SC2046
    "$CC" "${FLAGS[@]}" $(isa_flags "$source") -c "$source" -o "$object" &
    pids+=($!)
    if [ ${#pids[@]} -ge 2 ]; then wait "${pids[0]}"; pids=("${pids[@]:1}"); fi
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
}

# link OUTPUT LIBRARIES... : from `objects`, when one of them is newer; LINK=() makes a program, else a shared object
LINK=(-shared)
link() {
  local output=$1 object stale=false
  shift
  for object in "${objects[@]}"; do
    if [ ! "$output" -nt "$object" ]; then stale=true; fi
  done
  if $stale; then
    "$CC" "${LINK[@]}" -o "$output.new" "${objects[@]}" "$@"
    mv "$output.new" "$output"
  fi
  objects=()
}

shopt -s nullglob
is_x86=$([ "$(uname -m)" = x86_64 ] && echo true || echo false)
core=()
for source in native/core/*.c; do
  case $source in *_avx2.c) $is_x86 || continue ;; esac
  core+=("$source")
done

compile "${core[@]}" native/disk/*.c native/addon/*.c
link "$OUT/subpage.node" -lxxhash -llz4 -lzstd -lpthread

shim=(native/shim/*.c)
if [ ${#shim[@]} -gt 0 ]; then
  compile "${shim[@]}"
  link "$OUT/shim.so" -ldl -lpthread
fi

plugin=(native/plugin/*.c)
if [ ${#plugin[@]} -gt 0 ]; then
  compile "${plugin[@]}"
  link "$OUT/plugin.so"
fi

LINK=()
for program in holder reaper; do
  compile native/$program/*.c
  link "$OUT/$program"
done
