package e2e

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const (
	asBefore = "5|v5\n6|v6\n"
	asNow    = "5|new\n5000|ins\n"
)

// earlySnapshots are statements that have their snapshot before they wait for the swap's
// lock (decision 0013), and others, which take it when they have the lock. There is a
// change that the swap replays under the lock: for the former, rows 5 and 6 are as they
// were before it, and row 5000 is not there yet.
var earlySnapshots = []struct {
	name, open, sql string
	want            string
	via             func(context.Context, *pgx.Conn, string) (string, error)
}{
	{name: "REPEATABLE READ", sql: "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id", want: asBefore},
	{name: "SERIALIZABLE", sql: "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id", want: asBefore},
	{name: "STABLE function", sql: "SELECT stable()", want: asBefore},
	{name: "EXECUTE", open: "PREPARE q AS SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id", sql: "EXECUTE q", want: asBefore},
	{name: "COPY TO", sql: "COPY (SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id) TO STDOUT (DELIMITER '|')", via: copyOut, want: asBefore},
	{name: "LOCK TABLE, then REPEATABLE READ", sql: "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE t IN ACCESS SHARE MODE; SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id", want: asNow},
	{name: "READ COMMITTED", sql: "SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id", want: asNow},
	{name: "READ COMMITTED, extended protocol", sql: "SELECT id, v FROM t WHERE id IN (5, 6, 5000) ORDER BY id", via: prepared, want: asNow},
}

// TestSnapshotsFromBeforeTheLock shows how far the swap is not MVCC-safe: to the changes
// that it replays under its lock. PostgreSQL's own ALTER TABLE shows such a statement an
// empty table. And an UPDATE does not overwrite a change that its snapshot does not see.
func TestSnapshotsFromBeforeTheLock(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{})) // the statements' snapshots are nobody else's to wait for
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, 'v' || i, i FROM generate_series(1, 1000) i;
		CREATE FUNCTION stable() RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT id || '|' || v FROM public.t WHERE id IN (5, 6, 5000) ORDER BY id; END $$`)
	swap := holdSwap(t, db, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"}})
	writer, overwriter := db.Conn(t), db.Conn(t)
	mustExec(t, writer, "BEGIN; UPDATE t SET v = 'new' WHERE id = 5; DELETE FROM t WHERE id = 6; INSERT INTO t VALUES (5000, 'ins', 1)")
	conns := make([]*pgx.Conn, len(earlySnapshots))
	for i, c := range earlySnapshots {
		conns[i] = db.Conn(t)
		mustExec(t, conns[i], c.open)
	}
	swap.begin(t)
	swap.awaitQueue(t)
	mustExec(t, writer, "COMMIT") // before any of the statements begins
	swap.awaitHeld(t)
	got := make([]answer, len(earlySnapshots))
	var overwritten error
	var waiting sync.WaitGroup
	for i, c := range earlySnapshots {
		waiting.Go(func() { got[i] = ask(t.Context(), conns[i], c.via, c.sql) })
	}
	waiting.Go(func() {
		_, overwritten = text(t.Context(), overwriter, "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE t SET v = v || '!' WHERE id = 5")
	})
	awaitBlocked(t, db, len(earlySnapshots)+1)
	swap.release(t)
	waiting.Wait()
	for i, c := range earlySnapshots {
		if want := (answer{rows: c.want}); got[i] != want {
			t.Errorf("%s: got %+v, want %+v", c.name, got[i], want)
		}
	}
	if sqlState(overwritten) != "40001" {
		t.Errorf("the UPDATE of a row with a change that its snapshot does not see: %v, want a serialization failure", overwritten)
	}
}

// TestSnapshotsFromBeforeAPlainAlter is what PostgreSQL itself does there.
func TestSnapshotsFromBeforeAPlainAlter(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i")
	alter, reader := db.Conn(t), db.Conn(t)
	mustExec(t, alter, "BEGIN; ALTER TABLE t ALTER COLUMN n TYPE bigint")
	var rows string
	var err error
	var waiting sync.WaitGroup
	waiting.Go(func() {
		rows, err = text(t.Context(), reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t")
	})
	awaitBlocked(t, db, 1)
	mustExec(t, alter, "COMMIT")
	waiting.Wait()
	if rows != "0\n" || err != nil {
		t.Errorf("got %q, %v; docs/decisions/0013 says that the table looks empty", rows, err)
	}
}
