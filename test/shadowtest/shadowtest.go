// Package shadowtest makes a shadow table and its plan the way a run does, for the tests of the parts that work on
// the two tables.
package shadowtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// searchPath is the one that a run on a table in schema public has.
const searchPath = `"public", pg_temp`

// Pair is a table of schema public, and its shadow as it is when the copy begins.
type Pair struct {
	DB       *pgtest.DB
	Database *pg.Database
	Plan     *shadow.Plan
	Original *schema.Table
}

// New makes the shadow of a table and applies the change to it.
func New(t testing.TB, db *pgtest.DB, table string, change shadow.Change) *Pair {
	t.Helper()
	p := &Pair{DB: db}
	var err error
	if p.Database, err = pg.Open(db.DSN); err != nil {
		t.Fatal(err)
	}
	conn := p.Session(t)
	must(t, pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error { return p.build(t.Context(), tx, table, change) }))
	return p
}

func (p *Pair) build(ctx context.Context, tx pgx.Tx, table string, change shadow.Change) (err error) {
	if p.Original, err = load(ctx, tx, "public", table); err != nil {
		return err
	}
	names := shadow.Names{RunID: "test", Table: table}
	confined := shadow.Confine(p.Original, names, p.Original.Owner)
	if err = exec(ctx, tx, append(confined, shadow.Create(p.Original, names)...)); err != nil {
		return err
	}
	created, err := load(ctx, tx, names.ShadowSchema(), table)
	if err != nil {
		return err
	}
	if err = exec(ctx, tx, shadow.Grants(p.Original, created, names)); err != nil {
		return err
	}
	for _, text := range change.Alters {
		alter := shadow.Statement{SQL: "ALTER TABLE " + names.Shadow() + " " + text, Role: p.Original.Owner}
		script := []shadow.Statement{{SQL: "SET LOCAL search_path = " + searchPath}, alter, {SQL: "SET LOCAL search_path = ''"}}
		if err = exec(ctx, tx, script); err != nil {
			return err
		}
	}
	changed, err := load(ctx, tx, names.ShadowSchema(), table)
	if err != nil {
		return err
	}
	p.Plan, err = shadow.NewPlan(shadow.Inputs{Names: names, Change: &change, Original: p.Original, Shadow: changed,
		SearchPath: searchPath, SwapRole: p.Original.Owner})
	if err != nil {
		return err
	}
	return exec(ctx, tx, p.Plan.Strip)
}

func load(ctx context.Context, tx pgx.Tx, schemaName, table string) (*schema.Table, error) {
	oid, err := schema.Resolve(ctx, tx, schemaName, table)
	if err != nil {
		return nil, err
	}
	return schema.Load(ctx, tx, oid)
}

func exec(ctx context.Context, tx pgx.Tx, statements []shadow.Statement) error {
	for _, s := range statements {
		if err := pg.ExecAs(ctx, tx, s.Role, s.Settings, s.SQL); err != nil {
			return fmt.Errorf("executing %s: %w", s.SQL, err)
		}
	}
	return nil
}

// Session opens a session of the login role, closed at the test's end.
func (p *Pair) Session(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := p.Database.Connect(t.Context(), "test")
	must(t, err)
	closeAtEnd(t, conn)
	return conn
}

// Owner opens a session that runs as the table's owner under the plan's search_path, closed at the test's end.
func (p *Pair) Owner(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := p.asOwner(t.Context(), "test")
	must(t, err)
	closeAtEnd(t, conn)
	return conn
}

func closeAtEnd(t testing.TB, conn *pgx.Conn) {
	t.Cleanup(func() { _ = pg.Close(context.Background(), conn) }) // the test may have had it terminated
}

func (p *Pair) asOwner(ctx context.Context, purpose string) (*pgx.Conn, error) {
	conn, err := p.AsLogin(ctx, purpose)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "SET search_path = "+p.Plan.SearchPath+"; SET ROLE "+pg.Ident(p.Plan.Owner))
	return conn, err
}

// AsLogin connects as a run does for the sessions that copy, replay, compare and swap.
func (p *Pair) AsLogin(ctx context.Context, purpose string) (*pgx.Conn, error) {
	return p.Database.With(map[string]string{"enable_seqscan": "off", "lock_timeout": "30000"}).Connect(ctx, purpose)
}

// Fill copies all rows into the shadow.
func (p *Pair) Fill(t testing.TB) {
	t.Helper()
	names, values := make([]string, len(p.Plan.Columns)), make([]string, len(p.Plan.Columns))
	for i, column := range p.Plan.Columns {
		names[i], values[i] = column.Name, column.Value
	}
	p.execAsOwner(t, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM ONLY %s AS o",
		p.Plan.Names.Shadow(), pg.Idents(names), strings.Join(values, ", "), p.Plan.Original.Quoted()))
}

// Build makes the shadow's secondary indexes and constraints.
func (p *Pair) Build(t testing.TB) {
	t.Helper()
	for _, build := range p.Plan.Builds {
		for _, statement := range append(build.Create, build.Attach...) {
			p.execAsOwner(t, statement.SQL)
		}
	}
}

func (p *Pair) execAsOwner(t testing.TB, sql string) {
	t.Helper()
	_, err := p.Owner(t).Exec(t.Context(), sql)
	must(t, err)
}

// Differences counts the rows that one table has, as the change converts them, and the other has not.
func (p *Pair) Differences(t testing.TB) int {
	t.Helper()
	names, values := make([]string, len(p.Plan.Columns)), make([]string, len(p.Plan.Columns))
	for i, column := range p.Plan.Columns {
		names[i], values[i] = pg.Ident(column.Name), column.Compare
	}
	original := fmt.Sprintf("SELECT ROW(%s)::text FROM %s AS o", strings.Join(values, ", "), p.Plan.Original.Quoted())
	changed := fmt.Sprintf("SELECT ROW(%s)::text FROM %s", strings.Join(names, ", "), p.Plan.Names.Shadow())
	return pgtest.Scalar[int](t, p.DB, fmt.Sprintf("SELECT count(*) FROM ((%[1]s EXCEPT ALL %[2]s) UNION ALL (%[2]s EXCEPT ALL %[1]s)) d", original, changed))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
