#!/usr/bin/env bash
# Installs the Debian package in a clean chroot and uses it: dependencies, check, the demo, a guest that stays protected through an upgrade,
# a removal that is refused while guests are there, removal, purge; and nothing is left.
# Usage: scripts/test-package.sh [SUITE]...     (as root, with a network; a suite of Debian that has Node 20.19: trixie, the default)
# The demo guest is that of this checkout. No systemd runs in a chroot: agents are started by hand.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -s build/guest/initrd.gz ] || { echo 'test-package: the demo guest is not built: bash scripts/build-guest.sh' >&2; exit 1; }
. scripts/clean-root.bash

deb=$(bash packaging/deb/build.sh)
say "built $deb"
next=$scratch/next.deb
dpkg-deb --raw-extract "$deb" "$scratch/next"
sed -i 's/^Version: .*/&.1/' "$scratch/next/DEBIAN/control"
dpkg-deb -Zgzip --root-owner-group --build "$scratch/next" "$next" >/dev/null

field() { inside node -p "JSON.parse(require('fs').readFileSync(0,'utf8'))$1"; }
of_guest() { inside subpage status web --json | field "$1"; }
is() { [ "$("${@:2}" 2>/dev/null)" = "$1" ]; }
files() { (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache/apt -o -path ./var/cache/man -o -path ./tmp \) -prune -o -print | sort); }

try_suite() {
  local suite=$1 depends agent other qemu supervisor committed
  make_root "$suite"
  cp "$deb" "$next" "$root/tmp/"

  say "$suite: installing what it depends on"
  depends=$(dpkg-deb --field "$deb" Depends)
  inside apt-get -qq -o Dpkg::Use-Pty=0 satisfy --no-install-recommends -y "$depends" >"$scratch/log" 2>&1 || { tail "$scratch/log" >&2; die 'the dependencies cannot be installed'; }
  ! inside sh -c 'command -v gcc cc clang' || die 'the root has a compiler'
  files >"$scratch/before"

  say "$suite: installing it"
  inside dpkg --install "/tmp/$(basename "$deb")" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; die 'it cannot be installed'; }
  inside subpage check
  inside subpage agent --check-config
  [ -s "$root/usr/share/man/man1/subpage.1.gz" ] || die 'there is no manual page'
  inside bash -n /usr/share/bash-completion/completions/subpage
  if inside subpage demo 2>"$scratch/log"; then die 'the demo ran without a guest'; fi
  grep -q 'build-guest.sh' "$scratch/log" || die "the demo does not say how its guest is made: $(cat "$scratch/log")"
  cp build/guest/{vmlinuz,initrd.gz,victim} "$root/var/cache/subpage/guest/"
  cp -R build/guest/bare "$root/var/cache/subpage/guest/"
  inside subpage demo >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; die 'the demo failed'; }
  grep -E 'guest runs on|Committed steps lost' "$scratch/log" >&2

  say "$suite: a guest is protected through an upgrade"
  echo '# kept' >>"$root/etc/subpage/agent.toml"
  begin_agent agent subpage
  agent=$begun
  begin_agent other subpage --state /run/other --host other
  other=$begun
  until_holds 180 test -S "$root/run/subpage/api.sock" -a -S "$root/run/other/api.sock"
  inside subpage run web --ram 128M --accel tcg -- -kernel /usr/lib/subpage/build/guest/vmlinuz -initrd /usr/lib/subpage/build/guest/initrd.gz -append console=ttyS0 >&2
  inside subpage protect web --to /run/other >&2
  qemu=$(of_guest .pid) supervisor=$(of_guest .supervisor.process) committed=$(of_guest .committed.epoch)
  inside dpkg --install /tmp/next.deb >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; die 'it cannot be upgraded'; }
  is Protected of_guest .state || die 'the upgrade interrupted the protection'
  # As systemd does (KillMode=process), by hand.
  kill -TERM "$agent"
  wait "$agent" || true
  begin_agent agent subpage
  agent=$begun
  until_holds 180 is Protected of_guest .state
  is "$qemu" of_guest .pid || die 'the guest was started anew'
  is "$supervisor" of_guest .supervisor.process || die 'the supervisor was started anew'
  [ "$(of_guest .committed.epoch)" -gt "$committed" ] || die 'no checkpoint was committed since'
  grep -q '# kept' "$root/etc/subpage/agent.toml" || die 'the configuration was overwritten'

  say "$suite: removing it"
  if inside dpkg --remove subpage >"$scratch/log" 2>&1; then die 'it was removed from under a guest'; fi
  grep -q 'this host has guests.*web' "$scratch/log" || { cat "$scratch/log" >&2; die 'the refusal does not name the guest'; }
  inside subpage remove web >&2
  until_holds 180 is '' find "$root/run/subpage/guests" "$root/run/other/guests" -mindepth 1
  kill -TERM "$agent" "$other"
  wait "$agent" "$other" || true
  rm -rf "$root/run/other"
  inside dpkg --remove subpage >/dev/null
  [ -e "$root/etc/subpage/agent.toml" ] || die 'a removal took the configuration'
  [ ! -e "$root/usr/lib/subpage" ] || die "a removal left $(find "$root/usr/lib/subpage" | head)"
  inside dpkg --purge subpage >/dev/null
  files | diff "$scratch/before" - >&2 || die 'a purge left files, or took too many'
  end_root
  say "$suite: nothing is left"
}

for suite in "${@:-trixie}"; do try_suite "$suite"; done
