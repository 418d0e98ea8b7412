package schema_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// session is one like those that read the catalog: its search_path is empty.
func session(t *testing.T, db *pgtest.DB) *pgx.Conn {
	t.Helper()
	database, err := pg.Open(db.DSN)
	must(t, err)
	conn, err := database.Connect(t.Context(), "test")
	must(t, err)
	t.Cleanup(func() { _ = pg.Close(context.Background(), conn) })
	return conn
}

func load(t *testing.T, q schema.Querier, schemaName, table string) *schema.Table {
	t.Helper()
	oid, err := schema.Resolve(t.Context(), q, schemaName, table)
	must(t, err)
	return loadOID(t, q, oid)
}

func loadOID(t *testing.T, q schema.Querier, oid uint32) *schema.Table {
	t.Helper()
	facts, err := schema.Load(t.Context(), q, oid)
	must(t, err)
	return facts
}

// role creates a role, dropped with what it owns and may do at the test's end.
func role(t *testing.T, db *pgtest.DB, suffix string) string {
	t.Helper()
	name := suffix + "_" + db.Name[len(db.Name)-10:]
	db.Exec(t, "CREATE ROLE "+pg.Ident(name))
	t.Cleanup(func() { db.Exec(t, "DROP OWNED BY "+pg.Ident(name)+"; DROP ROLE "+pg.Ident(name)) })
	return name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
