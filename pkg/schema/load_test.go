package schema_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// rich is a table with one of each thing that a shadow must carry. {owner} and
// {reader} are roles.
const rich = `
CREATE SCHEMA "Sales"; GRANT CREATE, USAGE ON SCHEMA "Sales" TO {owner}; CREATE TYPE "Sales".mood AS ENUM ('sad', 'ok');
CREATE DOMAIN "Sales".amount AS numeric(10,2) CHECK (VALUE >= 0);
SET ROLE {owner};
CREATE TABLE "Sales"."Orders" (
  gone int,
  id int GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5 MINVALUE 5 MAXVALUE 1000 CACHE 3 CYCLE),
  region varchar(20) COLLATE "C" NOT NULL DEFAULT 'eu',
  number serial,
  price "Sales".amount,
  feeling "Sales".mood DEFAULT 'ok',
  "the ""note" text COMPRESSION pglz,
  doubled int GENERATED ALWAYS AS (number * 2) STORED,
  short char(3), flags bit varying(5)[],
  PRIMARY KEY (region, id) INCLUDE (number),
  CONSTRAINT positive CHECK (number > 0),
  CONSTRAINT once UNIQUE (number) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, toast.autovacuum_enabled = false);
ALTER TABLE "Sales"."Orders" DROP gone, ALTER region SET STATISTICS 77, ALTER region SET (n_distinct = -0.5), ALTER "the ""note" SET STORAGE EXTERNAL,
  ADD CONSTRAINT late CHECK (number < 1000) NOT VALID, ADD CONSTRAINT apart EXCLUDE USING btree (number WITH =) WHERE (number > 5);
CREATE INDEX by_number ON "Sales"."Orders" (number DESC, (number + 1) ) WITH (fillfactor = 60);
ALTER INDEX "Sales".by_number ALTER COLUMN 2 SET STATISTICS 300;
CREATE UNIQUE INDEX partly ON "Sales"."Orders" (lower(region)) WHERE number > 3;
CREATE INDEX by_hash ON "Sales"."Orders" USING hash (region);
CREATE STATISTICS "Sales".st (ndistinct) ON region, number FROM "Sales"."Orders"; ALTER STATISTICS "Sales".st SET STATISTICS 50;
ALTER TABLE "Sales"."Orders" CLUSTER ON by_number, REPLICA IDENTITY USING INDEX "Orders_pkey";
COMMENT ON TABLE "Sales"."Orders" IS 'all of it'; COMMENT ON COLUMN "Sales"."Orders".region IS 'where';
COMMENT ON INDEX "Sales".by_number IS 'by n'; COMMENT ON CONSTRAINT once ON "Sales"."Orders" IS 'it''s'; COMMENT ON STATISTICS "Sales".st IS 's';
COMMENT ON SEQUENCE "Sales"."Orders_number_seq" IS 'numbers';
GRANT SELECT ON "Sales"."Orders" TO PUBLIC; GRANT INSERT ON "Sales"."Orders" TO {reader} WITH GRANT OPTION; REVOKE TRUNCATE ON "Sales"."Orders" FROM {owner};
GRANT UPDATE (region) ON "Sales"."Orders" TO {reader}; GRANT USAGE ON SEQUENCE "Sales"."Orders_id_seq" TO {reader};
RESET ROLE`

// facts are those of the rich table; owner and reader its roles.
func facts(t *testing.T) (table *schema.Table, owner, reader string) {
	t.Helper()
	db := pgtest.New(t)
	owner, reader = role(t, db, "owner"), role(t, db, "reader")
	db.Exec(t, strings.NewReplacer("{owner}", pg.Ident(owner), "{reader}", pg.Ident(reader)).Replace(rich))
	return load(t, session(t, db), "Sales", "Orders"), owner, reader
}

func text(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func grants(all []schema.Grant, names ...string) string {
	var lines []string
	for _, g := range all {
		line := g.Privilege + " to " + g.Grantee + " by " + g.Grantor
		if g.Grantable {
			line += " with grant option"
		}
		lines = append(lines, strings.NewReplacer(names...).Replace(line))
	}
	return strings.Join(lines, "; ")
}

func requireLines(t *testing.T, what string, got []string, want string) {
	t.Helper()
	wanted := strings.Split(strings.TrimSpace(want), "\n")
	for i := range wanted {
		wanted[i] = strings.TrimSpace(wanted[i])
	}
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("the %s are\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	table, owner, reader := facts(t)
	if table.Schema != "Sales" || table.Name != "Orders" || table.Owner != owner || text(table.Comment) != "all of it" {
		t.Errorf("it is %s.%s of %s: %s", table.Schema, table.Name, table.Owner, text(table.Comment))
	}
	if got := fmt.Sprintf("%+v", table.Storage); got != "{Kind:r Persistence:p AccessMethod:heap Tablespace: Options:[fillfactor=70] ToastOptions:[autovacuum_enabled=false] ReplicaIdentity:i}" {
		t.Errorf("it is stored as %s", got)
	}
	want := "INSERT to owner by owner; SELECT to owner by owner; UPDATE to owner by owner; DELETE to owner by owner; REFERENCES to owner by owner; TRIGGER to owner by owner; SELECT to  by owner; INSERT to reader by owner with grant option"
	const sinceVersion17 = "; MAINTAIN to owner by owner"
	if got := strings.Replace(grants(table.Grants, owner, "owner", reader, "reader"), sinceVersion17, "", 1); got != want {
		t.Errorf("the grants are %s", got)
	}
	t.Run("columns", func(t *testing.T) { requireColumns(t, table, owner, reader) })
	t.Run("indexes", func(t *testing.T) { requireIndexes(t, table) })
	t.Run("the rest", func(t *testing.T) { requireRest(t, table, owner, reader) })
}

func requireColumns(t *testing.T, table *schema.Table, owner, reader string) {
	var got []string
	for _, c := range table.Columns {
		got = append(got, fmt.Sprintf("%d %s %s [%s %d %d %d] %s null %t default %s as %s %q %q", c.Attnum, c.Name, c.Type, c.BaseType, c.TypeOID/100000, c.BaseOID/100000, c.Typmod, c.Collation, !c.NotNull, text(c.Default), text(c.Expression), c.Identity, c.Generated))
	}
	requireLines(t, "columns", got, `
		2 id integer [integer 0 0 -1]  null false default - as - "a" ""
		3 region character varying(20) [character varying 0 0 24] pg_catalog."C" null false default 'eu'::character varying as - "" ""
		4 number integer [integer 0 0 -1]  null false default nextval('"Sales"."Orders_number_seq"'::regclass) as - "" ""
		5 price "Sales".amount ["Sales".amount 0 0 -1]  null true default - as - "" ""
		6 feeling "Sales".mood ["Sales".mood 0 0 -1]  null true default 'ok'::"Sales".mood as - "" ""
		7 the "note text [text 0 0 -1]  null true default - as - "" ""
		8 doubled integer [integer 0 0 -1]  null true default - as (number * 2) "" "s"
		9 short character(3) [character 0 0 7]  null true default - as - "" ""
		10 flags bit varying(5)[] [bit varying[] 0 0 5]  null true default - as - "" ""`)
	price, _ := table.Column(5)
	if price.TypeOID == price.BaseOID || price.BaseOID != schema.OIDNumeric {
		t.Errorf("under the domain %d there is %d, want numeric", price.TypeOID, price.BaseOID)
	}
	region, _ := table.Column(3)
	if got := fmt.Sprintf("%+v %s", region.Details.Options, text(region.Details.Comment)); got != "[n_distinct=-0.5] where" || region.Details.Statistics != 77 {
		t.Errorf("region has %s and statistics target %d", got, region.Details.Statistics)
	}
	if got := grants(region.Grants, owner, "owner", reader, "reader"); got != "UPDATE to reader by owner" {
		t.Errorf("region's grants are %s", got)
	}
	note, _ := table.Column(7)
	if note.Details.Storage != "e" || note.Details.Compression != "p" || note.Details.Statistics != -1 || len(note.Grants) != 0 {
		t.Errorf("the note is kept as %+v", note.Details)
	}
	if _, there := table.Column(1); there {
		t.Error("a dropped column is there")
	}
}

func requireIndexes(t *testing.T, table *schema.Table) {
	var got []string
	for _, i := range table.Indexes {
		constraint, backs := table.ConstraintOf(i)
		got = append(got, fmt.Sprintf("%s %s %s unique %t primary %t immediate %t usable %t plain %t %v %v %v %s %t %s", i.Name, i.Definition, i.Method, i.Unique, i.Primary, i.Immediate, i.Usable, i.Plain,
			i.Key, i.Marks, i.Details.Statistics, text(i.Details.Comment), backs, constraint.Name))
	}
	requireLines(t, "indexes", got, `
		Orders_pkey USING btree (region, id) INCLUDE (number) btree unique true primary true immediate true usable true plain true [3 2] {false true} map[] - true Orders_pkey
		apart USING btree (number) WHERE (number > 5) btree unique false primary false immediate true usable true plain false [4] {false false} map[] - true apart
		by_hash USING hash (region) hash unique false primary false immediate true usable true plain true [3] {false false} map[] - false
		by_number USING btree (number DESC, ((number + 1))) WITH (fillfactor='60') btree unique false primary false immediate true usable true plain false [4 0] {true false} map[2:300] by n false
		once USING btree (number) btree unique true primary false immediate false usable true plain true [4] {false false} map[] - true once
		partly USING btree (lower((region)::text)) WHERE (number > 3) btree unique true primary false immediate true usable true plain false [0] {false false} map[] - false`)
}

func requireRest(t *testing.T, table *schema.Table, owner, reader string) {
	var got, sinceVersion18 []string
	for _, c := range table.Constraints {
		if c.Type == "n" {
			sinceVersion18 = append(sinceVersion18, c.Name+" "+c.Definition)
			continue
		}
		got = append(got, fmt.Sprintf("%s %s %s valid %t deferrable %t %t %s", c.Name, c.Type, c.Definition, c.Valid, c.Deferrable, c.Deferred, text(c.Comment)))
	}
	if want := []string{"Orders_id_not_null NOT NULL id", "Orders_number_not_null NOT NULL number", "Orders_region_not_null NOT NULL region"}; sinceVersion18 != nil && !slices.Equal(sinceVersion18, want) {
		t.Errorf("the not-null constraints are %q, want %q", sinceVersion18, want)
	}
	requireLines(t, "constraints", got, `
		Orders_pkey p PRIMARY KEY (region, id) INCLUDE (number) valid true deferrable false false -
		apart x EXCLUDE USING btree (number WITH =) WHERE ((number > 5)) valid true deferrable false false -
		late c CHECK ((number < 1000)) NOT VALID valid false deferrable false false -
		once u UNIQUE (number) DEFERRABLE INITIALLY DEFERRED valid true deferrable true true it's
		positive c CHECK ((number > 0)) valid true deferrable false false -`)
	got = nil
	for _, s := range table.Statistics {
		got = append(got, fmt.Sprintf("%s.%s %s target %d %s", s.Schema, s.Name, s.Definition, s.Target, text(s.Comment)))
	}
	requireLines(t, "statistics", got, `Sales.st (ndistinct) ON region, number target 50 s`)
	got = nil
	for _, s := range table.Sequences {
		got = append(got, fmt.Sprintf("%s.%s of %d identity %t %s %d %d %d %d %d %t %s [%s]", s.Schema, s.Name, s.Attnum, s.Identity, s.Type, s.Start, s.Increment, s.Min, s.Max, s.Cache, s.Cycle,
			text(s.Comment), grants(s.Grants, owner, "owner", reader, "reader")))
	}
	const own = "SELECT to owner by owner; UPDATE to owner by owner; USAGE to owner by owner"
	requireLines(t, "sequences", got, `
		Sales.Orders_id_seq of 2 identity true integer 10 5 5 1000 3 true - [`+own+`; USAGE to reader by owner]
		Sales.Orders_number_seq of 4 identity false integer 1 1 1 2147483647 1 false numbers [`+own+`]`)
}

// TestHiddenTable: a name without a schema is the first one of the search_path.
func TestHiddenTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE SCHEMA app; CREATE SCHEMA other; CREATE TABLE public.t (id int); CREATE TABLE app.t (id int); CREATE TABLE other."T x" (id int); CREATE TABLE other.only (id int); CREATE TYPE app.row AS (a int)`)
	conn := db.Conn(t)
	_, err := conn.Exec(t.Context(), "SET search_path = app, public")
	must(t, err)
	for _, c := range []struct{ schema, name, want string }{
		{"", "t", "app.t"}, {"public", "t", "public.t"}, {"app", "t", "app.t"}, {"other", "T x", `other."T x"`},
		{"", "only", ""}, {"", "T", ""}, {"nowhere", "t", ""}, {"", "pg_class", "pg_catalog.pg_class"}, {"", "row", ""},
	} {
		oid, err := schema.Resolve(t.Context(), conn, c.schema, c.name)
		if c.want == "" {
			if !errors.Is(err, schema.ErrNoTable) {
				t.Errorf("%q.%q is %d, %v; want that there is none", c.schema, c.name, oid, err)
			}
			continue
		}
		must(t, err)
		if want := pgtest.Scalar[uint32](t, db, "SELECT $1::text::regclass::oid", c.want); oid != want {
			t.Errorf("%q.%q is %d, want %s", c.schema, c.name, oid, c.want)
		}
	}
	if _, err := schema.Load(t.Context(), conn, 1); !errors.Is(err, schema.ErrNoTable) {
		t.Errorf("loading a table that is gone returned %v", err)
	}
}

func TestServerAndRights(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, plain := role(t, db, "owner"), role(t, db, "plain")
	db.Exec(t, "CREATE SCHEMA types; CREATE TYPE types.mood AS ENUM ('ok'); CREATE DOMAIN public.moods AS types.mood[]; CREATE TABLE t (id int, m moods); ALTER TABLE t OWNER TO "+owner+"; ALTER ROLE "+plain+" LOGIN")
	conn := session(t, db)
	oid := load(t, conn, "public", "t").OID
	server, err := schema.LoadServer(t.Context(), conn, oid)
	must(t, err)
	all := schema.Rights{Replication: true, CreateOnDatabase: true, MemberOfOwner: true, SetOwner: true, InheritsOwner: true,
		OwnerCreateOnSchema: server.Rights.OwnerCreateOnSchema, RoleCreateOnSchema: true, OwnerLacks: []string{"USAGE ON SCHEMA types"}}
	if !server.Superuser || server.Role != "postgres" || server.Database != db.Name || server.InRecovery || server.WALLevel != "logical" || server.Version < 140000 ||
		server.VersionText == "" || server.FreeSlots < 1 || server.FreeSenders < 1 || !reflect.DeepEqual(server.Rights, all) {
		t.Errorf("a superuser sees %+v", server)
	}
	if !slices.Equal(server.TypeSchemas, []string{"public", "types"}) {
		t.Errorf("the types are of the schemas %v", server.TypeSchemas)
	}

	require := func(want schema.Rights) {
		t.Helper()
		conn := db.Conn(t)
		_, err := conn.Exec(t.Context(), "SET SESSION AUTHORIZATION "+plain)
		must(t, err)
		server, err := schema.LoadServer(t.Context(), conn, oid)
		must(t, err)
		if server.Role != plain || server.Superuser || !reflect.DeepEqual(server.Rights, want) {
			t.Errorf("%s may %+v, want %+v", server.Role, server.Rights, want)
		}
	}
	db.Exec(t, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	lacks := []string{"USAGE ON SCHEMA types"}
	require(schema.Rights{InheritsOwner: true, OwnerLacks: lacks})
	db.Exec(t, "ALTER ROLE "+plain+" REPLICATION; GRANT CREATE ON DATABASE "+db.Name+" TO "+plain)
	require(schema.Rights{Replication: true, CreateOnDatabase: true, InheritsOwner: true, OwnerLacks: lacks})
	db.Exec(t, "GRANT USAGE ON SCHEMA types TO "+owner)
	db.Exec(t, "GRANT "+owner+" TO "+plain+"; GRANT CREATE ON SCHEMA public TO "+owner)
	require(schema.Rights{Replication: true, CreateOnDatabase: true, MemberOfOwner: true, SetOwner: true, InheritsOwner: true, OwnerCreateOnSchema: true, RoleCreateOnSchema: true, OwnerLacks: []string{}})
	// From PostgreSQL 16 on a membership keeps the INHERIT that the role had when it was granted.
	db.Exec(t, "ALTER ROLE "+plain+" NOINHERIT; REVOKE "+owner+" FROM "+plain+"; GRANT "+owner+" TO "+plain+"; GRANT CREATE ON DATABASE "+db.Name+" TO "+owner+`; REVOKE SELECT ON t FROM `+owner+`; REVOKE USAGE ON TYPE types.mood FROM PUBLIC;
		CREATE FUNCTION types."F"(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; REVOKE EXECUTE ON FUNCTION types."F" FROM PUBLIC; ALTER TABLE t ADD CHECK (types."F"(id) > 0)`)
	require(schema.Rights{Replication: true, CreateOnDatabase: true, MemberOfOwner: true, SetOwner: true, OwnerCreateOnDatabase: true, OwnerCreateOnSchema: true,
		OwnerLacks: []string{`EXECUTE ON FUNCTION types."F"(integer)`, "SELECT ON public.t", "USAGE ON TYPE types.mood"}})
}

func TestSize(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	conn := session(t, db)
	oid := load(t, conn, "public", "t").OID
	size, err := schema.LoadSize(t.Context(), conn, oid)
	must(t, err)
	if size.EstimatedRows != 0 {
		t.Errorf("a table that was never analyzed is estimated at %+v", size)
	}
	db.Exec(t, "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 1000) i; ANALYZE t")
	size, err = schema.LoadSize(t.Context(), conn, oid)
	must(t, err)
	if size.EstimatedRows != 1000 || size.TableBytes < 100_000 || size.IndexBytes < 16_000 {
		t.Errorf("1000 rows are %+v", size)
	}
}
