# Compiles and links C, for scripts/build-native.sh and that of the lab: sourced there, with CC, OUT and INCLUDES set.
# An object is compiled again only when its source or a header changed; concurrent calls wait for each other; results are moved
# into place whole.

OBJECTS=$OUT/objects
mkdir -p "$OBJECTS"
exec 9>"$OUT/.lock"
flock 9

FLAGS=(-std=gnu11 -O3 -g1 -fPIC -fvisibility=hidden -Wall -Wextra -Werror "${INCLUDES[@]/#/-I}")
# Every x86 host that runs virtual machines has version 2 (SSE 4.2, popcnt); more is asked for at run time, per file.
case $(uname -m) in x86_64) FLAGS+=(-march=x86-64-v2) ;; esac

shopt -s nullglob
headers=(native/*/*.h "${BASH_SOURCE[@]}")
for folder in "${INCLUDES[@]}"; do headers+=("$folder"/*.h "$folder"/*/*.h); done

isa_flags() {
  case $1 in
    *_avx2.c) echo -mavx2 -mbmi -mbmi2 -mlzcnt ;;
  esac
}

# Compiles sources into objects, two at a time; lists the objects in `objects`.
objects=()
compile() {
  local source object newest pids=() pid
  newest=$(ls -t "${headers[@]}" | head -1)
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
  for object in "${BASH_SOURCE[@]}"; do
    if [ ! "$output" -nt "$object" ]; then stale=true; fi
  done
  if $stale; then
    "$CC" "${LINK[@]}" -o "$output.new" "${objects[@]}" "$@"
    mv "$output.new" "$output"
  fi
  objects=()
}

