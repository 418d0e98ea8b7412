#!/bin/sh
# Starts the server of an image that scripts/test-containers.sh has made, as the official image does as far as pgtest
# relies on it: the first start makes the cluster, and POSTGRES_HOST_AUTH_METHOD is how clients log in.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username=postgres --encoding=UTF8 --auth-local=trust --no-sync
	echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
	echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
fi
exec "$@"
