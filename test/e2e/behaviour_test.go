package e2e

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// behaviourSchema has everything attached to table t that a change carries over.
const behaviourSchema = `CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 100);
	CREATE TABLE strict (id int PRIMARY KEY); INSERT INTO strict SELECT generate_series(1, 100);
	CREATE TABLE log (id serial, what text);
	CREATE TABLE t (id int PRIMARY KEY, nr serial, ident int GENERATED ALWAYS AS IDENTITY, p int REFERENCES parent ON DELETE CASCADE, s int REFERENCES strict, d int REFERENCES strict DEFERRABLE INITIALLY DEFERRED,
		who text NOT NULL DEFAULT 'nobody', v text, n int);
	INSERT INTO t (id, p, s, v, n) SELECT i, 1 + i % 50, 1 + i % 50, 'v', 100000 + i FROM generate_series(1, 1000) i;
	INSERT INTO t (id, n) VALUES (1001, 4711); SET CONSTRAINTS ALL IMMEDIATE;
	ALTER TABLE t ADD CONSTRAINT loose FOREIGN KEY (n) REFERENCES parent NOT VALID;
	CREATE TABLE cascades (t int REFERENCES t ON DELETE CASCADE); INSERT INTO cascades SELECT generate_series(1, 100);
	CREATE TABLE forgets (t int REFERENCES t ON DELETE SET NULL); INSERT INTO forgets SELECT generate_series(1, 100);
	CREATE TABLE restricts (t int REFERENCES t ON DELETE RESTRICT); INSERT INTO restricts VALUES (500);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.log (what) VALUES (TG_NAME || ' ' || TG_OP || ' ' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME); RETURN NULL; END $$;
	CREATE FUNCTION many() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.log (what) SELECT 'many ' || string_agg(o.v || '>' || n.v, ' ' ORDER BY o.id) FROM before o JOIN after n USING (id); RETURN NULL; END $$;
	CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.t (id, n, v) VALUES (NEW.id, NULL, 'instead'); RETURN NEW; END $$;
	CREATE TRIGGER on_insert AFTER INSERT ON t FOR EACH ROW WHEN (NEW.v = 'fire') EXECUTE FUNCTION note();
	CREATE TRIGGER on_n AFTER UPDATE OF n ON t FOR EACH ROW WHEN (OLD.n IS DISTINCT FROM NEW.n) EXECUTE FUNCTION note();
	CREATE TRIGGER off AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t DISABLE TRIGGER off;
	CREATE TRIGGER replica AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE REPLICA TRIGGER replica;
	CREATE TRIGGER always AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE ALWAYS TRIGGER always;
	CREATE CONSTRAINT TRIGGER late AFTER UPDATE OF v ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TRIGGER many AFTER UPDATE ON t REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION many();
	CREATE RULE keep AS ON DELETE TO t WHERE old.v = 'kept' DO INSTEAD NOTHING;
	CREATE VIEW low AS SELECT id, v, n FROM t WHERE id < 100000 WITH CHECK OPTION;
	CREATE VIEW lower AS SELECT id, n FROM low WHERE id < 50000 WITH CASCADED CHECK OPTION;
	CREATE VIEW counts AS SELECT n AS id, count(*) AS c FROM lower GROUP BY n;
	CREATE TRIGGER instead INSTEAD OF INSERT ON counts FOR EACH ROW EXECUTE FUNCTION instead();
	CREATE VIEW ruled AS SELECT id, v FROM t; CREATE RULE put AS ON INSERT TO ruled DO INSTEAD INSERT INTO t (id, v) VALUES (new.id, 'by rule');
	ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON t USING (who = current_user OR n = 0) WITH CHECK (who = current_user AND n < 100);
	GRANT USAGE ON SCHEMA public TO {role}_ann, {role}_bob; GRANT USAGE ON SEQUENCE t_nr_seq TO {role}_ann; GRANT SELECT (id, who, v, n), UPDATE (v), INSERT (id, who, n) ON t TO {role}_ann; GRANT SELECT, DELETE ON t TO {role}_bob;
	UPDATE t SET who = '{role}_ann', n = 5 WHERE id BETWEEN 601 AND 610; TRUNCATE log;
	CREATE PUBLICATION theirs FOR TABLE t WITH (publish = 'insert, update, delete')`

// step is something that is done to the table after the change, and what comes of it: rows,
// or a SQLSTATE; empty: whatever comes of it after a plain ALTER TABLE.
type step struct{ what, role, sql, want string }

// behaviour is what each attached object does, whatever has put the table there.
var behaviour = []step{
	{what: "an insert through views", sql: "INSERT INTO lower VALUES (2000, NULL); SELECT id FROM t WHERE id = 2000", want: "2000\n"},
	{what: "CHECK OPTION", sql: "INSERT INTO low (id) VALUES (100001)", want: "44000"},
	{what: "CHECK OPTION of a view of a view", sql: "INSERT INTO lower (id) VALUES (60000)", want: "44000"},
	{what: "INSTEAD OF trigger", sql: "INSERT INTO counts (id) VALUES (2001); SELECT v FROM t WHERE id = 2001", want: "instead\n"},
	{what: "INSTEAD rule of a view", sql: "INSERT INTO ruled VALUES (2002, 'x'); SELECT v FROM t WHERE id = 2002", want: "by rule\n"},
	{what: "rule", sql: "UPDATE t SET v = 'kept' WHERE id = 300; DELETE FROM t WHERE id IN (300, 301); SELECT id FROM t WHERE id IN (300, 301)", want: "300\n"},
	{what: "a parent's row goes", sql: "DELETE FROM parent WHERE id = 50; SELECT count(*) FROM t WHERE p = 50", want: "0\n"},
	{what: "a row goes, and its children", sql: "DELETE FROM t WHERE id = 10; SELECT count(*) FROM cascades WHERE t = 10; SELECT count(*) FROM forgets WHERE t IS NULL", want: "0\n3\n"},
	{what: "a child refuses", sql: "DELETE FROM t WHERE id = 500"}, // 18 has another SQLSTATE than those before it
	{what: "a child without a row", sql: "INSERT INTO cascades VALUES (77777)", want: "23503"},
	{what: "a child of a new row", sql: "INSERT INTO t (id) VALUES (2100); INSERT INTO cascades VALUES (2100); INSERT INTO forgets VALUES (2100); SELECT count(*) FROM cascades WHERE t = 2100", want: "1\n"},
	{what: "a row without a parent", sql: "UPDATE t SET p = 7777 WHERE id = 20", want: "23503"},
	{what: "a parent that is needed", sql: "DELETE FROM strict WHERE id = 3", want: "23503"},
	{what: "a deferred key, made good", sql: "BEGIN; UPDATE t SET d = 200 WHERE id = 20; INSERT INTO strict VALUES (200); COMMIT; SELECT d FROM t WHERE id = 20", want: "200\n"},
	{what: "a deferred key, not made good", sql: "BEGIN; UPDATE t SET d = 201 WHERE id = 20; SELECT 'so far'; COMMIT", want: "23503"},
	{what: "a key that is not valid", sql: "UPDATE t SET n = 4712 WHERE id = 20", want: "23503"},
	{what: "what it does not look at", sql: "UPDATE t SET v = 'old' WHERE id = 1001; SELECT n FROM t WHERE id = 1001", want: "4711\n"},
	{what: "which keys are valid", sql: "SELECT string_agg(conname || ' ' || convalidated, ', ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
		want: "cascades_t_fkey true, forgets_t_fkey true, loose false, restricts_t_fkey true, t_d_fkey true, t_p_fkey true, t_s_fkey true\n"},
	{what: "triggers of an insert", sql: "TRUNCATE log; INSERT INTO t (id, v) VALUES (2200, 'fire'), (2201, 'no'); SELECT string_agg(what, ', ' ORDER BY id) FROM log", want: "on_insert INSERT public.t\n"},
	{what: "triggers in a replica", sql: "TRUNCATE log; SET session_replication_role = replica; INSERT INTO t (id, v) VALUES (2203, 'fire'); DELETE FROM t WHERE id = 2203; RESET session_replication_role; SELECT string_agg(what, ', ' ORDER BY id) FROM log",
		want: "replica INSERT public.t, always DELETE public.t\n"},
	{what: "UPDATE OF and WHEN", sql: "TRUNCATE log; UPDATE t SET n = n WHERE id = 40; UPDATE t SET who = 'x' WHERE id = 44; SELECT count(*) FROM log WHERE what LIKE 'on_n%'; UPDATE t SET n = 41 WHERE id = 45; SELECT count(*) FROM log WHERE what LIKE 'on_n%'", want: "0\n1\n"},
	{what: "a constraint trigger", sql: "TRUNCATE log; BEGIN; UPDATE t SET v = 'l' WHERE id = 41; SELECT count(*) FROM log WHERE what LIKE 'late%'; COMMIT; SELECT count(*) FROM log WHERE what LIKE 'late%'", want: "0\n1\n"},
	{what: "transition tables", sql: "TRUNCATE log; UPDATE t SET v = 'w' || id WHERE id IN (42, 43); SELECT what FROM log WHERE what LIKE 'many%'", want: "many v>w42 v>w43\n"},
	{what: "a policy", role: "ann", sql: "SELECT count(*) FROM t; UPDATE t SET v = 'hers'; INSERT INTO t (id, who, n) VALUES (2300, current_user, 7); SELECT count(*) FROM t", want: "10\n11\n"},
	{what: "a policy hides", role: "bob", sql: "SELECT count(*) FROM t; DELETE FROM t", want: "0\n"},
	{what: "a policy checks", role: "ann", sql: "INSERT INTO t (id, who, n) VALUES (2301, current_user, 100)", want: "42501"},
	{what: "grants of columns", role: "ann", sql: "SELECT p FROM t", want: "42501"},
	{what: "grants of columns to write", role: "ann", sql: "UPDATE t SET n = 1", want: "42501"},
	{what: "grants of the table", role: "bob", sql: "INSERT INTO t (id) VALUES (2302)", want: "42501"},
	{what: "serial and identity", sql: "INSERT INTO t (id) VALUES (2400) RETURNING nr > 1001, ident > 1001; INSERT INTO t (id, ident) VALUES (2401, 1)", want: "428C9"},
	{what: "what serial and identity gave", sql: "INSERT INTO t (id) VALUES (2402), (2403); SELECT nr, ident FROM t WHERE id >= 2400"},
}

// do carries the step out and says what came of it.
func (s step) do(t *testing.T, conn *pgx.Conn, roles string) string {
	t.Helper()
	sql := s.sql
	if s.role != "" {
		sql = "SET ROLE " + roles + "_" + s.role + "; " + sql + "; RESET ROLE"
	}
	got, err := text(t.Context(), conn, sql)
	if err != nil {
		return sqlState(err)
	}
	return got
}

// TestEverythingAttachedWorks: what hangs on the table acts on the new one as it did, and as
// it does after a plain ALTER TABLE; the retired table takes no part, and may go.
func TestEverythingAttachedWorks(t *testing.T) {
	t.Parallel()
	shadowed, plain := pgtest.New(t), pgtest.New(t)
	shadowed.Role(t, "ann", "")
	shadowed.Role(t, "bob", "")
	setup := strings.ReplaceAll(behaviourSchema, "{role}", shadowed.Name)
	shadowed.Exec(t, setup)
	plain.Exec(t, setup)
	dsn := login(t, shadowed)
	reown(t, plain, shadowed.Name+"_owner")
	const alter = "ALTER COLUMN p TYPE bigint, ADD COLUMN x int"
	plain.Exec(t, "ALTER TABLE t "+alter)
	subscriber := subscribe(t, shadowed, "theirs")
	report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t", Alters: []string{alter}, Observer: migration.ObserverFunc(func(event migration.Event) {
		logEvent(t, event)
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
			shadowed.Exec(t, "UPDATE t SET v = 'before the swap' WHERE id = 999")
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "publication theirs goes on with the new table") {
		t.Errorf("the warnings are %q, want that of the publication alone", report.Warnings)
	}
	plain.Exec(t, "UPDATE t SET v = 'before the swap' WHERE id = 999")
	subscriber.require(t, "U public.t")
	shadowed.Exec(t, "INSERT INTO t (id) VALUES (5000); UPDATE t SET v = 'after' WHERE id = 5000; DELETE FROM t WHERE id = 5000")
	plain.Exec(t, "INSERT INTO t (id) VALUES (5000); UPDATE t SET v = 'after' WHERE id = 5000; DELETE FROM t WHERE id = 5000")
	shadowed.Exec(t, "UPDATE "+report.RetiredTable+" SET v = 'nobody hears of it' WHERE id = 1; INSERT INTO "+report.RetiredTable+" (id, nr, p) VALUES (7777, 7777, 7777)")
	subscriber.require(t, "I public.t", "U public.t", "D public.t")

	ours, theirs := shadowed.Conn(t), plain.Conn(t)
	for _, s := range behaviour {
		got, want := s.do(t, ours, shadowed.Name), s.do(t, theirs, shadowed.Name)
		if got != want || s.want != "" && got != s.want {
			t.Errorf("%s: got %q, want %q; after a plain ALTER TABLE it is %q", s.what, got, s.want, want)
		}
	}
	if _, err := migration.Finish(t.Context(), dsn, "t"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"INSERT INTO t (id, p, v) VALUES (6000, 1, 'fire') RETURNING nr, ident", "DELETE FROM parent WHERE id = 2", "SELECT count(*) FROM counts"} {
		last := step{sql: sql}
		if got, want := last.do(t, ours, ""), last.do(t, theirs, ""); got != want {
			t.Errorf("without the retired table, %s gives %q; after a plain ALTER TABLE %q", sql, got, want)
		}
	}
	const rows = "SELECT string_agg(t::text, E'\n' ORDER BY id) FROM t"
	if got, want := pgtest.Scalar[string](t, shadowed, rows), pgtest.Scalar[string](t, plain, rows); got != want {
		t.Errorf("the rows differ from those after a plain ALTER TABLE:\n%s", lineDiff(want, got))
	}
	if got, want := pgtest.Dump(t, shadowed), pgtest.Dump(t, plain); got != want {
		t.Errorf("the dump differs from that after a plain ALTER TABLE:\n%s", lineDiff(want, got))
	}
}

// subscriber reads a publication of the user's own, through a slot.
type subscriber struct {
	db                *pgtest.DB
	slot, publication string
	relations         map[uint32]string
}

func subscribe(t *testing.T, db *pgtest.DB, publication string) *subscriber {
	t.Helper()
	s := &subscriber{db: db, slot: "subscriber_" + db.Name, publication: publication, relations: map[uint32]string{}}
	s.slot = s.slot[:min(len(s.slot), 63)]
	db.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", s.slot)
	return s
}

// require fails unless just these changes have come since the last time: the letter of the
// message, and the table by the name under which it was published.
func (s *subscriber) require(t *testing.T, want ...string) {
	t.Helper()
	messages := pgtest.Scalar[[][]byte](t, s.db, "SELECT coalesce(array_agg(data ORDER BY lsn), '{}') FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)", s.slot, s.publication)
	var got []string
	for _, message := range messages {
		switch kind := message[0]; kind {
		case 'R': // OID, namespace, name
			names := strings.SplitN(string(message[5:]), "\x00", 3)
			s.relations[binary.BigEndian.Uint32(message[1:])] = names[0] + "." + names[1]
		case 'I', 'U', 'D', 'T':
			got = append(got, string(kind)+" "+s.relations[binary.BigEndian.Uint32(message[1:])])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the subscriber got %q, want %q", got, want)
	}
}

// dependents use the column whose type is to change: PostgreSQL refuses a plain ALTER.
const dependents = `CREATE VIEW one AS SELECT id, v FROM t WHERE id > 0 WITH LOCAL CHECK OPTION; CREATE VIEW two WITH (security_barrier) AS SELECT id + 1 AS next, id FROM one;
	CREATE VIEW three AS SELECT two.id, max(next) AS top FROM two JOIN t USING (id) GROUP BY two.id; COMMENT ON COLUMN three.top IS 'the top'; GRANT SELECT ON three TO {role}_ann;
	CREATE POLICY evens ON t TO {role}_ann USING (id % 2 = 0);
	CREATE TRIGGER fire BEFORE UPDATE OF id ON t FOR EACH ROW WHEN (OLD.id < NEW.id) EXECUTE FUNCTION up();
	CREATE RULE also AS ON INSERT TO t WHERE new.id > 100000 DO ALSO INSERT INTO big VALUES (new.id);
	ALTER TABLE one OWNER TO {role}_owner; ALTER TABLE two OWNER TO {role}_owner; ALTER TABLE three OWNER TO {role}_owner`

// TestTypeOfAColumnThatOthersUse: the result is that of dropping all that uses it, the plain
// ALTER TABLE, and making it again.
func TestTypeOfAColumnThatOthersUse(t *testing.T) {
	t.Parallel()
	shadowed, plain := pgtest.New(t), pgtest.New(t)
	shadowed.Role(t, "ann", "")
	in := func(sql string) string { return strings.ReplaceAll(sql, "{role}", shadowed.Name) }
	setup := `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 1000) i; CREATE TABLE child (t int REFERENCES t ON UPDATE CASCADE); INSERT INTO child VALUES (7); CREATE TABLE big (id bigint);
		ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO {role}_ann; CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v || OLD.id; RETURN NEW; END'`
	shadowed.Exec(t, in(setup))
	plain.Exec(t, in(setup))
	dsn := login(t, shadowed)
	reown(t, plain, shadowed.Name+"_owner")
	shadowed.Exec(t, in(dependents))
	plain.Exec(t, in(dependents))
	const alter = "ALTER COLUMN id TYPE bigint"
	if _, err := plain.Conn(t).Exec(t.Context(), "ALTER TABLE t "+alter); pg.Server(err) == nil || pg.Server(err).Code != "0A000" {
		t.Errorf("the plain ALTER TABLE: %v", err)
	}
	plain.Exec(t, in("DROP VIEW one, two, three; DROP POLICY evens ON t; DROP TRIGGER fire ON t; DROP RULE also ON t; ALTER TABLE t "+alter+"; "+dependents))
	report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t", Alters: []string{alter}})
	if err != nil {
		t.Fatalf("%v (%+v)", err, report.Error)
	}
	if got, want := pgtest.Dump(t, shadowed), pgtest.Dump(t, plain); got != want {
		t.Errorf("the dump differs from that of dropping, altering and making again:\n%s", lineDiff(want, got))
	}
	ours, theirs := shadowed.Conn(t), plain.Conn(t)
	for _, s := range []step{
		{what: "the policy", role: "ann", sql: "SELECT count(*), min(id) FROM t", want: "500|2\n"},
		{what: "the view of a view of a view", role: "ann", sql: "SELECT count(*), max(top), pg_typeof(max(top)) FROM three", want: "1000|1001|bigint\n"},
		{what: "an insert through a view", sql: "INSERT INTO one VALUES (3000000000, 'big'); SELECT t.id, big.id FROM t, big WHERE v = 'big'", want: "3000000000|3000000000\n"},
		{what: "the view's check", sql: "INSERT INTO one VALUES (-1)", want: "44000"},
		{what: "the trigger, and the child", sql: "UPDATE t SET id = 5000 WHERE id = 7; UPDATE t SET id = 6 + 1 WHERE id = 5000; SELECT v FROM t WHERE id = 7; SELECT t FROM child", want: "v7\n7\n"},
	} {
		got, want := s.do(t, ours, shadowed.Name), s.do(t, theirs, shadowed.Name)
		if got != want || got != s.want {
			t.Errorf("%s: got %q, want %q; with the plain ALTER TABLE it is %q", s.what, got, s.want, want)
		}
	}
}
