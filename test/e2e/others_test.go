package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// othersTables are tables whose policies and rules are to speak of table t.
const othersTables = `CREATE TABLE t (id int PRIMARY KEY, who text, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT i, '{role}_ann' FROM generate_series(1, 10) i;
	CREATE TABLE doc (id int PRIMARY KEY, t int); INSERT INTO doc SELECT i, i FROM generate_series(1, 20) i; CREATE TABLE note (t int); INSERT INTO note SELECT generate_series(1, 20); CREATE TABLE audit (t int);
	ALTER TABLE doc ENABLE ROW LEVEL SECURITY; ALTER TABLE note ENABLE ROW LEVEL SECURITY; CREATE VIEW apart AS SELECT 1 AS id;
	GRANT USAGE ON SCHEMA public TO {role}_ann; GRANT SELECT ON t, doc, note TO {role}_ann; GRANT INSERT ON doc, audit TO {role}_ann; GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role}_other;
	GRANT ALL ON SCHEMA public TO {role}_other; ALTER TABLE doc OWNER TO {role}_other; ALTER TABLE audit OWNER TO {role}_other; ALTER VIEW apart OWNER TO {role}_other`

// others are on columns of which PostgreSQL does not let a plain ALTER TABLE change the type.
const others = `CREATE VIEW seen AS SELECT id, n FROM t; ALTER VIEW seen OWNER TO {role}_owner; GRANT SELECT ON seen TO {role}_ann; CREATE POLICY theirs ON doc FOR SELECT USING (EXISTS (SELECT FROM t WHERE t.id = doc.t AND t.who = current_user)); CREATE POLICY puts ON doc FOR INSERT WITH CHECK (doc.t IN (SELECT id FROM t WHERE n < 5));
	CREATE POLICY via ON note USING (t IN (SELECT id FROM seen)); COMMENT ON POLICY via ON note IS 'by the view';
	CREATE RULE counts AS ON INSERT TO audit DO ALSO (UPDATE t SET n = n + 1 WHERE id = new.t; INSERT INTO doc VALUES (1000 + new.t, new.t));
	CREATE RULE off AS ON DELETE TO audit DO INSTEAD DELETE FROM t; ALTER TABLE audit DISABLE RULE off; CREATE RULE put AS ON INSERT TO apart DO INSTEAD INSERT INTO t VALUES (new.id, 'by rule')`

// TestOthersSpeakOfTheNewTable: policies and rules of other tables act on the new
// table; the result is that of dropping them, the plain ALTER TABLE, and making them
// again. Nothing speaks of the retired table, which may go.
func TestOthersSpeakOfTheNewTable(t *testing.T) {
	t.Parallel()
	shadowed, plain := pgtest.New(t), pgtest.New(t)
	shadowed.Role(t, "ann", "")
	shadowed.Role(t, "other", "")
	in := func(sql string) string { return strings.ReplaceAll(sql, "{role}", shadowed.Name) }
	shadowed.Exec(t, in(othersTables))
	plain.Exec(t, in(othersTables))
	dsn := login(t, shadowed)
	reown(t, plain, shadowed.Name+"_owner")
	shadowed.Exec(t, in(others))
	plain.Exec(t, in("ALTER TABLE t ALTER COLUMN id TYPE bigint; "+others))
	report := mustRun(t, migration.Config{DSN: dsn, Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}})
	if got, want := pgtest.Dump(t, shadowed), pgtest.Dump(t, plain); got != want {
		t.Errorf("the dump differs from that of dropping, altering and making again:\n%s", lineDiff(want, got))
	}
	shadowed.Exec(t, "UPDATE "+report.RetiredTable+" SET who = 'nobody'")
	ours, theirs := shadowed.Conn(t), plain.Conn(t)
	for _, s := range []step{
		{what: "a policy", role: "ann", sql: "SELECT count(*) FROM doc", want: "10\n"},
		{what: "a policy after a row has come and another gone", sql: "INSERT INTO t VALUES (15, '{role}_ann'); DELETE FROM t WHERE id IN (2, 3); SET ROLE {role}_ann; SELECT string_agg(id::text, ' ' ORDER BY id) FROM doc; RESET ROLE", want: "1 4 5 6 7 8 9 10 15\n"},
		{what: "a policy of a view", role: "ann", sql: "SELECT string_agg(t::text, ' ' ORDER BY t) FROM note", want: "1 4 5 6 7 8 9 10 15\n"},
		{what: "a policy checks", role: "ann", sql: "INSERT INTO doc VALUES (21, 2)", want: "42501"},
		{what: "and lets pass", role: "ann", sql: "INSERT INTO doc VALUES (22, 15); SELECT t FROM doc WHERE id = 22", want: "15\n"},
		{what: "a rule with two actions", sql: "INSERT INTO audit VALUES (4); SELECT n FROM t WHERE id = 4; SELECT t FROM doc WHERE id = 1004", want: "1\n4\n"},
		{what: "a rule that is off", sql: "DELETE FROM audit; SELECT count(*) FROM audit, t", want: "0\n"},
		{what: "a rule of a view", sql: "INSERT INTO apart VALUES (3000); SELECT who FROM t WHERE id = 3000", want: "by rule\n"},
	} {
		s.sql = in(s.sql)
		got, want := s.do(t, ours, shadowed.Name), s.do(t, theirs, shadowed.Name)
		if got != want || got != s.want {
			t.Errorf("%s: got %q, want %q; with the plain ALTER TABLE it is %q", s.what, got, s.want, want)
		}
	}
	if _, err := migration.Finish(t.Context(), dsn, "t"); err != nil {
		t.Error(err)
	}
}

// TestOthersOfRetiredTables: a table that was changed before speaks of t, and so does
// its retired one, which neither holds up a change of t nor keeps t's own retired
// table from going.
func TestOthersOfRetiredTables(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE doc (id int PRIMARY KEY, t int); INSERT INTO doc VALUES (1, 1);
		CREATE POLICY p ON doc USING (t IN (SELECT id FROM t)); CREATE RULE r AS ON DELETE TO doc DO ALSO DELETE FROM t WHERE id = old.t`)
	dsn := login(t, db)
	mustRun(t, migration.Config{DSN: dsn, Table: "doc", Alters: []string{"ALTER COLUMN t TYPE bigint"}})
	report := mustRun(t, migration.Config{DSN: dsn, Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}})
	if removed, err := migration.Finish(t.Context(), dsn, "t"); err != nil || len(removed) != 1 || removed[0].RunID != report.RunID {
		t.Errorf("finishing: %+v, %v", removed, err)
	}
	if removed, err := migration.Finish(t.Context(), dsn, "doc"); err != nil || len(removed) != 1 {
		t.Errorf("finishing: %+v, %v", removed, err)
	}
	db.Exec(t, "DELETE FROM doc")
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM t"); n != 0 {
		t.Error("the rule does not act on the new table")
	}
}

// TestOthersChangeMeanwhile: a policy of another table that comes to speak of the
// table ends the run, by name.
func TestOthersChangeMeanwhile(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100); CREATE TABLE doc (id int)")
	dsn := login(t, db)
	report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}, Observer: migration.ObserverFunc(func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
			db.Exec(t, `CREATE POLICY "late one" ON doc USING (EXISTS (SELECT FROM t))`)
		}
	})})
	if !errors.Is(err, replication.ErrChanged) || !strings.Contains(err.Error(), `policy "late one" on public.doc was created`) {
		t.Errorf("%v, report %+v", err, report)
	}
}

// TestOthersLockedUpFront notes the cutover's locks: that on a table whose policy or
// rule is made again is had before anything is changed.
func TestOthersLockedUpFront(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100); CREATE VIEW seen AS SELECT id FROM t; CREATE TABLE doc (id int); CREATE TABLE audit (id int); CREATE VIEW apart AS SELECT 1 AS id; CREATE TABLE joint (id int) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF joint DEFAULT;
		CREATE POLICY p ON doc USING (id IN (SELECT id FROM seen)); CREATE RULE r AS ON INSERT TO audit DO ALSO DELETE FROM t; CREATE RULE r AS ON INSERT TO apart DO INSTEAD DELETE FROM t; CREATE POLICY p ON joint USING (id IN (SELECT id FROM t)); CREATE POLICY p ON leaf USING (id IN (SELECT id FROM t))`)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}}
	noteLocks(t, db)
	mustRun(t, config)
	const want = "apart AccessExclusiveLock, audit AccessExclusiveLock, doc AccessExclusiveLock, joint AccessExclusiveLock, leaf AccessExclusiveLock, seen AccessExclusiveLock, t AccessExclusiveLock"
	if got := lockedUpFront(t, db); got != want {
		t.Errorf("locked up front: %s, want %s", got, want)
	}
	if got := lockedLater(t, db); got != "" {
		t.Errorf("locked later: %s", got)
	}
}

// TestOthersCodeCannotLeaveItsOwner: to read a policy, a rule or a view again runs code
// of its owner: a literal of an array of a domain is checked by the domain's function.
// It gets the rights of neither the login role nor the table's owner.
func TestOthersCodeCannotLeaveItsOwner(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dsn := superuser(t, db, "whose rights the code is after")
	owner, stranger := db.Role(t, "owner", ""), db.Role(t, "stranger", "")
	in := func(sql string) string {
		return strings.NewReplacer("{owner}", owner, "{stranger}", stranger).Replace(sql)
	}
	db.Exec(t, in(`GRANT ALL ON SCHEMA public TO {owner}, {stranger}; CREATE TABLE caught (who text, session text); GRANT INSERT ON caught TO PUBLIC; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO {owner};
		GRANT ALL ON t TO {stranger}`))
	db.Exec(t, in(`SET SESSION AUTHORIZATION {stranger};
		CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN BEGIN EXECUTE 'SET ROLE NONE'; EXCEPTION WHEN OTHERS THEN NULL; END;
			INSERT INTO public.caught VALUES (current_user, current_setting('application_name')); RETURN NULL; END $$;
		CREATE TABLE late (n int); CREATE CONSTRAINT TRIGGER later AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later();
		CREATE FUNCTION trap(n int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN BEGIN EXECUTE 'SET ROLE NONE'; EXCEPTION WHEN OTHERS THEN NULL; END;
			INSERT INTO public.caught VALUES (current_user, current_setting('application_name')); SET search_path = nowhere; SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.late VALUES (1); RETURN true; END $$;
		CREATE DOMAIN trapped AS int CHECK (public.trap(value)); CREATE TABLE doc (id int); CREATE TABLE audit (id int);
		CREATE POLICY p ON doc USING (EXISTS (SELECT FROM t WHERE id = ANY ('{1,2}'::trapped[]::int[]))); CREATE RULE r AS ON INSERT TO public.audit DO ALSO DELETE FROM public.t WHERE id = ANY ('{1,2}'::public.trapped[]::int[]);
		CREATE VIEW public.w AS SELECT id FROM public.t WHERE id = ANY ('{1,2}'::public.trapped[]::int[])`))
	db.Exec(t, "TRUNCATE caught")
	mustRun(t, migration.Config{DSN: dsn, Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}})
	if got := pgtest.Scalar[string](t, db, "SELECT coalesce(string_agg(DISTINCT who, ', '), 'nobody') FROM caught"); got != stranger {
		t.Errorf("the code ran as %s", got)
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM caught WHERE session LIKE 'pgshadow % cutover'"); n < 6 {
		t.Errorf("in the cutover it ran %d times", n)
	}
}

// TestOthersOfTheMoment: a temporary table is its own session's, and nobody else can
// make a rule on it again.
func TestOthersOfTheMoment(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY)")
	dsn := login(t, db)
	conn := db.Conn(t)
	for _, sql := range []string{"CREATE RULE r AS ON INSERT TO mine DO ALSO DELETE FROM public.t", "CREATE POLICY r ON mine USING (EXISTS (SELECT FROM public.t))", "CREATE VIEW pg_temp.r AS SELECT id FROM public.t"} {
		if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE mine (id int); "+sql); err != nil {
			t.Fatal(err)
		}
		report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t"})
		if err == nil || report.Outcome != migration.Refused || report.Error.Check != "dependent object" || !strings.Contains(report.Error.Message, "r on") && !strings.Contains(report.Error.Message, ".r") {
			t.Errorf("%s: %v, report %+v", sql, err, report.Error)
		}
		if _, err := conn.Exec(t.Context(), "DISCARD TEMP"); err != nil {
			t.Fatal(err)
		}
	}
}
