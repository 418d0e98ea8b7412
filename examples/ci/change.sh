#!/bin/sh
# The step of a pipeline that makes one change with pgshadow, before the step that runs the migrations:
#
#   change.sh --table public.orders --alter "ALTER COLUMN customer_id TYPE bigint"
#
# The arguments are those of pgshadow alter. The server is that of libpq's variables (PGHOST, PGDATABASE, PGSERVICE,
# PGPASSFILE...): psql, which this needs too, does not read PGSHADOW_DSN.
#
#   CHANGED   a query that gives t once the table has its new form, f before
#   TRIES     how often a run that stops by itself is started, in all (5)
#   PAUSE     seconds between (60)
#   REPORT    the file for the JSON report (pgshadow.json)
#
# Ends with the exit code of pgshadow, 0 also when the change is made already. SIGTERM, SIGINT and SIGHUP stop the run
# cleanly, with 5; the step resumes it when it is run again.
set -eu
: "${CHANGED:?a query that gives t once the table has its new form}"
: "${TRIES:=5}" "${PAUSE:=60}" "${REPORT:=pgshadow.json}"

say() { echo "change.sh: $*" >&2; }

if [ -n "${PGSHADOW_DSN:-}" ]; then
	say "PGSHADOW_DSN is set, which psql does not read: name the server with libpq's variables"
	exit 2
fi

child=
stopping=
stop() {
	stopping=yes
	if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || :; fi
}
trap stop TERM INT HUP

# await sets code to what the child that was started last ends with. A signal ends a wait, and not the child.
await() {
	child=$!
	if [ -n "$stopping" ]; then stop; fi
	code=0
	wait "$child" || code=$?
	while [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
		code=0
		wait "$child" || code=$?
	done
	child=
}

changed() {
	if ! answer=$(psql -XAtq -c "$CHANGED"); then
		say "the server could not be asked whether the change is made"
		exit 1
	fi
	[ "$answer" = t ]
}

# explain prints the error of the report, and its warnings.
explain() { sed -n -e '/^  "error": {/,/^  }/p' -e '/^  "warnings": \[/,/^  \]/p' "$REPORT" >&2; }

if changed; then
	say "the change is made already"
	exit 0
fi

tries=0
while :; do
	tries=$((tries + 1))
	pgshadow alter --output json "$@" >"$REPORT" &
	await
	if [ "$code" -gt 128 ]; then code=5; fi # killed, by the kernel for one: the same command goes on
	explain
	if [ "$code" != 5 ] || [ -n "$stopping" ] || [ "$tries" -ge "$TRIES" ]; then break; fi
	say "stopped; it is resumed in $PAUSE s"
	sleep "$PAUSE" &
	await
	code=5
	if [ -n "$stopping" ]; then break; fi
done

case $code in
0)
	if ! changed; then
		say "pgshadow has made the change, and CHANGED does not give t: correct it, or the next start makes the change again"
		exit 1
	fi
	say "the change is made" ;;
1) say "failed. The table is as it was; the run is kept, and its slot holds WAL back. Mend what is said above and run this again, or remove the run: pgshadow cleanup" ;;
2) say "wrong usage: correct this step" ;;
3) say "refused, nothing was created: do what is said above" ;;
4) say "aborted and cleaned up. The table is as it was: mend its rows or the change" ;;
5) say "stopped. The table is as it was; run this again, soon, to resume: the slot holds WAL back" ;;
6) say "UNKNOWN whether the tables were swapped. Do not deploy: somebody must look, see docs/operations.md, The outcome is unknown" ;;
esac
exit "$code"
