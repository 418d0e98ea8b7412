#!/bin/sh
# Sees to it that tests and demo find a PostgreSQL server: the one of PGSHADOW_TEST_DSN, else installed server
# programs (as root with apt-get they are installed), else Docker; and that tests find PgBouncer and a C compiler. Takes
# no input. No service is left running.
set -eu

say() { echo "setup: $*"; }

has_programs() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

# server_programs prints the folder of the installed server programs; pgserver.Find looks in the same places.
server_programs() {
	if [ -n "${PGSHADOW_TEST_PGBIN:-}" ]; then
		has_programs "$PGSHADOW_TEST_PGBIN" || return 1
		echo "$PGSHADOW_TEST_PGBIN"
		return
	fi
	in_path=$(command -v initdb || :)
	for dir in "${in_path%/*}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
		if [ -n "$dir" ] && has_programs "$dir"; then
			echo "$dir"
			return
		fi
	done
	return 1
}

DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

# install_with_apt installs the server programs without creating a cluster, and so without starting one.
install_with_apt() {
	say "installing PostgreSQL with apt-get"
	apt-get update -q </dev/null
	apt-get install -q -y --no-install-recommends postgresql-common </dev/null
	no_cluster=/etc/postgresql-common/createcluster.d/pgshadow-setup.conf
	mkdir -p "${no_cluster%/*}"
	echo "create_main_cluster = false" >"$no_cluster"
	installed=0
	apt-get install -q -y --no-install-recommends postgresql </dev/null || installed=$?
	rm -f "$no_cluster"
	return "$installed"
}

# find_server says which server is there, and sees to it that one is.
find_server() {
	if [ -n "${PGSHADOW_TEST_DSN:-}" ]; then
		say "using the server of PGSHADOW_TEST_DSN"
		return
	fi
	if dir=$(server_programs); then
		say "using the PostgreSQL in $dir"
		return
	fi
	if [ -n "${PGSHADOW_TEST_PGBIN:-}" ]; then
		say "PGSHADOW_TEST_PGBIN=$PGSHADOW_TEST_PGBIN holds no initdb and postgres" >&2
		return 1
	fi
	if can_install; then
		if install_with_apt && dir=$(server_programs); then
			say "using the PostgreSQL in $dir"
			return
		fi
		say "apt-get gave no server programs" >&2
	fi
	if command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
		say "no PostgreSQL server programs here; using Docker"
		return
	fi
	cat >&2 <<'TEXT'
setup: found neither PostgreSQL server programs (initdb, postgres) nor a Docker that answers. Do one of these:
  install them             as root: apt-get install postgresql (or your system's package)
  name their folder        PGSHADOW_TEST_PGBIN=/folder/with/initdb
  start Docker             and have access to it
  name a server            PGSHADOW_TEST_DSN=postgres://superuser@host/postgres, with wal_level=logical
TEXT
	return 1
}

# pgbouncer_program prints where PgBouncer is; test/pooler looks in the same places.
pgbouncer_program() {
	in_path=$(command -v pgbouncer || :)
	for dir in "${in_path%/*}" /usr/sbin /usr/local/sbin /opt/homebrew/bin /usr/local/bin; do
		if [ -n "$dir" ] && [ -x "$dir/pgbouncer" ]; then
			echo "$dir/pgbouncer"
			return
		fi
	done
	return 1
}

# install_pgbouncer installs it without starting its service: Debian asks policy-rc.d before it starts one.
install_pgbouncer() {
	say "installing PgBouncer with apt-get"
	apt-get update -q </dev/null
	policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ]; then
		policy=
	else
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	installed=0
	apt-get install -q -y --no-install-recommends pgbouncer </dev/null || installed=$?
	if [ -n "$policy" ]; then rm -f "$policy"; fi
	return "$installed"
}

# find_pgbouncer sees to it that PgBouncer is there. Without it all but the tests that need it work.
find_pgbouncer() {
	if program=$(pgbouncer_program); then
		say "using $program"
		return
	fi
	if can_install && install_pgbouncer && program=$(pgbouncer_program); then
		say "using $program"
		return
	fi
	say "no PgBouncer here, so the tests that need it will fail; as root: apt-get install pgbouncer (or your system's package)" >&2
}

# compiler prints the C compiler that test/seclabel takes, if it makes a library.
compiler() {
	for name in "${CC:-}" cc gcc clang; do
		if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then
			printf '#include <stdbool.h>\n#include <string.h>\n' | "$name" -shared -fPIC -o /dev/null -xc - 2>/dev/null || return 1
			echo "$name"
			return
		fi
	done
	return 1
}

# find_compiler sees to it that there is a C compiler. Without it all but the tests of security labels work.
find_compiler() {
	if name=$(compiler); then
		say "using $name"
		return
	fi
	if can_install; then
		say "installing gcc with apt-get"
		if apt-get update -q </dev/null && apt-get install -q -y --no-install-recommends gcc libc6-dev </dev/null && name=$(compiler); then
			say "using $name"
			return
		fi
	fi
	say "no C compiler here, so the tests of security labels will fail; as root: apt-get install gcc libc6-dev (or your system's packages)" >&2
}

if ! command -v go >/dev/null 2>&1; then
	say "no go in PATH; install Go $(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$(dirname "$0")/../go.mod") or later" >&2
	exit 1
fi
find_server
find_pgbouncer
find_compiler
