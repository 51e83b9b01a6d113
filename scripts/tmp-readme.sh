#!/usr/bin/env bash
# Installs the npm package in a clean root of Debian that has no compiler, and uses it: check, an agent, a client, the lab. Then takes this
# checkout, as it is, into the same root and follows README.md: the demo, which sets everything up, and the commands after it.
# Usage: scripts/test-install.sh [SUITE]...     (as root, with a network; trixie and bookworm by default)
# npm is this machine's everywhere. Node is the distribution's where that is new enough; in bookworm this machine's stands in for the "Node
# 20.19 or newer" that README.md asks for.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/clean-root.bash

[ -s build/native/subpage.node ] && [ -s dist/src/cli/main.js ] || die 'nothing is built: run npm run build'

npm_root=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
mkdir "$scratch/packed"
for folder in . lab; do npm pack --silent --ignore-scripts --pack-destination "$scratch/packed" "./$folder" >/dev/null; done

prepare() { # prepare SUITE
  if [ "$1" = bookworm ]; then
    install_packages libstdc++6 libatomic1
    cp "$(readlink -f "$(command -v node)")" "$root/usr/local/bin/node"
  else
    install_packages nodejs
  fi
  mkdir -p "$root/usr/local/lib/node_modules"
  cp -R "$npm_root" "$root/usr/local/lib/node_modules/npm"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
  # A network whose certificates this machine trusts is to be trusted there, too.
  mkdir -p "$root/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  environment+=(npm_config_cafile=/etc/ssl/certs/ca-certificates.crt)
  say "$1: Node $(inside node --version), npm $(inside npm --version)"
}

try_npm() { # try_npm SUITE
  local prefix=/opt/subpage command=/opt/subpage/bin/subpage said agent status
  say "$1: npm install --global, where there is no compiler"
  install_packages qemu-system-x86 qemu-utils
  ! inside sh -c 'command -v gcc cc clang' || die 'the root has a compiler'
  cp "$scratch"/packed/*.tgz "$root/tmp/"
  quietly inside sh -c "npm install --global --prefix $prefix /tmp/subpage-[0-9]*.tgz"
  inside "$command" check >&2
  begin_agent agent "$command" --state /run/npm
  agent=$begun
  until_holds 60 test -S "$root/run/npm/api.sock"
  cat >"$root/tmp/client.mjs" <<'PROGRAM'
import { connect } from 'file:///opt/subpage/lib/node_modules/subpage/dist/src/index.js'
const agent = connect({ state: '/run/npm' })
const guest = await agent.run({ name: 'web', ramBytes: 64 * 2 ** 20, accel: 'tcg', options: [] })
console.log(guest.name, guest.state, (await agent.status()).guests.length)
await agent.remove('web')
PROGRAM
  [ "$(inside node /tmp/client.mjs)" = 'web Running 1' ] || die 'the client did not run its guest'
  kill -TERM "$agent"
  wait "$agent" || true

  status=0
  said=$(inside "$command" record -o /tmp/a.trace --for 1s -- sleep 1 2>&1) || status=$?
  [ "$status" = 13 ] && grep -qF "npm install --global --prefix $prefix subpage-lab@" <<<"$said" || die "record does not say how the lab is installed: $said"
  quietly inside sh -c "npm install --global --prefix $prefix /tmp/subpage-lab-*.tgz"
  quietly inside "$command" record -o /tmp/a.trace --for 1s -- sleep 1
  inside "$command" report /tmp/a.trace >"$scratch/log"
  grep -q amplification "$scratch/log" || die 'the lab that was installed beside it does not report'
  quietly inside sh -c "npm uninstall --global --prefix $prefix subpage subpage-lab"
  [ -z "$(find "$root/opt/subpage" ! -type d)" ] || die "npm left $(find "$root/opt/subpage" ! -type d | head)"
}

try_readme() { # try_readme SUITE
  say "$1: README.md in a checkout: the demo"
  mkdir "$root/srv/subpage"
  # As somebody clones it: what is committed, and what is changed here.
  git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null | tar -xf - -C "$root/srv/subpage"
  inside sh -c 'cd /srv/subpage && npm run demo' >"$scratch/log" 2>&1 || { tail -n 60 "$scratch/log" >&2; die 'the demo failed'; }
  grep -E 'guest runs on|steps lost|Records on its disk lost|From SIGKILL' "$scratch/log" >&2
  say "$1: README.md in a checkout: the commands"
  quietly inside sh -c 'cd /srv/subpage && npx vitest run --project guest test/guest/readme.test.ts'
  grep -E 'Tests ' "$scratch/log" >&2
}

[ $# -gt 0 ] || set -- trixie bookworm
for suite; do
  make_root "$suite"
  prepare "$suite"
  try_readme "$suite"
  end_root
  say "$suite: all of it works"
done
