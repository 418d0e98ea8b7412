package schema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// obstacles lists what keeps a table from being replaced, as "check: object".
func obstacles(t *testing.T, q schema.Querier, oid uint32) []string {
	t.Helper()
	all, err := schema.LoadObstacles(t.Context(), q, oid)
	must(t, err)
	var lines []string
	for _, a := range all {
		lines = append(lines, a.Check+": "+a.Object)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// TestObstacles attaches one thing after another to a table with odd names,
// finds just that, and takes it off again.
func TestObstacles(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE SCHEMA "S x"; CREATE TABLE "S x"."T t" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "n n" int UNIQUE, s serial, CHECK (id > 0));
		CREATE INDEX ON "S x"."T t" (("n n" + 1)); CREATE STATISTICS "S x".st ON id, "n n" FROM "S x"."T t";
		CREATE TABLE "S x".other (id int, o int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	conn := session(t, db)
	oid := load(t, conn, "S x", "T t").OID
	if got := obstacles(t, conn, oid); len(got) != 0 {
		t.Fatalf("the bare table has %v", got)
	}
	for _, c := range []struct{ attach, want, detach string }{
		{`CREATE VIEW w AS SELECT nextval('"S x"."T t_id_seq"')`, `dependent object: rule _RETURN on view public.w`, `DROP VIEW w`},
		{`CREATE VIEW v AS SELECT id FROM "S x"."T t"; CREATE FUNCTION g() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM v; END`, `function: public.g()`, `DROP FUNCTION g; DROP VIEW v`},
		{`CREATE VIEW v AS SELECT id FROM "S x"."T t"; CREATE FUNCTION g(v) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `row type user: function public.g(public.v)`, `DROP FUNCTION g; DROP VIEW v`},
		{`CREATE VIEW v AS SELECT id FROM "S x"."T t"; CREATE MATERIALIZED VIEW mv AS SELECT * FROM v`, `materialized view: public.mv`, `DROP VIEW v CASCADE`},
		{`CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM "S x"."T t"`, `materialized view: public.mv`, `DROP MATERIALIZED VIEW mv`},
		{`CREATE TABLE child (n int REFERENCES "S x"."T t"); ALTER TABLE child DISABLE TRIGGER ALL`, `disabled constraint trigger: of child_n_fkey on public.child`, `DROP TABLE child`},
		{`ALTER TABLE "S x"."T t" ADD CONSTRAINT up FOREIGN KEY (id) REFERENCES "S x".other (o); ALTER TABLE "S x"."T t" DISABLE TRIGGER ALL`, `disabled constraint trigger: of up on "S x"."T t"`, `ALTER TABLE "S x"."T t" DROP CONSTRAINT up`},
		{`CREATE TABLE child () INHERITS ("S x"."T t")`, `inheritance: public.child`, `DROP TABLE child`},
		{`CREATE TABLE parent (id int NOT NULL); ALTER TABLE "S x"."T t" INHERIT parent`, `inheritance: public.parent`, `ALTER TABLE "S x"."T t" NO INHERIT parent; DROP TABLE parent`},
		{`SELECT pg_create_logical_replication_slot('test_decoding_' || md5(current_database()), 'test_decoding'); SELECT pg_create_logical_replication_slot('pgshadow_' || md5(current_database()), 'pgoutput'); CREATE PUBLICATION everything FOR ALL TABLES`, ``, `DROP PUBLICATION everything`},
		{`CREATE PUBLICATION pgshadow_run FOR TABLE "S x"."T t"`, ``, `DROP PUBLICATION pgshadow_run`},
		{`CREATE TABLE holder (x "S x"."T t")`, `row type user: column x of table public.holder`, `DROP TABLE holder`},
		{`CREATE TABLE holder (x "S x"."T t"[])`, `row type user: column x of table public.holder`, `DROP TABLE holder`},
		{`CREATE FUNCTION g(x "S x"."T t") RETURNS int LANGUAGE sql AS 'SELECT 1'`, `row type user: function public.g("S x"."T t")`, `DROP FUNCTION g`},
		{`CREATE FUNCTION g() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM "S x"."T t"; END`, `function: public.g()`, `DROP FUNCTION g`},
		{`CREATE TABLE taker (n int DEFAULT nextval('"S x"."T t_id_seq"'))`, `dependent object: default value for column n of table public.taker`, `DROP TABLE taker`},
		{`CREATE EXTENSION citext; ALTER EXTENSION citext ADD TABLE "S x"."T t"`, `extension member: citext`, `ALTER EXTENSION citext DROP TABLE "S x"."T t"`},
	} {
		db.Exec(t, c.attach)
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if got := obstacles(t, conn, oid); !slices.Equal(got, want) {
			t.Errorf("%s\nis found as %s, want %s", c.attach, strings.Join(got, "; "), c.want)
		}
		db.Exec(t, c.detach)
	}
	if got := obstacles(t, conn, oid); len(got) != 0 {
		t.Errorf("the bare table has %v", got)
	}
}

func TestTypedTableAndPartition(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TYPE kind AS (id int); CREATE TABLE typed OF kind (PRIMARY KEY (id)); CREATE TABLE root (id int) PARTITION BY RANGE (id); CREATE TABLE leaf PARTITION OF root DEFAULT`)
	conn := session(t, db)
	for table, want := range map[string]string{"typed": "typed table: public.kind", "root": "inheritance: public.leaf"} {
		if got := obstacles(t, conn, load(t, conn, "public", table).OID); !slices.Contains(got, want) {
			t.Errorf("%s has %v, want %s", table, got, want)
		}
	}
}

// TestLeaf attaches one thing after another to the tree of a leaf: each is said to
// differ, or is an obstacle.
func TestLeaf(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE "R r" (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE sub PARTITION OF "R r" FOR VALUES FROM (0) TO (100) PARTITION BY LIST (id);
		CREATE TABLE leaf PARTITION OF sub FOR VALUES IN (1, 2); CREATE TABLE rest PARTITION OF sub DEFAULT;
		CREATE TABLE other (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	conn := session(t, db)
	bare, rest := load(t, conn, "public", "leaf"), load(t, conn, "public", "rest")
	if got := obstacles(t, conn, bare.OID); len(got) != 0 {
		t.Fatalf("the bare leaf has %v", got)
	}
	for _, c := range []struct{ sql, says, obstacle, undo string }{
		{`CREATE INDEX by_n ON ONLY sub (n)`, `index of the parent by_n was created (here none)`, ``, `DROP INDEX by_n`},
		{`ALTER TABLE rest ADD CONSTRAINT c CHECK (id > 2)`, `the table changed its default partition beside it from public.rest of postgres with , not null (id) to public.rest of postgres with CHECK ((id > 2)), not null (id)`, ``, `ALTER TABLE rest DROP CONSTRAINT c`},
		{`CREATE TRIGGER "T" BEFORE INSERT ON "R r" FOR EACH ROW EXECUTE FUNCTION f()`, `trigger of the parent "T" was created (here "T")`, ``, `DROP TRIGGER "T" ON "R r"`},
		{`ALTER TABLE sub RENAME TO subtree`, `the table changed its parent from public.sub of postgres by LIST (id) FOR VALUES FROM (0) TO (100), public."R r" of postgres by RANGE (id) to public.subtree of postgres by LIST (id) FOR VALUES FROM (0) TO (100), public."R r" of postgres by RANGE (id)`, ``, `ALTER TABLE subtree RENAME TO sub`},
		{`ALTER TABLE "R r" ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES other`, ``, `foreign key of the partitioned table: fk on public."R r"`, `ALTER TABLE "R r" DROP CONSTRAINT fk`},
		{`ALTER TABLE other ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES "R r"`, ``, `foreign key to the partitioned table: fk on public.other`, `ALTER TABLE other DROP CONSTRAINT fk`},
	} {
		db.Exec(t, c.sql)
		var says, obstacle []string
		if c.says != "" {
			says = []string{c.says}
		}
		if c.obstacle != "" {
			obstacle = []string{c.obstacle}
		}
		if got := bare.Differences(load(t, conn, "public", "leaf")); !slices.Equal(got, says) {
			t.Errorf("%s\nis said to be %q, want %q", c.sql, got, says)
		}
		if got := obstacles(t, conn, bare.OID); !slices.Equal(got, obstacle) {
			t.Errorf("%s\nis found as %q, want %q", c.sql, got, obstacle)
		}
		db.Exec(t, c.undo)
	}
	db.Exec(t, `ALTER TABLE "R r" DETACH PARTITION sub; CREATE TABLE more PARTITION OF sub FOR VALUES IN (7)`)
	if got := rest.Differences(load(t, conn, "public", "rest")); len(got) != 2 || !strings.Contains(got[1], "bounds of the partitions beside it from FOR VALUES IN (1, 2) to FOR VALUES IN (1, 2), FOR VALUES IN (7)") {
		t.Errorf("another partition beside a default one is said to be %q", got)
	}
}

// TestSubscription is of a table that a subscription writes to.
func TestSubscription(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	from, to := pgtest.NewOn(t, server), pgtest.NewOn(t, server)
	for _, db := range []*pgtest.DB{from, to} {
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY)")
	}
	from.Exec(t, "CREATE PUBLICATION p FOR TABLE t")
	from.Exec(t, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
	to.Exec(t, fmt.Sprintf("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=%d user=postgres dbname=%s' PUBLICATION p WITH (create_slot = false)", server.Port(), from.Name))
	conn := session(t, to)
	if got := obstacles(t, conn, load(t, conn, "public", "t").OID); !slices.Equal(got, []string{"subscription: s"}) {
		t.Errorf("the table has %v", got)
	}
	to.Exec(t, "DROP SUBSCRIPTION s")
}
