# Sourced by scripts that try subpage in a clean root of Debian: makes one with mmdebstrap, runs programs in it, and leaves nothing of it.
# Everything runs with mounts and processes of its own, which end with the script.

name=$(basename "$0" .sh)
die() { echo "$name: $*" >&2; exit 1; }
say() { echo "$name: $*" >&2; }

[ "$(id -u)" = 0 ] || die 'a chroot is made by root'
command -v mmdebstrap >/dev/null || die "'mmdebstrap' is missing: apt-get install mmdebstrap"
if [ "${CLEAN_ROOT_INSIDE:-}" = '' ]; then
  CLEAN_ROOT_INSIDE=1 exec unshare --mount --pid --fork --kill-child --mount-proc bash "scripts/$name.sh" "$@"
fi
unset CLEAN_ROOT_INSIDE

scratch=$(mktemp -d)
chmod 0755 "$scratch"
root=
clean_up() {
  if [ -n "$root" ]; then
    umount -R --lazy "$root"/{proc,sys,dev} 2>/dev/null || true # Processes of the root may run yet: they end with this one.
  fi
  rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT

environment=(HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb)
inside() { chroot "$root" /usr/bin/env -i "${environment[@]}" "$@"; }

make_root() { # make_root SUITE: it is in $root
  root=$scratch/$1
  say "$1: making a clean root"
  mmdebstrap --quiet --variant=minbase --skip=cleanup/apt/lists "$1" "$root"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/dev/shm"
  mount -t proc proc "$root/proc"
}

end_root() {
  umount -R "$root"/{proc,sys,dev}
  rm -rf --one-file-system "$root"
  root=
}

begin_agent() { # begin_agent LOG COMMAND [OPTION]...: its process is in $begun
  (exec chroot "$root" /usr/bin/env -i "${environment[@]}" "$2" agent "${@:3}") >>"$scratch/$1" 2>&1 &
  begun=$!
}

until_holds() { # until_holds SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ $SECONDS -ge $end ]; then
      tail -n 20 "$scratch/agent" "$scratch/other" >&2 || true
      die "this did not come true: $*"
    fi
    sleep 0.1
  done
}

quietly() { # quietly COMMAND...: what it says is shown when it fails
  "$@" >"$scratch/log" 2>&1 || { tail -n 40 "$scratch/log" >&2; die "this failed: $*"; }
}

install_packages() { quietly inside apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends -y "$@"; }
