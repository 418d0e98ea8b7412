#!/bin/sh
# The step of a deploy that has a run swap the tables, and waits until it has:
#
#   release.sh public.orders
#
# The run is one of pgshadow alter --cutover manual that was started hours before, and waits, in step and verified. The
# server is that of libpq's variables, as in ../ci/change.sh.
#
#   CHANGED   a query that gives t once the table has its new form, f before
#   LIMIT     seconds to wait for the swap (300)
#
# Ends with 0 when the table has its new form; 3 when there is no run that is ready, and then nothing was released; 4 when
# the run has ended without the change; 5 when it has stopped, or did not swap in time and was paused. Its own report and
# exit code are with the alter.
set -eu
table=${1:?the table, [schema.]name}
: "${CHANGED:?a query that gives t once the table has its new form}"
: "${LIMIT:=300}"

say() { echo "release.sh: $*" >&2; }

end() {
	code=$1
	shift
	say "$@"
	exit "$code"
}

if [ -n "${PGSHADOW_DSN:-}" ]; then end 2 "PGSHADOW_DSN is set, which psql does not read: name the server with libpq's variables"; fi

changed() {
	if ! answer=$(psql -XAtq -c "$CHANGED"); then end 1 "the server could not be asked whether the change is made"; fi
	[ "$answer" = t ]
}

look() {
	if ! status=$(pgshadow status --table "$table" --output json); then end 1 "the server could not be asked for the run"; fi
}

if changed; then end 0 "the change is made already"; fi
look
case $status in
*'"state": "stopped"'*) end 3 "no process works on the run: start its pgshadow alter again" ;;
*'"state": "paused"'*) end 3 "the run is paused: pgshadow resume --table $table" ;;
*'"phase": "cutover"'*) ;;
*) end 3 "no run of $table waits for its release: $status" ;;
esac
if ! pgshadow cutover --table "$table"; then end 3 "the run was not released"; fi

waited=0
while :; do
	look # before changed: a run that has ended has swapped by then, or never will
	if changed; then end 0 "the tables are swapped"; fi
	case $status in
	'[]') end 4 "the run has ended, and the table is as it was: the report of the alter says why" ;;
	*'"state": "stopped"'*) end 5 "the run has stopped; the same alter resumes it, and has to be released again" ;;
	esac
	if [ "$waited" -ge "$LIMIT" ]; then break; fi
	sleep 1
	waited=$((waited + 1))
done
# Nothing is to be swapped after the deploy has failed.
if pgshadow pause --table "$table"; then
	end 5 "no swap within $LIMIT s: the run is paused; its log says what is in the way. pgshadow resume --table $table lets it try on"
fi
if changed; then end 0 "the tables are swapped"; fi
end 5 "no swap within $LIMIT s, and the run could not be paused: pgshadow status --table $table"
