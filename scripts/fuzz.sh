#!/usr/bin/env bash
# Fuzzes whatever reads bytes from outside: `npm run fuzz -- [--minutes N] [--only TARGET]` (default 1 minute, shared by all
# targets). The C core runs under libFuzzer with AddressSanitizer and UBSan: targets that take any bytes, and targets that build
# valid forms and bend them (NAME-built), some from beginnings of real size (NAME-long). The parsers in TypeScript run under a
# seeded driver (scripts/fuzz/). At the end a table says what each target did. What a run finds new stays in build/fuzz; what
# breaks is named and kept there, and the other targets go on. native/fuzz/corpus is the committed beginning, and
# scripts/fuzz/seeds.ts makes those of real size.
set -euo pipefail
cd "$(dirname "$0")/.."

MINUTES=1
ONLY=
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) MINUTES=${2:?--minutes needs a number}; shift 2 ;;
    --only) ONLY=${2:?--only needs a target}; shift 2 ;;
    *) echo "usage: fuzz [--minutes N] [--only TARGET]" >&2; exit 2 ;;
  esac
done

CC=$(command -v clang || ls /usr/bin/clang-[0-9]* 2>/dev/null | head -1 || true)
if [ -z "$CC" ]; then
  echo "fuzz: needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev" >&2
  exit 13
fi
if [ ! -f dist/scripts/fuzz/main.js ]; then npm run --silent build >&2; fi

OUT=build/fuzz
mkdir -p "$OUT"
FLAGS=(-std=gnu11 -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac

# Name, longest input, source, and the codec when one decoder is aimed at. The longest input is what the code accepts: a frame's
# payload for deltas, the body of a reduced delta, a packed page; of choices, more than any target makes.
FRAME=$((4 << 20)) BODY=$(((8 << 20) + 128)) CHOICES=131072
targets=("delta $FRAME fuzz_delta" "delta-long $FRAME fuzz_delta" "page $FRAME fuzz_delta 0" "line $FRAME fuzz_delta 1" "xor-rle $FRAME fuzz_delta 2"
  "masked $FRAME fuzz_delta 3" "delta-built $CHOICES fuzz_delta_built" "capture $CHOICES fuzz_capture"
  "page-at-rest 8192 fuzz_page" "restore $BODY fuzz_restore"
  "restore-long $BODY fuzz_restore" "restore-built $CHOICES fuzz_restore_built"
  "reduce $CHOICES fuzz_reduce" "writes $FRAME fuzz_writes" "writes-built $CHOICES fuzz_writes_built" "nbd $FRAME fuzz_nbd" "disk $FRAME fuzz_disk" "journal $CHOICES fuzz_journal" "frames ts" "traces ts" "images ts" "cores ts" "plugin-logs ts" "qmp ts")
if [ -n "$ONLY" ]; then
  chosen=()
  for target in "${targets[@]}"; do if [ "${target%% *}" = "$ONLY" ]; then chosen=("$target"); fi; done
  if [ ${#chosen[@]} -eq 0 ]; then
    echo "fuzz: there is no target $ONLY; there are: $(printf '%s\n' "${targets[@]}" | cut -d' ' -f1 | xargs)" >&2
    exit 2
  fi
  targets=("${chosen[@]}")
fi
seconds=$(awk -v m="$MINUTES" -v n="${#targets[@]}" 'BEGIN { s = int(m * 60 / n); print s < 1 ? 1 : s }')

if [ ! -d "$OUT/seeds" ]; then
  node dist/scripts/fuzz/main.js seeds "$OUT/seeds.part"
  mv "$OUT/seeds.part" "$OUT/seeds"
fi

objects=()
compile_core() {
  local source object newest extra
  # The server is a part of its own target.
  for source in native/core/*.c native/disk/{journal*,spill,records}.c; do
    extra=()
    case $source in
      *_avx2.c)
        [ "$(uname -m)" = x86_64 ] || continue
        extra=(-mavx2 -mbmi -mbmi2 -mlzcnt)
        ;;
    esac
    object=$OUT/$(basename "$source" .c).o
    newest=$(ls -t "$source" native/{core,disk}/*.h | head -1)
    if [ ! "$object" -nt "$newest" ]; then "$CC" "${FLAGS[@]}" "${extra[@]}" -c "$source" -o "$object"; fi
    objects+=("$object")
  done
}

# native NAME LONGEST SOURCE [CODEC]: leaves executions and findings
native() {
  local name=$1 longest=$2 source=$3 codec=${4:-}
  if [ ${#objects[@]} -eq 0 ]; then compile_core; fi
  "$CC" "${FLAGS[@]}" -fsanitize=fuzzer ${codec:+-DCODEC=$codec} "native/fuzz/$source.c" "${objects[@]}" -lxxhash -llz4 -lzstd \
    -o "$OUT/$name"
  mkdir -p "$OUT/found-$name"
  local corpora=("$OUT/found-$name")
  for beginning in "native/fuzz/corpus/$name" "$OUT/seeds/$name"; do
    if [ -d "$beginning" ]; then corpora+=("$beginning"); fi
  done
  began=$(date +%s%N)
  findings=0
  if ! "$OUT/$name" -max_total_time="$seconds" -max_len="$longest" -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="$OUT/broken-$name-" "${corpora[@]}" >"$OUT/$name.log" 2>&1; then
    findings=1
    tail -40 "$OUT/$name.log" >&2
    echo "fuzz: $name is broken; the input is $OUT/broken-$name-*" >&2
  fi
  executions=$(sed -n 's/stat::number_of_executed_units: *//p' "$OUT/$name.log")
}

failed=0
rows=()
for target in "${targets[@]}"; do
  read -r name longest source codec <<<"$target"
  if [ "$longest" = ts ]; then
    began=$(date +%s%N)
    if ! node dist/scripts/fuzz/main.js "$name" --seconds "$seconds" >"$OUT/$name.log"; then echo "fuzz: $name is broken" >&2; fi
    read -r executions findings < <(tail -1 "$OUT/$name.log")
  else
    native "$name" "$longest" "$source" "$codec"
  fi
  took=$(awk -v a="$began" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }')
  if [ "${findings:-1}" != 0 ]; then failed=1; fi
  rows+=("$(printf '%-14s %12s %10s %9s' "$name" "${executions:-0}" "$took" "${findings:-1}")")
done

printf '%-14s %12s %10s %9s\n' target executions seconds findings
printf '%s\n' "${rows[@]}"
exit $failed
