#!/usr/bin/env bash
# Tests of the C code, each test/native/test_*.c, and those of the lab, a program of its own, built with AddressSanitizer and UBSan. A test
# links native/core, and whatever its line "build with: FILES FLAGS" names. The environment variable TEST limits to one name.
set -euo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-cc}
OUT=build/test-native
mkdir -p "$OUT"
FLAGS=(-std=gnu11 -Inative -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac

core=()
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
  newest=$(ls -t "$source" native/core/*.h | head -1)
  if [ ! "$object" -nt "$newest" ]; then "$CC" "${FLAGS[@]}" "${extra[@]}" -c "$source" -o "$object"; fi
done

failed=0
for source in {,lab/}test/native/test_*.c; do
  name=$(basename "$source" .c)
  if [ -n "${TEST:-}" ] && [ "$TEST" != "$name" ]; then continue; fi
  # shellcheck disable=SC2046
  "$CC" "${FLAGS[@]}" "$source" "${core[@]}" $(sed -n 's/.*build with: \([^*]*\).*/\1/p' "$source") \
    -lxxhash -llz4 -lzstd -lpthread -o "$OUT/$name"
  if "$OUT/$name"; then echo "ok $name"; else echo "FAILED $name" >&2; failed=1; fi
done
exit $failed
