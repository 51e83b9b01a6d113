#!/usr/bin/env bash
# Makes a checkout ready: Debian packages, node_modules, native and TypeScript build, demo guest. Run it as often as you
# like: what is there is left alone, and when all is there it takes a second or two and says nothing.
# Usage: scripts/setup.sh [--tests] [--studies]     (also what only the test suite, what only studies need)
# Packages are installed by root or through passwordless sudo; anybody else is told which ones are missing. All output
# goes to stderr. Concurrent runs wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."
exec 1>&2

die() { echo "setup: $*"; exit 1; }
say() { echo "setup: $*"; }

# ---- arguments, and the lock: held by flock itself, so that no daemon a package starts can inherit it ----

tests=false studies=false locked=false
for argument in "$@"; do
  case $argument in
    --tests) tests=true ;;
    --studies) studies=true ;;
    --locked) locked=true ;; # our own second half
    *) die "unknown argument '$argument': there are --tests and --studies" ;;
  esac
done

if ! $locked; then
  mkdir -p build
  lock=build/.setup.lock
  flock --nonblock "$lock" true || say 'another setup is under way; waiting for it'
  exec flock --close "$lock" bash scripts/setup.sh "$@" --locked
fi

# ---- Node ----

node_floor=20.19
command -v node >/dev/null || die "Node is missing: install $node_floor or newer"
command -v npm >/dev/null || die 'npm is missing: it comes with Node, in some distributions as a package of its own'
version=$(node --version)
IFS=. read -r major minor _ <<<"${version#v}"
if ((major < ${node_floor%.*} || (major == ${node_floor%.*} && minor < ${node_floor#*.}))); then
  die "Node $version is too old: install $node_floor or newer"
fi

# ---- Debian packages: NAME, or NAME=COMMAND where the command may also come from elsewhere ----

packages=(qemu-system-x86=qemu-system-x86_64 qemu-utils=qemu-img busybox-static gcc=gcc libc6-dev
  libxxhash-dev liblz4-dev libzstd-dev python3=python3 xz-utils=xz)
if $tests; then
  packages+=(clang=clang libclang-rt-14-dev iproute2=ip nftables=nft etcd-server=etcd gdb=gcore systemd=systemd-analyze
    libnbd-bin=nbdinfo libvirt-daemon-system=libvirtd libvirt-clients=virsh virtinst=virt-install ovmf
    prometheus=prometheus chromium=chromium zsh=zsh fish=fish man-db=man groff-base=groff
    mmdebstrap=mmdebstrap grub-efi-amd64-bin fdisk=sfdisk dosfstools=mkfs.vfat mtools=mcopy)
fi

missing_packages() {
  local entry name command
  declare -A installed=()
  while read -r name; do installed[$name]=1; done < <(
    dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "${packages[@]%%=*}" 2>/dev/null |
      sed -n 's/^installed //p'
  )
  for entry in "${packages[@]}"; do
    name=${entry%%=*} command=
    [ "$name" = "$entry" ] || command=${entry#*=}
    [ -n "${installed[$name]:-}" ] && continue
    # Debian keeps administrators' commands in sbin, which is not on everybody's PATH.
    [ -n "$command" ] && PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null && continue
    echo "$name"
  done
}

command -v dpkg-query >/dev/null ||
  die "this is no Debian system (no dpkg-query): the demo guest is built from Debian packages, so set up on Debian"
mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      say 'packages are missing and this user may not install them; as root, run this and then start again:'
      echo "  apt-get install --no-install-recommends ${missing[*]}"
      exit 1
    fi
  fi
  say "installing ${missing[*]}"
  apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"; }
  apt update || die "'apt-get update' failed: is there a network?"
  apt install --no-install-recommends "${missing[@]}" </dev/null ||
    die "installing ${missing[*]} failed (see the lines above)"
fi

# ---- node_modules ----

if [ ! -f node_modules/.package-lock.json ] || [ node_modules/.package-lock.json -ot package-lock.json ]; then
  say 'npm ci'
  npm ci --loglevel=error
  touch node_modules/.package-lock.json
fi

# ---- build ----

[ -f dist/src/cli/main.js ] || say 'building'
npm run --silent build
if $tests || $studies; then
  bash scripts/build-guest.sh all
else
  bash scripts/build-guest.sh
fi
if $studies; then bash scripts/build-guest.sh other; fi
