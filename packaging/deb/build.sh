#!/usr/bin/env bash
# Builds the Debian package, build/deb/subpage_VERSION_ARCH.deb, from what is built here: the npm package, and beside it the dependencies that
# package-lock.json names. It needs dpkg-deb and npm, and neither network nor root.
# Usage: packaging/deb/build.sh [--revision N | --fast]     (N is 1 by default; --fast compresses little)
# Node is a dependency, not a part of it: security updates of Node then come to a host as all others do. Debian 13 has 20.19; for Debian 12
# NodeSource has it. The addon is of Node-API, so that one build serves each of them.
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { echo "build-deb: $*" >&2; exit 1; }
revision=1 compression=()
case ${1:-} in
  '') ;;
  --fast) compression=(-Zgzip -z1) ;;
  --revision) [[ ${2:-} =~ ^[0-9a-z.+~]+$ ]] || die '--revision takes a number'; revision=$2 ;;
  *) die "unknown argument '$1': there are --revision and --fast" ;;
esac
for tool in dpkg-deb:dpkg npm:npm tar:tar; do
  command -v "${tool%:*}" >/dev/null || die "'${tool%:*}' is missing: apt-get install ${tool#*:}"
done
[ -s build/native/subpage.node ] && [ -s dist/src/cli/main.js ] && [ -s build/web/index.html ] || die 'nothing is built: run npm run build'

version=$(node -p 'require("./package.json").version')-$revision
architecture=$(dpkg --print-architecture)
out=build/deb
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
umask 022
root=$scratch/root
lib=$root/usr/lib/subpage
share=$root/usr/share
doc=$share/doc/subpage
mkdir -p "$root"/{DEBIAN,etc/subpage,usr/bin,usr/lib/systemd/system,var/cache/subpage/guest} "$doc" "$share/man/man1" \
  "$share"/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d,lintian/overrides}

# ---- the npm package, and its dependencies ----

npm pack --silent --ignore-scripts --pack-destination "$scratch" >/dev/null
tar -xzf "$scratch"/subpage-*.tgz -C "$scratch"
mv "$scratch/package" "$lib"
node -p 'Object.entries(require("./node_modules/.package-lock.json").packages).filter(([, { dev, link }]) => !dev && !link).map(([path]) => path).join("\n")' |
  grep '^node_modules/' | grep -v '/node_modules/' | while read -r module; do
  # The addon is built already.
  case $module in */node-api-headers | */subpage-lab) continue ;; esac
  place=$lib/$module
  mkdir -p "$(dirname "$place")"
  cp -R "$module" "$place"
done
# What their authors need, and Node does not.
for part in test tests docs examples benchmarks benchmark integration .github; do rm -rf "$lib"/node_modules/{,@*/}*/"$part"; done
find "$lib/node_modules" -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '.*' -o -name '*.yml' -o -name '*.html' -o -name '*.sh' \) -delete
find "$lib" -type d -empty -delete
rm -rf "$lib/native" "$lib/scripts/build-native.sh" "$lib/scripts/native.bash"
find "$lib" -type f -exec chmod a-x {} + && chmod a+x "$lib/bin/subpage" "$lib/dist/src/cli/main.js"
ln -s ../lib/subpage/bin/subpage "$root/usr/bin/subpage"
# The demo guest is made on the host, where it is wanted (scripts/build-guest.sh).
ln -s /var/cache/subpage/guest "$lib/build/guest"

# ---- where Debian looks for them ----

install -m 0644 "$lib"/packaging/subpage-*.service "$root/usr/lib/systemd/system/"
install -m 0644 "$lib/packaging/agent.toml" "$root/etc/subpage/agent.toml"
for page in "$lib"/man/*.1; do gzip -9nc "$page" >"$share/man/man1/$(basename "$page").gz"; done
node dist/src/cli/main.js completion bash >"$share/bash-completion/completions/subpage"
node dist/src/cli/main.js completion zsh >"$share/zsh/vendor-completions/_subpage"
node dist/src/cli/main.js completion fish >"$share/fish/vendor_completions.d/subpage.fish"
mv "$lib"/packaging/prometheus "$doc/"
mkdir "$lib/openapi"
mv "$lib/docs/openapi.json" "$lib/openapi/"
mv "$lib/docs" "$lib"/{README,SPECIFICATION,ARCHITECTURE,THIRD-PARTY}.md "$doc/"
mv "$lib/openapi" "$lib/docs"
gzip -9nc "$lib/CHANGELOG.md" >"$doc/changelog.gz"
rm -rf "$lib"/man "$lib"/packaging "$lib"/CHANGELOG.md
date=$(date -R -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")
printf 'subpage (%s) unstable; urgency=medium\n\n  * The changes are in changelog.gz.\n\n -- The subpage project <subpage@localhost>  %s\n' "$version" "$date" |
  gzip -9nc >"$doc/changelog.Debian.gz"
install -m 0644 packaging/deb/lintian-overrides "$share/lintian/overrides/subpage"
{
  printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: the authors of subpage\nLicense: MIT\n'
  sed -e '1,/^$/d; s/^$/./; s/^/ /' LICENSE
  printf '\nFiles: usr/lib/subpage/build/native/* usr/lib/subpage/build/web/*\nCopyright: as THIRD-PARTY.md names it\nLicense: BSD-2-Clause and MIT\n The texts are in /usr/share/doc/subpage/THIRD-PARTY.md.\n'
  (cd "$lib" && find node_modules -name package.json -path '*node_modules/*' | sort) | node -e '
    const { readFileSync } = require("node:fs")
    for (const file of readFileSync(0, "utf8").trim().split("\n")) {
      const { name, version, license, author } = JSON.parse(readFileSync(process.argv[1] + "/" + file, "utf8"))
      if (!name || !version || !license) continue
      const by = (typeof author === "string" ? author : author?.name) ?? `the authors of ${name}`
      console.log(`\nFiles: usr/lib/subpage/${file.replace(/package.json$/, "*")}\nCopyright: ${by}\nLicense: ${license}\n The text lies beside it.`)
    }' "$lib"
} >"$doc/copyright"
rm -f "$lib/LICENSE"

# ---- control ----

sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$(du -sk --apparent-size "$root" | cut -f1)/" packaging/deb/control >"$root/DEBIAN/control"
install -m 0755 packaging/deb/{postinst,prerm,postrm} "$root/DEBIAN/"
echo /etc/subpage/agent.toml >"$root/DEBIAN/conffiles"
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod -R u+rwX,go+rX,go-w "$root"
chmod 0644 "$root"/DEBIAN/{control,conffiles,md5sums}

deb=$out/subpage_${version}_$architecture.deb
dpkg-deb "${compression[@]}" --root-owner-group --build "$root" "$deb" >/dev/null
echo "$deb"
