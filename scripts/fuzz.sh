#!/usr/bin/env bash
# Fuzzes the decoders and the encoder with libFuzzer under AddressSanitizer and UBSan: `npm run fuzz -- --minutes N`
# (default 1, shared by all targets). What the run finds new stays in build/fuzz; what breaks is named and kept there.
# native/fuzz/corpus is the committed beginning.
set -euo pipefail
cd "$(dirname "$0")/.."

MINUTES=1
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) MINUTES=${2:?--minutes needs a number}; shift 2 ;;
    *) echo "usage: fuzz [--minutes N]" >&2; exit 2 ;;
  esac
done

CC=$(command -v clang || ls /usr/bin/clang-[0-9]* 2>/dev/null | head -1 || true)
if [ -z "$CC" ]; then
  echo "fuzz: needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev" >&2
  exit 13
fi

OUT=build/fuzz
mkdir -p "$OUT"
FLAGS=(-std=gnu11 -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac

objects=()
for source in native/core/*.c; do
  extra=()
  case $source in
    *_avx2.c)
      [ "$(uname -m)" = x86_64 ] || continue
      extra=(-mavx2 -mbmi -mbmi2 -mlzcnt)
      ;;
  esac
  object=$OUT/$(basename "$source" .c).o
  newest=$(ls -t "$source" native/core/*.h | head -1)
  if [ ! "$object" -nt "$newest" ]; then "$CC" "${FLAGS[@]}" "${extra[@]}" -c "$source" -o "$object"; fi
  objects+=("$object")
done

# Name, source, and the codec when one decoder is aimed at.
targets=('delta fuzz_delta' 'page fuzz_delta 0' 'line fuzz_delta 1' 'xor-rle fuzz_delta 2' 'masked fuzz_delta 3'
  'capture fuzz_capture' 'page-at-rest fuzz_page' 'restore fuzz_restore' 'reduce fuzz_reduce')
seconds=$(awk -v m="$MINUTES" -v n="${#targets[@]}" 'BEGIN { s = int(m * 60 / n); print s < 1 ? 1 : s }')
for target in "${targets[@]}"; do
  read -r name source codec <<<"$target"
  "$CC" "${FLAGS[@]}" -fsanitize=fuzzer ${codec:+-DCODEC=$codec} "native/fuzz/$source.c" "${objects[@]}" -lxxhash -llz4 -lzstd \
    -o "$OUT/$name"
  mkdir -p "$OUT/found-$name" "native/fuzz/corpus/$name"
  if ! "$OUT/$name" -max_total_time="$seconds" -max_len=9000 -timeout=30 -print_final_stats=1 \
    -artifact_prefix="$OUT/broken-$name-" "$OUT/found-$name" "native/fuzz/corpus/$name" >"$OUT/$name.log" 2>&1; then
    tail -40 "$OUT/$name.log" >&2
    echo "fuzz: $name is broken; the input is $OUT/broken-$name-*" >&2
    exit 1
  fi
  echo "ok $name: $(sed -n 's/stat::number_of_executed_units: *//p' "$OUT/$name.log") runs in $seconds s"
done
