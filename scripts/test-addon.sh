#!/usr/bin/env bash
# Tests of the addon under AddressSanitizer and UBSan: a second build of it, which node loads in place of the first, and those of
# the unit tests that exercise deltas, reduction, regions, the store, the trackers and the endpoint of a disk. Arguments are files of tests, in place of those.
# Leaks are not looked for: node itself keeps memory until its end.
set -euo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-cc}
OUT=build/test-addon
mkdir -p "$OUT"
FLAGS=(-std=gnu11 -O1 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Inode_modules/node-api-headers/include
  -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac

objects=()
newest=$(ls -t native/*/*.h scripts/test-addon.sh | head -1)
for source in native/core/*.c native/disk/*.c native/addon/*.c; do
  extra=()
  case $source in
    *_avx2.c)
      [ "$(uname -m)" = x86_64 ] || continue
      extra=(-mavx2 -mbmi -mbmi2 -mlzcnt)
      ;;
  esac
  object=$OUT/$(basename "$(dirname "$source")")-$(basename "$source" .c).o
  objects+=("$object")
  if [ "$object" -nt "$source" ] && [ "$object" -nt "$newest" ]; then continue; fi
  "$CC" "${FLAGS[@]}" "${extra[@]}" -c "$source" -o "$object"
done
"$CC" "${FLAGS[@]}" -shared -o "$OUT/subpage.node" "${objects[@]}" -lxxhash -llz4 -lzstd

# Every process and thread of the test runner loads this build where the other one is asked for.
cat >"$OUT/instead.cjs" <<JS
const open = process.dlopen
process.dlopen = (module, path, ...rest) =>
  open(module, path.endsWith('build/native/subpage.node') ? '$PWD/$OUT/subpage.node' : path, ...rest)
JS

tests=(test/delta/{refusals,reduce,shadow}.test.ts test/memory/{region,handles,hash}.test.ts test/density/store.test.ts
  test/replication/device-state.test.ts lab/test/plugin/share.test.ts test/disk/hostile.test.ts
  test/tracking/conformance.test.ts)
if [ $# -gt 0 ]; then tests=("$@"); fi
# A program under our preloaded library has that one first.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1
export NODE_OPTIONS="--require $PWD/$OUT/instead.cjs"
LD_PRELOAD=$("$CC" -print-file-name=libasan.so):$("$CC" -print-file-name=libubsan.so) \
  node node_modules/vitest/vitest.mjs run --project unit --maxWorkers 1 "${tests[@]}"
