#!/bin/sh
# The step of a pipeline that makes one change with pgshadow, before the step that runs the migrations:
#
#   change.sh --table public.orders --alter "ALTER COLUMN customer_id TYPE bigint"
#
# The arguments are those of pgshadow alter. The server is that of libpq's variables (PGHOST, PGDATABASE, PGSERVICE,
# PGPASSFILE...): psql, which this needs too, does not read PGSHADOW_DSN.
#
#   CHANGED   a query that gives t once the table has its new form, f before: one row, and no other answer
#   TRIES     how often a run that stops by itself is started, in all (5)
#   PAUSE     seconds between (60)
#   REPORT    the file for the JSON report (pgshadow.json)
#
# Ends with the exit code of pgshadow, 0 also when the change is made already; before anything is done, with 2 when CHANGED
# is wrong, and with 1 when the server cannot be asked. SIGTERM, SIGINT and SIGHUP stop the run cleanly, with 5; the step
# resumes it when it is run again.
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

# changed gives 0 for t, 1 for f, 2 for a wrong question, 3 when the server cannot be asked.
changed() {
	code=0
	answer=$(psql -XAtq -c "$CHANGED") || code=$?
	case "$code $answer" in
	'0 t') return 0 ;;
	'0 f') return 1 ;;
	'0 '* | '1 '*) return 2 ;; # 1 is an error in the query, 2 no connection
	*) return 3 ;;
	esac
}

# explain prints the error of the report, and its warnings.
explain() { sed -n -e '/^  "error": {/,/^  }/p' -e '/^  "warnings": \[/,/^  \]/p' "$REPORT" >&2; }

form=0
changed || form=$?
if [ "$form" -gt 1 ] && [ -n "$stopping" ]; then # the signal may have reached psql as well
	say "stopped before anything was done: run this again"
	exit 5
fi
case $form in
0)
	say "the change is made already"
	exit 0 ;;
2)
	say "CHANGED gives neither t nor f, but \"$answer\": correct it. Nothing was done"
	exit 2 ;;
3)
	say "the server could not be asked whether the change is made. Nothing was done"
	exit 1 ;;
esac

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
	form=0
	changed || form=$?
	if [ "$form" = 3 ]; then
		say "pgshadow has made the change, and the server could not be asked whether CHANGED finds it: run this again"
		exit 1
	elif [ "$form" != 0 ]; then
		say "pgshadow has made the change, and CHANGED does not give t: correct it, or the next start makes the change again"
		exit 1
	fi
	say "the change is made" ;;
1) say "failed. Mend what is said above and run this again. A run that had begun is kept, and its slot holds WAL back: pgshadow cleanup would remove it" ;;
2) say "wrong usage: correct this step" ;;
3) say "refused, nothing was created: do what is said above" ;;
4) say "aborted and cleaned up. The table is as it was: mend its rows or the change" ;;
5) say "stopped; run this again to go on. Soon, if the run had begun: its slot holds WAL back (pgshadow status)" ;;
6) say "UNKNOWN whether the tables were swapped. Do not deploy: somebody must look, see docs/operations.md, The outcome is unknown" ;;
esac
exit "$code"
