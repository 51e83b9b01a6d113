#!/usr/bin/env bash
# Builds a Debian guest from packages, with mmdebstrap: build/debian/system.raw, a disk with a GPT, an EFI system partition with grub, and
# an ext4 file system with systemd, PostgreSQL and SQLite; and build/debian/client, its pgbench for the host. guest/README.md
# says how the guest is reached.
# Usage: scripts/build-debian.sh     (as root; a minute or two, and some 200 MB of packages from the network)
# Does nothing when the sources have not changed. Newer packages are taken up by deleting build/debian.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/debian
image=$out/system.raw
suite=bookworm
postgresql=15
esp_mib=8
system_mib=640
kernel_options='root=LABEL=system ro console=tty0 console=ttyS0 quiet tsc=unstable no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1'

die() { echo "build-debian: $*" >&2; exit 1; }
say() { echo "build-debian: $*" >&2; }

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
stamp=$({ cat scripts/build-debian.sh; find scripts/debian -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum | cut -d' ' -f1)
if [ -s "$image" ] && [ "$(cat "$out/.system.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

[ "$(uname -m)" = x86_64 ] || die "the guest is for x86_64; this machine is $(uname -m)"
[ "$(id -u)" = 0 ] || die 'a root file system with its owners is made by root'
PATH=$PATH:/usr/sbin:/sbin
for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk mkfs.vfat:dosfstools mcopy:mtools grub-mkimage:grub-efi-amd64-bin; do
  command -v "${tool%:*}" >/dev/null || die "'${tool%:*}' is missing: apt-get install ${tool#*:}"
done

scratch=$(mktemp -d)
chmod 0755 "$scratch" # apt downloads as a user of its own
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

say "installing Debian $suite with PostgreSQL $postgresql"
# Packages come to the guest's own configuration. mmdebstrap uses descriptors of its own, so it does not get our lock.
mmdebstrap --quiet --variant=minbase \
  --include="systemd-sysv,udev,kmod,linux-image-cloud-amd64,iproute2,postgresql-$postgresql,sqlite3" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt=force-confold --dpkgopt=force-unsafe-io --aptopt='APT::Install-Recommends "false"' \
  --setup-hook='copy-in scripts/debian/root/etc /' --customize-hook='scripts/debian/customize "$1"' \
  "$suite" "$root" 9>&- >"$scratch/log" 2>&1 || { tail -n 40 "$scratch/log" >&2; die 'mmdebstrap failed: is there a network?'; }
rm -rf "$root"/usr/share/{i18n,locale,perl/5*/unicore/lib,zoneinfo/right}

mkdir -p "$root/boot/grub" "$root/boot/efi"
cat >"$root/boot/grub/grub.cfg" <<END
set timeout=0
menuentry Debian {
  linux $(cd "$root" && echo boot/vmlinuz-* | sed 's|^|/|') $kernel_options
  initrd $(cd "$root" && echo boot/initrd.img-* | sed 's|^|/|')
}
END

say 'making the disk'
truncate -s "$((2 + esp_mib + system_mib))M" "$image.new"
sfdisk --quiet "$image.new" <<END
label: gpt
start=1MiB, size=${esp_mib}MiB, type=uefi, name=esp
start=$((1 + esp_mib))MiB, size=${system_mib}MiB, type=linux, name=system
END
cat >"$scratch/grub.cfg" <<'END'
search --set=root --label system
configfile /boot/grub/grub.cfg
END
grub-mkimage --format x86_64-efi --output "$scratch/bootx64.efi" --config "$scratch/grub.cfg" --prefix /boot/grub \
  part_gpt ext2 search search_label configfile normal linux all_video
truncate -s "${esp_mib}M" "$scratch/esp"
mkfs.vfat -n ESP "$scratch/esp" >/dev/null
mmd -i "$scratch/esp" ::/EFI ::/EFI/BOOT
mcopy -i "$scratch/esp" "$scratch/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
dd if="$scratch/esp" of="$image.new" bs=1M seek=1 conv=notrunc,sparse status=none
# What grub can read.
mke2fs -q -t ext4 -L system -O ^metadata_csum_seed,^orphan_file -E "lazy_itable_init=0,root_owner=0:0,offset=$(((1 + esp_mib) << 20))" \
  -d "$root" "$image.new" "${system_mib}M"

# By their own C library, whatever the host's is.
rm -rf "$out/client"
mkdir -p "$out/client"
pgbench=/usr/lib/postgresql/$postgresql/bin/pgbench
for file in "$pgbench" $(chroot "$root" ldd "$pgbench" | grep -o '/[^ ]*'); do cp -L "$root$file" "$out/client/"; done
mv "$image.new" "$image"
echo "$stamp" >"$out/.system.stamp"
say "built $image ($(du -m "$image" | cut -f1) MiB of $((2 + esp_mib + system_mib)))"
