#!/usr/bin/env bash
# Runs a command with a Docker daemon that answers: the one that is there, else, as root, one that is started for the
# command and ends with it, with all its images and containers. Docker is installed where it is missing and can be.
#   scripts/with-docker.sh COMMAND [ARGUMENT...]
# DOCKERD_FLAGS are more flags for the daemon that is started.
set -euo pipefail

say() { echo "with-docker: $*" >&2; }

if [ $# = 0 ]; then
	say "want a command to run"
	exit 2
fi

answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

if answers; then
	exec "$@"
fi

if [ "$(id -u)" != 0 ]; then
	say "no Docker answers, and only root can start one; start it, and have access to it"
	exit 1
fi

# install_docker installs it without starting its service: Debian asks policy-rc.d before it starts one.
install_docker() {
	say "installing Docker with apt-get"
	apt-get update -q </dev/null
	local policy=/usr/sbin/policy-rc.d installed=0
	if [ -e "$policy" ]; then
		policy=
	else
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends docker.io iptables </dev/null || installed=$?
	if [ "$installed" = 0 ] && ! command -v docker >/dev/null; then # from Debian 13 on the client is apart
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends docker-cli </dev/null || installed=$?
	fi
	if [ -n "$policy" ]; then rm -f "$policy"; fi
	return "$installed"
}

if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
	if ! command -v apt-get >/dev/null; then
		say "no Docker here; install it"
		exit 1
	fi
	install_docker >&2
fi

# Its own folders and socket: it meets no other daemon, and everything is gone with one folder.
dir=$(mktemp -d "${TMPDIR:-/tmp}/pgshadow-docker-XXXXXX")
export DOCKER_HOST=unix://$dir/docker.sock
# shellcheck disable=SC2086 # several flags
dockerd --host "$DOCKER_HOST" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" ${DOCKERD_FLAGS:-} \
	>"$dir/log" 2>&1 &
daemon=$!

finish() {
	local code=$?
	kill "$daemon" 2>/dev/null || :
	wait "$daemon" || :
	# The network namespace of the host, and what a daemon that was killed had mounted, last things first.
	awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount || :
	rm -rf --one-file-system "$dir" || :
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

began=$SECONDS
until answers; do
	if ! kill -0 "$daemon" 2>/dev/null || ((SECONDS - began > 120)); then
		say "the daemon that was started does not answer; its log ends with:"
		tail -20 "$dir/log" >&2
		exit 1
	fi
	sleep 0.2
done
"$@"
