package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// refusal is input that is refused before anything is created.
type refusal struct {
	name   string
	setup  string // after table t(id int primary key, v text, n int) was made
	table  string // default t
	alters []string
	set    map[string]string
	check  string
	says   []string // in the message
}

var refusals = []refusal{
	{name: "no such table", table: "nowhere", check: "table", says: []string{"no table nowhere"}},
	{name: "no such schema", table: "nowhere.t", check: "table"},
	{name: "not a name", table: "a b c", check: "table", says: []string{"a b c"}},
	{name: "a view", setup: "CREATE VIEW w AS SELECT 1", table: "w", check: "table", says: []string{"public.w is a view"}},
	{name: "a partitioned table", setup: "CREATE TABLE p (id int) PARTITION BY RANGE (id)", table: "p", check: "table", says: []string{"partitioned"}},
	{name: "an unlogged table", setup: "ALTER TABLE t SET UNLOGGED", check: "unlogged"},
	{name: "a catalog", table: "pg_catalog.pg_class", check: "table"},
	{name: "no key", setup: "ALTER TABLE t DROP CONSTRAINT t_pkey", check: "key", says: []string{"no usable key"}},
	{name: "a deferrable key", setup: "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE", check: "key"},
	{name: "replica identity nothing", setup: "ALTER TABLE t REPLICA IDENTITY NOTHING", check: "replica identity"},
	{name: "syntax", alters: []string{"ALTER COLUMN v TIPE bigint"}, check: "alter", says: []string{`syntax error at or near "TIPE" at character 16`}},
	{name: "a second statement", alters: []string{"ADD COLUMN x int; DROP TABLE t"}, check: "alter", says: []string{"2 statements"}},
	{name: "another table", alters: []string{"ADD COLUMN x int, INHERIT other"}, check: "alter"},
	{name: "another table's name", alters: []string{".other ADD COLUMN x int"}, check: "alter", says: []string{"another table"}},
	{name: "a whole ALTER TABLE", alters: []string{"ALTER TABLE t ADD COLUMN x int"}, check: "alter"},
	{name: "attach a partition", alters: []string{"ATTACH PARTITION other FOR VALUES IN (1)"}, check: "alter"},
	{name: "rename the table", alters: []string{"RENAME TO u"}, check: "alter"},
	{name: "another owner", alters: []string{"OWNER TO postgres"}, check: "alter"},
	{name: "another schema", alters: []string{"SET SCHEMA other"}, check: "alter"},
	{name: "no such column", alters: []string{"ALTER COLUMN nope TYPE bigint"}, check: "alter", says: []string{`column "nope" of relation "t" does not exist`}},
	{name: "no such type", alters: []string{"ALTER COLUMN n TYPE bigint_"}, check: "alter", says: []string{`type "bigint_" does not exist`}},
	{name: "cannot be cast", alters: []string{"ALTER COLUMN v TYPE int"}, check: "alter", says: []string{"cannot be cast automatically", "USING"}},
	{name: "a foreign key", alters: []string{"ADD FOREIGN KEY (n) REFERENCES t"}, check: "foreign key"},
	{name: "a key column dropped", alters: []string{"DROP COLUMN id"}, check: "key", says: []string{`drops "id"`}},
	{name: "a key that changes its order", alters: []string{"ALTER COLUMN id TYPE text"}, check: "key", says: []string{"order"}},
	{name: "a volatile expression", alters: []string{"ALTER COLUMN n TYPE bigint USING (random() * 10)::bigint"}, check: "expression", says: []string{"random is volatile"}},
	{name: "the time in an expression", alters: []string{"ALTER COLUMN v TYPE timestamptz USING CURRENT_TIMESTAMP"}, check: "expression"},
	{name: "set of a column that is there", alters: []string{"ADD COLUMN x int"}, set: map[string]string{"n": "1"}, check: "set"},
	{name: "set of no column", alters: []string{"ADD COLUMN x int"}, set: map[string]string{"y": "1"}, check: "set"},
	{name: "set with two expressions", alters: []string{"ADD COLUMN x int"}, set: map[string]string{"x": "1, 2"}, check: "set"},
	{name: "set from a query", alters: []string{"ADD COLUMN x int"}, set: map[string]string{"x": "(SELECT 1)"}, check: "expression"},
	{name: "a name that is taken", setup: "CREATE TABLE u (i int); CREATE INDEX taken ON u (i)", alters: []string{"ADD CONSTRAINT taken UNIQUE (n)"}, check: "name", says: []string{`"taken"`}},
	{name: "a foreign key in that no longer fits", setup: "ALTER TABLE t ADD UNIQUE (v); CREATE TABLE u (x text REFERENCES t (v)); ALTER TABLE u RENAME CONSTRAINT u_x_fkey TO u_t", alters: []string{"ALTER COLUMN v TYPE int USING 1"}, check: "alter", says: []string{"u_t"}},
	{name: "a foreign key in to a key that is dropped", setup: "ALTER TABLE t ADD CONSTRAINT t_v UNIQUE (v); CREATE TABLE u (x text REFERENCES t (v))", alters: []string{"DROP CONSTRAINT t_v"}, check: "alter", says: []string{"other objects depend on it", "u_x_fkey"}},
	{name: "a view that the change breaks", setup: `CREATE VIEW "The View" AS SELECT v FROM t`, alters: []string{"DROP COLUMN v"}, check: "attached", says: []string{`"The View"`, `v`, `does not exist`}},
	{name: "a view on a view that the change breaks", setup: `CREATE VIEW a AS SELECT n AS m FROM t; CREATE VIEW b AS SELECT m + 1 AS m FROM a`, alters: []string{"ALTER COLUMN n TYPE text"}, check: "attached", says: []string{"view", "operator does not exist: text + integer"}},
	{name: "a trigger that the change breaks", setup: "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE UPDATE OF v ON t FOR EACH ROW EXECUTE FUNCTION f()",
		alters: []string{"DROP COLUMN v"}, check: "attached", says: []string{`trigger "tr"`, `column "v" of relation "t" does not exist`}},
	{name: "a policy that the change breaks", setup: "CREATE POLICY p ON t USING (n > 1)", alters: []string{"ALTER COLUMN n TYPE text"}, check: "attached", says: []string{`policy "p"`}},
	{name: "a materialized view on it", setup: "CREATE MATERIALIZED VIEW mv AS SELECT * FROM t", check: "materialized view", says: []string{"mv"}},
	{name: "a publication of all tables that a slot may send", setup: `SELECT pg_create_logical_replication_slot('{role}_1', 'pgoutput'), pg_create_logical_replication_slot('{role}_2', 'pgoutput'); CREATE PUBLICATION "all of it" FOR ALL TABLES`,
		check: "publication", says: []string{`"all of it" (FOR ALL TABLES), which slot `, "_1 may send", "_2 may send"}},
	{name: "a publication of all tables, and a copy without a replica identity", setup: "CREATE PUBLICATION pub FOR ALL TABLES", alters: []string{"DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, n)"},
		check: "publication", says: []string{"pub is FOR ALL TABLES", "no replica identity on the key"}},
	{name: "inheritance", setup: "CREATE TABLE child () INHERITS (t)", check: "inheritance", says: []string{"child"}},
	{name: "a user of the row type", setup: "CREATE TABLE u (x t)", check: "row type user", says: []string{"table public.u"}},
	{name: "a function on it", setup: "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM t; END", check: "function", says: []string{"f()"}},
	{name: "a policy of another table that the change breaks", setup: `CREATE TABLE u (i int); CREATE POLICY "p p" ON u USING (EXISTS (SELECT FROM t WHERE t.n = i))`, alters: []string{"DROP COLUMN n"}, check: "attached",
		says: []string{`policy "p p" on "public"."u" cannot speak of the changed table: column t.n does not exist`}},
	{name: "a rule of another table that the change breaks", setup: "CREATE VIEW v AS SELECT id, n AS m FROM t; CREATE TABLE u (i int); CREATE RULE r AS ON INSERT TO u DO ALSO UPDATE v SET m = new.i", alters: []string{"ALTER COLUMN n TYPE boolean USING true"}, check: "attached",
		says: []string{`rule "r" on "public"."u" cannot speak of the changed table: column "m" is of type boolean but expression is of type integer`}},
	{name: "a materialized view on a view on it", setup: "CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW mv AS SELECT * FROM v", check: "materialized view", says: []string{"mv"}},
}

// TestRefusals shows for each kind of bad input that it is refused by name, with
// a remedy, and that nothing at all was created.
func TestRefusals(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, 'v' || i, i FROM generate_series(1, 100) i")
			if r.setup != "" {
				db.Exec(t, strings.ReplaceAll(r.setup, "{role}", db.Name))
			}
			t.Cleanup(func() { dropRefusalRoles(t, db) })
			r.run(t, db)
		})
	}
}

func (r refusal) run(t *testing.T, db *pgtest.DB) {
	if r.table == "" {
		r.table = "t"
	}
	if r.alters == nil {
		r.alters = []string{"ALTER COLUMN n TYPE bigint"}
	}
	login(t, db)
	before := everything(t, db)
	report, err := migration.Run(t.Context(), migration.Config{DSN: login(t, db), Table: r.table, Alters: r.alters, Set: r.set})
	if err == nil || report.Outcome != migration.Refused || report.ExitCode != 3 || report.Error == nil {
		t.Fatalf("not refused: %v, report %+v", err, report)
	}
	if report.Error.Check != r.check || report.Error.Remedy == "" {
		t.Errorf("refused by %q with remedy %q, want check %q: %s", report.Error.Check, report.Error.Remedy, r.check, report.Error.Message)
	}
	for _, text := range r.says {
		if !strings.Contains(report.Error.Message+report.Error.Remedy, text) {
			t.Errorf("the message lacks %q: %s", text, report.Error.Message)
		}
	}
	if after := everything(t, db); after != before {
		t.Errorf("something was created or changed:\n%s", lineDiff(before, after))
	}
}

// everything lists what a refusal must leave as it was: all schemas, relations,
// publications, slots, and the dump.
func everything(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT string_agg(x, E'\n' ORDER BY x) FROM (
		SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
		UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class
		UNION ALL SELECT 'publication ' || pubname FROM pg_publication
		UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()) AS s(x)`) +
		pgtest.Dump(t, db)
}

func dropRefusalRoles(t *testing.T, db *pgtest.DB) {
	t.Helper()
	if pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_roles WHERE rolname = $1", db.Name+"_a") == 0 {
		return
	}
	for _, sql := range []string{"DROP OWNED BY {role}_a CASCADE", "DROP OWNED BY {role}_b CASCADE", "DROP ROLE {role}_a, {role}_b"} {
		db.Exec(t, strings.ReplaceAll(sql, "{role}", db.Name))
	}
}

func TestRefusesWALLevelReplica(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica"}})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int)")
	refusal{check: "wal_level", says: []string{"wal_level is replica", "ALTER SYSTEM"}}.run(t, db)
}

func TestRefusesWithoutFreeSlots(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"max_replication_slots": "1"}})
	db := pgtest.NewOn(t, server)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int)")
	db.Exec(t, "SELECT pg_create_physical_replication_slot('taken')")
	refusal{check: "max_replication_slots"}.run(t, db)
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	dsn := server.DSN("postgres")
	if err := server.Stop(pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	report, err := migration.Run(t.Context(), migration.Config{DSN: dsn, Table: "t", Alters: []string{"ADD COLUMN x int"}})
	if err == nil || report.Error == nil || !strings.Contains(report.Error.Message, "connecting to 127.0.0.1") || !strings.Contains(report.Error.State, "nothing was created") {
		t.Fatalf("%v, report %+v", err, report.Error)
	}
	if errors.Unwrap(err) == nil {
		t.Error("the error hides its cause")
	}
}
