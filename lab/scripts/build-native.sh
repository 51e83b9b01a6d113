#!/usr/bin/env bash
# Builds build/native/{plugin.so,holder,reaper} of the lab, with the headers of subpage. Idempotent and quick (native.bash).
set -euo pipefail
cd "$(dirname "$0")/.."

CC=${CC:-cc}
OUT=build/native
# Beside us in a checkout; beside or above us where the packages are installed.
SUBPAGE=$(node -p "require('node:path').dirname(require.resolve('subpage/package.json'))" 2>/dev/null || true)
if [ ! -f "$SUBPAGE/scripts/native.bash" ]; then
  echo "build-native: the package subpage is missing: run npm install" >&2
  exit 1
fi
INCLUDES=("$SUBPAGE/native")
source "$SUBPAGE/scripts/native.bash"

compile native/plugin/*.c
link "$OUT/plugin.so"

LINK=()
for program in holder reaper; do
  compile native/$program/*.c
  link "$OUT/$program"
done
