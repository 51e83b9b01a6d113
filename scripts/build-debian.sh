#!/usr/bin/env bash
# Builds the disk of a Debian guest from packages, with mmdebstrap: build/debian/databases.raw, an ext4 file system with PostgreSQL, whose
# cluster is made, SQLite, and scripts/debian/databases, which runs them. The kernel and the program that mounts it are those of the demo guest
# (scripts/build-guest.sh), so that nothing boots but what a test looks at.
# Usage: scripts/build-debian.sh     (as root; half a minute, and some 100 MB of packages from the network)
# Does nothing when the sources have not changed. Newer packages are taken up by deleting build/debian.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/debian
image=$out/databases.raw
suite=bookworm
postgresql=15
image_mib=320

die() { echo "build-debian: $*" >&2; exit 1; }
say() { echo "build-debian: $*" >&2; }

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
stamp=$(sha256sum scripts/build-debian.sh scripts/debian/databases | sha256sum | cut -d' ' -f1)
if [ -s "$image" ] && [ "$(cat "$out/.databases.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

[ "$(uname -m)" = x86_64 ] || die "the guest is for x86_64; this machine is $(uname -m)"
[ "$(id -u)" = 0 ] || die 'a root file system with its owners is made by root'
for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs; do
  command -v "${tool%:*}" >/dev/null || die "'${tool%:*}' is missing: apt-get install ${tool#*:}"
done

scratch=$(mktemp -d)
chmod 0755 "$scratch" # apt downloads as a user of its own
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

say "unpacking PostgreSQL $postgresql and SQLite of Debian $suite"
# Unpacked and not configured: nothing of it is to be an operating system. It uses descriptors of its own, so it does not get our lock.
mmdebstrap --quiet --variant=extract --include="postgresql-$postgresql,sqlite3,util-linux,busybox-static" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/postgresql/*/man/*' \
  "$suite" "$root" 9>&- || die "mmdebstrap failed: is there a network?"
# For compiled queries and scripts in Perl, which nobody runs there.
find "$root/usr/lib" \( -name 'libLLVM*' -o -name 'libz3*' -o -name 'llvmjit*' -o -name perl -o -name bitcode \) -prune -exec rm -rf {} +
rm -rf "$root"/var/{cache,lib/apt} "$root"/usr/share/{perl,perl5}
for applet in $("$root/bin/busybox" --list); do
  [ -e "$root/bin/$applet" ] || [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'postgres:x:70:70::/var/lib/postgresql:/bin/sh' >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'postgres:x:70:' >"$root/etc/group"
mkdir -p "$root"/{opt,proc,run,root,sys,var/lib/rows}
install -m 0755 scripts/debian/databases "$root/opt/databases"

say 'making the databases'
inside() { chroot --userspec=70:70 "$root" /bin/busybox env -i LC_ALL=C PATH="/usr/lib/postgresql/$postgresql/bin:/bin" "$@"; }
install -d -o 70 -g 70 -m 0700 "$root/var/lib/postgresql" "$root/var/lib/postgresql/data"
chmod 1777 "$root"/{dev,run,tmp}
inside initdb -D /var/lib/postgresql/data -A trust -E UTF8 --no-instructions >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; die 'initdb failed'; }
cat >>"$root/var/lib/postgresql/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '/run'
shared_buffers = 16MB
max_connections = 10
jit = off
END
# By the single-user backend, so that nothing of this host's is listened on.
inside postgres --single -D /var/lib/postgresql/data postgres >"$scratch/log" 2>&1 <<END
create table rows (number bigint primary key)
create extension amcheck
END
if grep -q ERROR "$scratch/log"; then cat "$scratch/log" >&2; die 'the databases cannot be made'; fi
chroot "$root" /usr/bin/sqlite3 /var/lib/rows/rows.db 'create table rows (number integer primary key)'
rm -rf "$root"/dev/*

mke2fs -q -t ext4 -E lazy_itable_init=0,root_owner=0:0 -d "$root" "$image.new" "${image_mib}M"
mv "$image.new" "$image"
echo "$stamp" >"$out/.databases.stamp"
say "built $image ($(du -m "$image" | cut -f1) MiB of $image_mib)"
