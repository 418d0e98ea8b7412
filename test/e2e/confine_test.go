package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// trapScript is run as {owner}. spring tells on the channel trap as whom it runs, and what became of each way to
// become another role; a notification comes from a read-only transaction too. Then it leaves what could run later, with
// the session's own rights. It does all of it once in a transaction for each kind: a trap is sprung for every row.
const trapScript = `
	CREATE FUNCTION tell(kind text, what text) RETURNS boolean LANGUAGE sql AS $$
		SELECT pg_notify('trap', concat_ws('|', kind, current_setting('application_name'), current_user, what)) IS NULL $$;
	CREATE FUNCTION attempt(kind text, command text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		EXECUTE command;
		IF current_user <> '{owner}' THEN PERFORM public.tell(kind, command); END IF;
	EXCEPTION WHEN OTHERS THEN NULL; END $$;
	CREATE TABLE late (what text);
	CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM public.attempt('trigger', 'RESET ROLE'), public.tell('trigger', new.what); RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
	CREATE SCHEMA evil;
	CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
		PERFORM public.tell('operator', ''); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
	CREATE FUNCTION evil.same(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
		PERFORM public.tell('operator', ''); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
	CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.same);
	CREATE FUNCTION spring(kind text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE command text; this text := kind || txid_current_if_assigned() || clock_timestamp()::date || statement_timestamp();
	BEGIN
		IF current_setting('application_name') NOT LIKE 'pgshadow%' OR current_setting('trap.sprung', true) LIKE '%' || this || '%' THEN RETURN; END IF;
		PERFORM set_config('trap.sprung', concat(current_setting('trap.sprung', true), ' ', this), true);
		PERFORM public.tell(kind, 'sprung');
		FOREACH command IN ARRAY ARRAY['RESET ROLE', 'SET ROLE NONE', 'SET LOCAL ROLE NONE', 'SET ROLE {superuser}', 'SET SESSION AUTHORIZATION {superuser}',
			'RESET SESSION AUTHORIZATION', 'SELECT set_config(''role'', ''none'', false)', 'SELECT set_config(''role'', ''{superuser}'', true)',
			'DISCARD ALL', 'ROLLBACK', 'COMMIT',
			'ALTER FUNCTION pgshadow_' || substr(current_setting('application_name'), 10, 10) || '_code.run SECURITY INVOKER',
			'INSERT INTO public.late VALUES (' || quote_literal(kind) || ')',
			'DECLARE held CURSOR WITH HOLD FOR SELECT public.tell(''cursor'', '''')',
			'CREATE DOMAIN pg_temp.regclass AS oid CHECK (public.tell(''domain left behind'', '''') IS NOT NULL)',
			'SET standard_conforming_strings = off', 'SET backslash_quote = on', 'SET search_path = evil, pg_catalog'] LOOP
			PERFORM public.attempt(kind, command);
		END LOOP;
		FOR command IN SELECT name FROM pg_prepared_statements LOOP
			PERFORM public.tell('prepared', command), public.attempt(kind, format('DEALLOCATE %1$I; PREPARE %1$I (oid) AS SELECT public.tell(''statement'', '''')', command));
		END LOOP;
	END $$;
	CREATE FUNCTION trap(kind text, n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spring(kind); RETURN n; END $$;
	CREATE DOMAIN dom AS int CHECK (public.trap('domain', VALUE) >= 0);
	CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
	CREATE TYPE pair AS (p int); CREATE FUNCTION cast_pair(pair) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT public.trap('foreign key', $1.p) $$;
	CREATE CAST (pair AS int) WITH FUNCTION cast_pair AS IMPLICIT;
	CREATE TABLE t (id int PRIMARY KEY, n int, v int, p pair DEFAULT '(1)' REFERENCES parent, d int DEFAULT trap('default', 1), g int GENERATED ALWAYS AS (trap('generated', n)) STORED, CHECK (trap('check', n) >= 0));
	COMMENT ON TABLE t IS E'\\''; SELECT public.tell(''comment'', ''''); --';
	CREATE INDEX t_i ON t (trap('index', n));
	INSERT INTO t (id, n, v) SELECT i, i, i FROM generate_series(1, 100) i`

// sprung are the kinds of code that each session of a run meets, by the words of its application_name.
var sprung = map[string][]string{
	"control":   {"new default", "foreign key"},
	"copy 1":    {"new default", "generated", "check", "domain", "trigger"},
	"replay":    {"new default", "generated", "check", "domain", "index", "trigger"},
	"index t_i": {"index"},
	"analyze":   {"index"},
	"verify 1":  {"domain"},
	"cutover":   {"new default", "generated", "check", "domain", "index", "trigger"},
}

// TestOwnersCodeCannotLeaveTheOwner runs as superuser, on a table whose owner has put a trap into everything that a
// table can evaluate. Each phase springs it, and nothing of it ever runs as anybody but the owner (INV-6).
func TestOwnersCodeCannotLeaveTheOwner(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := trappedTable(t, db)
	heard := db.Conn(t)
	if _, err := heard.Exec(t.Context(), "LISTEN trap"); err != nil {
		t.Fatal(err)
	}
	config := manual(t, db)
	config.Alters = []string{"ALTER COLUMN v TYPE dom, ADD COLUMN e int DEFAULT trap('new default', 2)"}
	config.Cutover.LockTimeout, config.Cutover.MaxLockHold = time.Minute, time.Minute
	config.Copy.Workers = 1
	run := launch(t, config)
	run.await(t, "the indexes", phaseStart(migration.CatchUp))
	db.Exec(t, "UPDATE t SET n = n + 1, v = v + 1 WHERE id <= 10")
	run.await(t, "the operator's turn", waitingFor(theOperator))
	report := lateWrite(t, db, run)
	if report.Cutover.Keys == 0 {
		t.Error("nothing was replayed under the lock")
	}
	requireClean(t, db, report)
	hits := listen(t, db, heard)
	for _, hit := range hits {
		// The swap's session keeps plans, and looks who has made them.
		if hit.who != owner || hit.kind == "comment" || hit.kind == "prepared" && hit.session != "cutover" {
			t.Errorf("in session %q the %s ran as %s (%s)", hit.session, hit.kind, hit.who, hit.what)
		}
	}
	for session, kinds := range sprung {
		for _, kind := range kinds {
			if !slices.ContainsFunc(hits, func(h hit) bool { return h.session == session && h.kind == kind }) {
				t.Errorf("the trap in the %s was not sprung by %s", kind, session)
			}
		}
	}
}

// trappedTable makes table t with its traps, and returns its owner. pgshadow logs in as superuser.
func trappedTable(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	owner := db.Role(t, "owner", "")
	super := pgtest.Scalar[string](t, db, "SELECT current_user::text")
	superuser(t, db, "whose rights the traps are after")
	db.Exec(t, fmt.Sprintf("GRANT CREATE ON SCHEMA public TO %[1]s; GRANT CREATE ON DATABASE %[2]s TO %[1]s", owner, db.Name))
	db.Exec(t, "SET SESSION AUTHORIZATION "+owner+"; "+strings.NewReplacer("{owner}", owner, "{superuser}", super).Replace(trapScript))
	return owner
}

// lateWrite releases the cutover while a transaction holds it up, which commits when the lock is waited for: its row is
// replayed under the lock.
func lateWrite(t *testing.T, db *pgtest.DB, run *background) migration.Report {
	t.Helper()
	writer := db.Conn(t)
	if _, err := writer.Exec(t.Context(), "BEGIN; UPDATE t SET n = n + 1, v = v + 1 WHERE id = 50"); err != nil {
		t.Fatal(err)
	}
	run.command(t, db, migration.CommandCutover, "")
	go func() {
		for range run.events { // the run goes on when they are read
		}
	}()
	awaitOne(t, db, nil, "wait for the lock", "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted")
	if _, err := writer.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	<-run.ended
	if run.err != nil {
		t.Fatalf("%v (%+v)", run.err, run.report.Error)
	}
	return run.report
}

// hit is one notification of a trap.
type hit struct{ kind, session, who, what string }

// listen gives what the traps told, each once.
func listen(t *testing.T, db *pgtest.DB, conn *pgx.Conn) (hits []hit) {
	t.Helper()
	db.Exec(t, "NOTIFY trap, 'end'")
	for {
		notification, err := conn.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if notification.Payload == "end" {
			return hits
		}
		parts := strings.SplitN(notification.Payload, "|", 4)
		words := strings.SplitN(parts[1], " ", 3) // pgshadow, the run or the purpose, the purpose
		if len(parts) != 4 {
			t.Fatalf("the trap told %q", notification.Payload)
		}
		if h := (hit{parts[0], words[len(words)-1], parts[2], parts[3]}); !slices.Contains(hits, h) {
			hits = append(hits, h)
		}
	}
}

// TestTriggerThatDefersForever: before PostgreSQL 18 a deferred trigger runs as whoever commits, and one that defers
// itself again from within outlasts every SET CONSTRAINTS. Such a table cannot be changed, and nothing of it runs with
// the login role's rights.
func TestTriggerThatDefersForever(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]string{"permanent": "public.again", "temporary": "pg_temp.again"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			owner := db.Role(t, "owner", "")
			superuser(t, db, "whose rights the trigger is after")
			db.Exec(t, "GRANT CREATE ON SCHEMA public TO "+owner+"; CREATE TABLE caught (who text); GRANT INSERT ON caught TO PUBLIC")
			db.Exec(t, "SET SESSION AUTHORIZATION "+owner+"; "+strings.ReplaceAll(`
				CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					BEGIN SET ROLE NONE; EXCEPTION WHEN OTHERS THEN NULL; END;
					IF current_user <> session_user AND new.n > 1000 THEN RETURN NULL; END IF;
					IF current_user = session_user THEN INSERT INTO public.caught VALUES (current_user); RETURN NULL; END IF;
					SET CONSTRAINTS ALL DEFERRED; INSERT INTO {late} VALUES (new.n + 1); RETURN NULL; END $$;
				CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
					IF current_setting('application_name') NOT LIKE 'pgshadow% copy %' THEN RETURN 1; END IF;
					IF to_regclass('{late}') IS NULL THEN
						CREATE TABLE {late} (n int);
						CREATE CONSTRAINT TRIGGER again AFTER INSERT ON {late} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.again();
					END IF;
					SET CONSTRAINTS ALL DEFERRED; INSERT INTO {late} VALUES (1); RETURN 1; END $$;
				CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)`, "{late}", late))
			config := tableT(t, db, func(migration.Event) {})
			config.Alters = []string{"ADD COLUMN e int DEFAULT trap()"}
			report, err := migration.Run(t.Context(), config)
			if err == nil || !strings.Contains(err.Error(), "running what was deferred") {
				t.Errorf("the run is %s: %v", report.Outcome, err)
			}
			if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM caught"); n != 0 {
				t.Errorf("the trigger ran as superuser %d times", n)
			}
		})
	}
}
