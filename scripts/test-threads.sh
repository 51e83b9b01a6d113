#!/usr/bin/env bash
# The C tests that run threads, built with ThreadSanitizer: store, pager, shim and the server of a disk. A test links native/core, and whatever its
# line "build with: FILES FLAGS" names. The environment variable TEST limits to one name. The addon cannot be built so.
set -euo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-cc}
OUT=build/test-threads
mkdir -p "$OUT"
FLAGS=(-std=gnu11 -Inative -O1 -g -Wall -Wextra -Werror -fsanitize=thread -fno-omit-frame-pointer)
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac
# Its shadow wants the layout of memory that older kernels gave; a race ends the test.
run=(setarch "$(uname -m)" -R env TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 ${TSAN_OPTIONS:-}")

core=()
newest_header=$(ls -t native/*/*.h | head -1)
for source in native/core/*.c; do
  object=$OUT/$(basename "$source" .c).o
  extra=()
  case $source in
    *_avx2.c)
      [ "$(uname -m)" = x86_64 ] || continue
      extra=(-mavx2 -mbmi -mbmi2 -mlzcnt)
      ;;
  esac
  core+=("$object")
  if [ ! "$object" -nt "$source" ] || [ ! "$object" -nt "$newest_header" ]; then
    "$CC" "${FLAGS[@]}" "${extra[@]}" -c "$source" -o "$object"
  fi
done

failed=0
for source in {,lab/}test/native/test_*.c; do
  name=$(basename "$source" .c)
  if [ -n "${TEST:-}" ] && [ "$TEST" != "$name" ]; then continue; fi
  # Others look at memory that is written meanwhile, on purpose: that of a guest that runs.
  grep -q 'built with ThreadSanitizer' "$source" || continue
  # shellcheck disable=SC2046
  "$CC" "${FLAGS[@]}" "$source" "${core[@]}" $(sed -n 's/.*build with: \([^*]*\).*/\1/p' "$source") \
    -lxxhash -llz4 -lzstd -lpthread -o "$OUT/$name"
  if "${run[@]}" "$OUT/$name"; then echo "ok $name (threads)"; else echo "FAILED $name (threads)" >&2; failed=1; fi
done
exit $failed
