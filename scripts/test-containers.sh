#!/usr/bin/env bash
# Runs a part of the tests on servers in containers, through testcontainers-go, and prints what they ran on. The image
# is PGSHADOW_TEST_IMAGE (postgres:15) where it is there or can be pulled; else it is made of the server programs that
# are installed. Docker is seen to by with-docker.sh. Takes no input, and leaves no container.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

say() { echo "containers: $*"; }

if [ "${1:-}" != with-docker ]; then
	# Ports on the host's own address need no rules of a firewall, so a daemon that is started leaves none behind.
	export DOCKERD_FLAGS="--iptables=false --ip6tables=false ${DOCKERD_FLAGS:-}"
	exec scripts/with-docker.sh "$0" with-docker
fi

# The tests of pgtest that use its server, and whole changes with everything that the harness does on one.
pgtest_tests='TestContainer$|TestDatabasesAreIsolated|TestCleanup|TestConn$|TestDump|TestSharedServer'
e2e_tests='TestTruncate$|TestAbort$|TestPauseOutlivesTheProcess|TestLockHoldersAreNamed|TestKilledAfterTheSwap'

label=pgshadow-test-$$
work=$(mktemp -d "${TMPDIR:-/tmp}/pgshadow-containers-XXXXXX")

# remove_containers does what testcontainers' reaper would: its image cannot be had where none can be pulled.
remove_containers() {
	local left
	left=$(docker ps --all --quiet --filter "label=pgshadow.test=$label")
	# shellcheck disable=SC2086 # several ids
	[ -z "$left" ] || docker rm --force --volumes $left >/dev/null
}

finish() {
	local code=$?
	remove_containers || code=1
	rm -rf "$work"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# programs prints the folder of installed server programs, behind links, installing them if it can.
programs() {
	local found
	found=$(env -u PGSHADOW_TEST_DSN scripts/setup.sh | sed -n 's/^setup: using the PostgreSQL in //p')
	[ -n "$found" ] || return 1
	found=$(readlink -f "$found/postgres")
	echo "${found%/postgres}"
}

# libraries prints the shared libraries that the files are linked with, the loader too.
libraries() {
	{ ldd "$@" 2>/dev/null || :; } | sed -nE 's/^\t(.* => )?(\/[^ ]+) \(.*/\2/p' | sort -u
}

# add copies files and folders to their own places in the image, whatever links lead there.
add() {
	local path
	for path in "$@"; do
		if [ -e "$path" ] && [ ! -e "$work/root$path" ]; then
			mkdir -p "$work/root${path%/*}"
			cp -RL "$path" "$work/root$path"
		fi
	done
}

# fill_root puts together what a server needs: programs, libraries, time zones, an account, and what starts it.
fill_root() {
	local bin=$1 prefix=${1%/bin} root=$work/root
	mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/usr/local/bin" "$root/var/lib/postgresql" "$root/var/run/postgresql"
	add "$bin" "$prefix/lib" "$prefix/share" "/usr/share/postgresql/${prefix##*/}" /usr/share/zoneinfo /usr/lib/locale/C.utf8
	rm -rf "$root$prefix"/lib/llvmjit* "$root$prefix/lib/bitcode" # large, and not missed
	cp -L /bin/sh "$root/bin/sh"
	# shellcheck disable=SC2046 # no path of a library has a blank
	add $(libraries /bin/sh "$bin"/* $(find "$prefix/lib" -name '*.so' ! -name 'llvmjit*'))
	echo "postgres:x:999:999::/var/lib/postgresql:/bin/sh" >"$root/etc/passwd"
	echo "postgres:x:999:" >"$root/etc/group"
	cp test/pgtest/entrypoint.sh "$root/usr/local/bin/docker-entrypoint.sh"
	chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
	chmod 1777 "$root/tmp"
}

# import_image makes an image of the server programs, with what pgtest relies on of the official one, and prints its name.
import_image() {
	local bin version
	bin=$(programs)
	version=$("$bin/postgres" --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/')
	fill_root "$bin"
	tar -C "$work/root" --numeric-owner --owner=999 --group=999 -c . | docker import \
		--change "ENV PATH=$bin:/usr/local/bin:/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8" \
		--change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' \
		--change 'USER postgres' --change 'EXPOSE 5432' \
		- "pgshadow-test/postgres:$version" >/dev/null
	rm -rf "$work/root"
	echo "pgshadow-test/postgres:$version"
}

# get_image sets image, and how it was come by.
get_image() {
	image=${PGSHADOW_TEST_IMAGE:-postgres:15}
	if docker image inspect "$image" >/dev/null 2>&1; then
		how="was there"
	elif timeout 120 docker pull --quiet "$image" >"$work/pull" 2>&1; then
		how=pulled
	else
		say "$image cannot be pulled ($(tail -1 "$work/pull")); making an image of the server programs"
		image=$(import_image)
		how=imported
	fi
}

# run_tests runs those of a package whose names match, and shows what they say only where one fails.
run_tests() {
	local package=$1 names=$2
	if ! go test -tags containers -count 1 -timeout 10m -v -run "$names" "$package" >"$work/output" 2>&1 </dev/null; then
		cat "$work/output"
		return 1
	fi
	cat "$work/output" >>"$work/passed"
}

case ${DOCKER_HOST:-} in
unix://*pgshadow-docker-*) export TESTCONTAINERS_HOST_OVERRIDE=localhost ;; # with-docker.sh started it here
esac
get_image
say "testing on $image ($how)"
export PGSHADOW_TEST_IMAGE=$image PGSHADOW_TEST_CONTAINERS=$label TESTCONTAINERS_RYUK_DISABLED=true
run_tests ./test/pgtest "$pgtest_tests"
run_tests ./test/e2e "$e2e_tests"
server=$(sed -n 's/.*the container runs //p' "$work/passed")
say "image $image ($how), server $server, $(grep -c '^--- PASS' "$work/passed") tests passed"
