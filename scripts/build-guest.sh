#!/usr/bin/env bash
# Builds the demo guest from Debian packages, unpacked and never installed:
#   build/guest/vmlinuz, initrd.gz (busybox, virtio, victim, workset) and, with `all`, initrd-workloads.gz (redis, sqlite, cc1, ...)
#   and node.gz: this machine's Node, to be appended to it.
#   With `other`, for `subpage study density`: vmlinuz-other, initrd-other.gz, another kernel and the same programs linked against
#   the C library of the distribution, about 35 MB of packages in build/guest/cache-other.
# Usage: scripts/build-guest.sh [demo|all|other]     (default: demo)
# Does nothing when the sources have not changed; packages stay in build/guest/cache, so a rebuild needs no network.
# The newest kernel and libraries are taken up by deleting that folder.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/guest
cache=$out/cache
want=${1:-demo}
modules=(failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
  virtio_net virtio_blk crc16 crc32c_generic mbcache jbd2 ext4 virtio_console virtio-rng virtio_balloon
  pvpanic pvpanic-mmio pvpanic-pci button evdev efivarfs)
workload_packages=(redis-tools sqlite3 memcached stress-ng)

die() { echo "build-guest: $*" >&2; exit 1; }
say() { echo "build-guest: $*" >&2; }

case $want in demo | all | other) ;; *) die "unknown target '$want': use demo, all or other" ;; esac
[ "$(uname -m)" = x86_64 ] || die "the demo guest is for x86_64; this machine is $(uname -m)"

mkdir -p "$cache"
exec 9>"$out/.lock"
flock 9

fingerprint() { # of what every image is made from: sources and the kernel; a deleted cache means "take newer packages"
  { find guest -type f ! -name '*.md' -print0 | sort -z | xargs -0 sha256sum
    sha256sum scripts/build-guest.sh
    find "$cache" -name 'linux-image-*.deb' -o -name 'busybox-static_*.deb' | sort; } | sha256sum | cut -d' ' -f1
}
fresh() { [ -s "$out/$1" ] && [ -s "$out/vmlinuz" ] && [ "$(cat "$out/.$1.stamp" 2>/dev/null)" = "$(fingerprint)" ]; }

need_demo=false need_workloads=false need_node=false need_other=false
{ fresh initrd.gz && [ -x "$out/victim" ] && [ -s "$out/bare" ]; } || need_demo=true
[ "$want" != all ] || fresh initrd-workloads.gz || need_workloads=true
[ "$want" != all ] || fresh node.gz || need_node=true
[ "$want" != other ] || { fresh initrd-other.gz && [ -s "$out/vmlinuz-other" ] && compgen -G "$out/cache-other/linux-image-*.deb" >/dev/null; } || need_other=true
$need_demo || $need_workloads || $need_node || $need_other || exit 0

for tool in dpkg:dpkg gcc:gcc readelf:binutils gzip:gzip; do
  command -v "${tool%:*}" >/dev/null || die "'${tool%:*}' is missing: apt-get install ${tool#*:}"
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# ---- packages ----

updated=false
update_lists() { # update_lists PACKAGE: once, when it is not known or no longer where the lists say
  $updated && return 1
  updated=true
  [ "$(id -u)" = 0 ] || die "package '$1' is not in the package lists: run 'apt-get update' as root, then try again"
  say 'apt-get update'
  apt-get update -qq >&2 || die "package '$1' is missing and 'apt-get update' failed: is there a network?"
}
need_apt() { command -v apt-get >/dev/null || die "package '$1' is needed and this is no Debian system (no apt-get)"; }

cached() { find "$cache" -name "$1_*.deb" | sort -V | tail -1; }

fetch() { # fetch PACKAGE...: into the cache, in one go, those that are not there
  local package missing=()
  for package in "$@"; do [ -n "$(cached "$package")" ] || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  need_apt "${missing[0]}"
  say "downloading ${missing[*]}"
  until (cd "$cache" && apt-get -qq -o APT::Sandbox::User=root download "${missing[@]}" >&2); do
    update_lists "${missing[*]}" || break
  done
  for package in "${missing[@]}"; do
    [ -n "$(cached "$package")" ] || die "package '$package' cannot be downloaded (see the lines above)"
  done
}

kernel_package() { # the cached kernel, else the one the distribution's meta package names
  local deb name
  deb=$(find "$cache" -name 'linux-image-*-cloud-amd64_*.deb' | sort -V | tail -1)
  if [ -n "$deb" ]; then basename "$deb" | cut -d_ -f1; return; fi
  need_apt linux-image-cloud-amd64
  while :; do
    name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    [ -z "$name" ] || break
    update_lists linux-image-cloud-amd64 || die "package 'linux-image-cloud-amd64' is not in the package lists (Debian's main section has it)"
  done
  echo "$name"
}

compiler_package() { # the cached one with gcc's cc1, else the one the distribution's meta package names
  local deb name
  deb=$(find "$cache" -name 'cpp-[0-9]*.deb' | sort -V | tail -1)
  if [ -n "$deb" ]; then basename "$deb" | cut -d_ -f1; return; fi
  need_apt cpp
  while :; do
    name=$(apt-cache depends cpp 2>/dev/null | sed -n 's/^ *Depends: \(cpp-[0-9]*\)$/\1/p' | head -1)
    [ -z "$name" ] || break
    update_lists cpp || die "package 'cpp' is not in the package lists (Debian's main section has it)"
  done
  echo "$name"
}

unpack() { # unpack PACKAGE...: each into $scratch/packages/PACKAGE, once
  local package
  fetch "$@"
  for package in "$@"; do
    [ ! -d "$scratch/packages/$package" ] || continue
    mkdir -p "$scratch/packages/$package"
    dpkg -x "$(cached "$package")" "$scratch/packages/$package" || die "$(cached "$package") is damaged: delete it"
  done
}

# ---- the demo image ----

compile() { # compile SOURCE TARGET
  gcc -static -O2 -Wall -Wextra -o "$2" "$1" -lm 2>"$scratch/gcc" || {
    cat "$scratch/gcc" >&2
    die "gcc cannot build $1 (a static C library is needed: apt-get install libc6-dev)"
  }
  strip "$2"
}

compile_bare() { # compile_bare TARGET: the guest without an operating system, for a multiboot loader
  local common=(-c -DCPUS_MAX=8 -fno-pic -fno-pie)
  if ! { gcc "${common[@]}" -o "$scratch/start.o" guest/bare/start.S &&
    gcc "${common[@]}" -O2 -Wall -Wextra -ffreestanding -mno-red-zone -fno-stack-protector -fno-asynchronous-unwind-tables \
      -mcmodel=large -o "$scratch/check.o" guest/bare/check.c &&
    ld -n --no-warn-rwx-segments -T guest/bare/link.ld -o "$scratch/bare" "$scratch/start.o" "$scratch/check.o" &&
    objcopy -O elf32-i386 "$scratch/bare" "$1"; } 2>"$scratch/gcc"; then
    cat "$scratch/gcc" >&2
    die 'gcc cannot build guest/bare'
  fi
}

install_modules() { # install_modules KERNEL-TREE ROOT: flat, with the order to load them in
  local tree=$1 into=$2/lib/modules module file
  # Below usr/ since Debian 13.
  tree=$(find "$tree" -type d -path '*lib/modules/*' -prune | head -1)
  [ -n "$tree" ] || die "the package of the kernel holds no modules"
  mkdir -p "$into"
  for module in "${modules[@]}"; do
    file=$(find "$tree" -name "$module.ko*" | head -1)
    case $file in
      *.ko) cp "$file" "$into/$module.ko" ;;
      *.ko.xz) xz -dc "$file" >"$into/$module.ko" || die "'xz' is missing: apt-get install xz-utils" ;;
      *) # built in under either spelling, or this kernel is not one we can use
        grep -q "/${module//[-_]/[-_]}\.ko" "$tree/modules.builtin" || die "the kernel has no module '$module'"
        continue ;;
    esac
    echo "$module" >>"$into/order"
  done
}

pack() { # pack ROOT IMAGE: newc archive owned by root
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . | LC_ALL=C sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) | gzip -n -6 >"$2.new"
  mv "$2.new" "$2"
}

kernel=$(kernel_package)
unpack "$kernel" busybox-static
say "building from $kernel"
root=$scratch/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc/acpi/PWRF}
busybox=$(find "$scratch/packages/busybox-static" -path '*bin/busybox' -type f | head -1)
[ -n "$busybox" ] || die "package 'busybox-static' holds no busybox"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"; done
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
install -m 755 guest/init "$root/init"
install -m 755 guest/power-button "$root/etc/acpi/PWRF/00000080"
install_modules "$scratch/packages/$kernel" "$root"
compile guest/victim.c "$root/bin/victim"
compile guest/sum.c "$root/bin/sum"
compile guest/workset.c "$root/bin/workset"
compile guest/diskload.c "$root/bin/diskload"
mkdir -p "$root/etc/workloads"
install -m 755 guest/workloads/demo/* "$root/etc/workloads/"

if $need_demo; then
  cp "$scratch/packages/$kernel"/boot/vmlinuz-* "$out/vmlinuz.new" && mv "$out/vmlinuz.new" "$out/vmlinuz"
  install -m 755 "$root/bin/victim" "$out/victim" # runs on the host too: victim until=N tells the digest at step N
  compile_bare "$out/bare"
  pack "$root" "$out/initrd.gz"
  fingerprint >"$out/.initrd.gz.stamp"
  say "built $out/vmlinuz and $out/initrd.gz ($(stat -c %s "$out/initrd.gz") bytes)"
fi

# ---- the image with workloads ----

# Debian's name for the package of a shared library: libfoo.so.1 is in libfoo1, libfoo-2.so.1 in libfoo-2-1; the
# exceptions among the libraries met here are listed.
package_of() { # package_of SONAME
  case $1 in
    libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | ld-linux*) echo libc6 ;;
    libz.so.1) echo zlib1g ;;
    libcrypto.so.3) echo libssl3 ;;
    libgcc_s.so.1) echo libgcc-s1 ;;
    libjpeg.so.62) echo libjpeg62-turbo ;;
    libJudy.so.1) echo libjudydebian1 ;;
    libGLESv2.so.2) echo libgles2 ;;
    libGLdispatch.so.0) echo libglvnd0 ;;
    *) echo "$1" | tr '[:upper:]_' '[:lower:]-' | sed -E 's/([0-9])\.so\./\1-/; s/\.so\.//' ;;
  esac
}

missing_libraries() { # missing_libraries ROOT: names that its programs and libraries need and that are not in it
  local soname
  readelf -d "$1"/usr/bin/* "$1/$libraries"/* 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u |
    while read -r soname; do [ -e "$1/$libraries/$soname" ] || echo "$soname"; done
}

add_libraries() { # add_libraries ROOT: what the programs in it need, and what that needs
  local soname package found sonames packages
  libraries=lib/x86_64-linux-gnu
  mkdir -p "$1/$libraries" "$1/lib64"
  while mapfile -t sonames < <(missing_libraries "$1") && [ ${#sonames[@]} -gt 0 ]; do
    mapfile -t packages < <(for soname in "${sonames[@]}"; do package_of "$soname"; done | sort -u)
    unpack "${packages[@]}"
    for soname in "${sonames[@]}"; do
      package=$(package_of "$soname")
      found=$(find "$scratch/packages/$package" -name "$soname" -not -path '*debug*' | head -1)
      [ -n "$found" ] || die "package '$package' holds no '$soname'"
      cp -L "$found" "$1/$libraries/$soname"
    done
  done
  cp "$1/$libraries/ld-linux-x86-64.so.2" "$1/lib64/"
}

if $need_workloads; then
  mkdir -p "$root/usr/bin"
  compiler=$(compiler_package)
  unpack "${workload_packages[@]}" "$compiler"
  install -m 755 "$scratch"/packages/{redis-tools/usr/bin/{redis-check-rdb,redis-benchmark},sqlite3/usr/bin/sqlite3,memcached/usr/bin/memcached,stress-ng/usr/bin/stress-ng} "$root/usr/bin/"
  mv "$root/usr/bin/redis-check-rdb" "$root/usr/bin/redis-server" # one program under several names
  install -m 755 "$(find "$scratch/packages/$compiler" -name cc1 -type f)" "$root/usr/bin/cc1"
  strip "$root/usr/bin/cc1"
  mkdir -p "$root/usr/src"
  for source in victim sum workset; do gcc -E -P "guest/$source.c" -o "$root/usr/src/$source.i"; done
  add_libraries "$root"
  install -m 755 guest/workloads/full/* "$root/etc/workloads/"
  pack "$root" "$out/initrd-workloads.gz"
  fingerprint >"$out/.initrd-workloads.gz.stamp"
  say "built $out/initrd-workloads.gz ($(stat -c %s "$out/initrd-workloads.gz") bytes)"
fi

if $need_node; then
  node=$scratch/node
  mkdir -p "$node/usr/bin"
  # The one that runs this project: packages of it differ too much.
  install -m 755 "$(node -p process.execPath)" "$node/usr/bin/node"
  add_libraries "$node"
  pack "$node" "$out/node.gz"
  fingerprint >"$out/.node.gz.stamp"
  say "built $out/node.gz ($(stat -c %s "$out/node.gz") bytes)"
fi

# ---- another kernel and other libraries ----

other_kernel_package() { # a newer one where the distribution has it, else the one with other scheduling
  local meta name
  for meta in linux-image-6.12-cloud-amd64 linux-image-rt-amd64; do
    name=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    if [ -n "$name" ]; then echo "$name"; return; fi
  done
  die "no second kernel is in the package lists: they have neither linux-image-6.12-cloud-amd64 nor linux-image-rt-amd64"
}

if $need_other; then
  demo=$root root=$scratch/root-other main_cache=$cache cache=$out/cache-other
  mkdir -p "$cache" "$root"/{dev,etc/acpi/PWRF,etc/workloads,proc,sys,usr/bin}
  # Not the kernel that the other images are built from: it has a folder of its own.
  other_kernel=$(find "$cache" -name 'linux-image-*.deb' | sort -V | tail -1)
  other_kernel=$(basename "$other_kernel" | cut -d_ -f1)
  [ -n "$other_kernel" ] || { need_apt linux-image-rt-amd64; other_kernel=$(other_kernel_package); }
  unpack "$other_kernel" busybox
  cache=$main_cache
  say "building from $other_kernel"
  ln -s usr/bin "$root/bin"
  cp "$scratch/packages/busybox/bin/busybox" "$root/usr/bin/busybox"
  for applet in $("$root/usr/bin/busybox" --list); do [ "$applet" = busybox ] || ln -sf busybox "$root/usr/bin/$applet"; done
  cp "$demo"/etc/{passwd,group} "$root/etc/"
  cp "$demo/init" "$root/init"
  cp "$demo/etc/acpi/PWRF/00000080" "$root/etc/acpi/PWRF/"
  cp "$demo"/etc/workloads/{idle,shell,sum} "$root/etc/workloads/"
  install_modules "$scratch/packages/$other_kernel" "$root"
  for program in victim sum workset; do gcc -O2 -o "$root/usr/bin/$program" "guest/$program.c" -lm; strip "$root/usr/bin/$program"; done
  add_libraries "$root"
  pack "$root" "$out/initrd-other.gz"
  cp "$scratch/packages/$other_kernel"/boot/vmlinuz-* "$out/vmlinuz-other.new" && mv "$out/vmlinuz-other.new" "$out/vmlinuz-other"
  fingerprint >"$out/.initrd-other.gz.stamp"
  say "built $out/vmlinuz-other and $out/initrd-other.gz ($(stat -c %s "$out/initrd-other.gz") bytes)"
fi
