#!/bin/sh
# The step of a deploy that has a run swap the tables, and waits until it has:
#
#   release.sh public.orders
#
# The run is one of pgshadow alter --cutover manual that was started hours before, and waits for its release: in step and
# verified, or, of a native change, with nothing changed yet. The server is that of libpq's variables, as in
# ../ci/change.sh.
#
#   CHANGED   a query that gives t once the table has its new form, f before: one row, and no other answer
#   LIMIT     seconds to wait for the change (300)
#
# Ends with 0 when the table has its new form; 1 when the server cannot be asked, and 2 when CHANGED or the usage is wrong,
# both before anything is released; 3 when there is no run that is ready, and then nothing was released; 4 when the run has
# ended without the change; 5 when it has stopped, or has not made the change in time, or SIGTERM, SIGINT or SIGHUP ends
# this: a run that was released is then paused. Its own report and exit code are with the alter.
set -eu
table=${1:?the table, [schema.]name}
: "${CHANGED:?a query that gives t once the table has its new form}"
: "${LIMIT:=300}" "${PGCONNECT_TIMEOUT:=10}"
export PGCONNECT_TIMEOUT

say() { echo "release.sh: $*" >&2 || :; } # whoever read it may be gone

end() {
	code=$1
	shift
	say "$@"
	exit "$code"
}

case $LIMIT in '' | *[!0-9]*) end 2 "LIMIT is $LIMIT: want seconds" ;; esac
if [ -n "${PGSHADOW_DSN:-}" ]; then end 2 "PGSHADOW_DSN is set, which psql does not read: name the server with libpq's variables"; fi

# drop ends the command that is waited for.
drop() { if [ -n "$child" ]; then kill "$child" 2>/dev/null || :; fi; }

out=$(mktemp)
child=
trap 'drop; rm -f "$out"' EXIT
trap '' PIPE
trap 'end 5 "ended by a signal; nothing was released"' TERM INT HUP

# ask runs a command, whose stdout becomes answer: in the background, as a signal ends a wait at once, and a command in the
# foreground never.
ask() {
	"$@" >"$out" &
	child=$!
	code=0
	wait "$child" || code=$?
	child=
	answer=$(cat "$out")
	return "$code"
}

# changed gives 0 for t, 1 for f, 2 for a wrong question, 3 when the server cannot be asked.
changed() {
	ask psql -XAtq -c "$CHANGED" || :
	case "$code $answer" in
	'0 t') return 0 ;;
	'0 f') return 1 ;;
	'0 '* | '1 '*) return 2 ;; # 1 is an error in the query, 2 no connection
	*) return 3 ;;
	esac
}

# look sets status to what is known of the unfinished runs of the table, else to nothing.
look() {
	status=
	if ask pgshadow status --table "$table" --output json; then status=$answer; fi
}

# runs prints the runs that look has found.
runs() {
	printf '%s\n' "$status" | sed -n -e '/^ *"run_id": /{s/.*: "\(.*\)",*$/\1/;h;}' \
		-e '/^ *"phase": /{s/.*: "\(.*\)",*$/\1/;H;g;s/\(.*\)\n\(.*\)/; run \1 is in phase \2/p;}' | tr -d '\n'
}

# give_up pauses the run, and ends: what is not swapped by now is not to be swapped after the deploy has failed.
give_up() {
	trap '' TERM INT HUP
	drop
	tries=1
	while :; do
		paused=0
		ask pgshadow pause --table "$table" || paused=$code
		look # before changed, as in the loop
		case $paused$status in
		0* | *'[]' | *'"state": "stopped"'*) break ;;
		esac
		if [ "$tries" -ge 5 ]; then break; fi
		tries=$((tries + 1))
		ask sleep 1 || :
	done
	form=0
	changed || form=$?
	if [ "$paused" = 0 ] && [ "$form" != 0 ]; then # an attempt that was on when the pause came may yet succeed
		ask sleep 2 || :
		form=0
		changed || form=$?
	fi
	if [ "$form" = 0 ]; then end 0 "$1; but the change is made"; fi
	if [ "$paused" = 0 ]; then
		end 5 "$1: the run is paused; its log says what is in the way. pgshadow resume --table $table lets it try on"
	fi
	case $form$status in
	'1[]') end 4 "$1, and the run has ended; the table is as it was: the report of the alter says why" ;;
	*'"state": "stopped"'*) end 5 "$1, and the run has stopped; the same alter resumes it, and has to be released again" ;;
	esac
	end 5 "$1, AND THE RUN COULD NOT BE PAUSED: it may make the change yet. pgshadow status --table $table"
}

look # before changed: a run that has ended has made the change by then, or never will
form=0
changed || form=$?
case $form in
0) end 0 "the change is made already" ;;
2) end 2 "CHANGED gives neither t nor f, but \"$answer\": correct it. Nothing was released" ;;
3) end 1 "the server could not be asked whether the change is made. Nothing was released" ;;
esac
case $status in
'') end 1 "the server could not be asked for the run. Nothing was released" ;;
'[]') end 3 "no run of $table waits for its release: there is none. Start its pgshadow alter --cutover manual" ;;
*'"state": "stopped"'*) end 3 "no process works on the run: start its pgshadow alter again$(runs)" ;;
*'"state": "paused"'*) end 3 "the run is paused: pgshadow resume --table $table" ;;
*'"phase": "cutover"'*) ;;
*'"phase": "native"'*'"waiting": "the operator to release the cutover'*) ;;
*) end 3 "no run of $table waits for its release yet$(runs)" ;;
esac

trap 'give_up "ended by a signal"' TERM INT HUP
deadline=$(($(date +%s) + LIMIT))
ask pgshadow cutover --table "$table" || :
case $code in
0) say "$answer" ;;
2 | 3) end 3 "the run was not released" ;;
*) give_up "whether the run was released is not known" ;;
esac

# A look that fails is not the end of the deploy: the next one may succeed.
while :; do
	look # before changed, as above
	form=0
	changed || form=$?
	case $form$status in
	0*) end 0 "the change is made" ;;
	'1[]') end 4 "the run has ended, and the table is as it was: the report of the alter says why" ;;
	*'"state": "stopped"'*) end 5 "the run has stopped; the same alter resumes it, and has to be released again" ;;
	esac
	if [ "$(date +%s)" -ge "$deadline" ]; then give_up "not changed within $LIMIT s"; fi
	ask sleep 1 || :
done
