package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// crowd is clients that run statements as fast as they can, each in a session of its own.
type crowd struct {
	stop    context.CancelFunc
	clients sync.WaitGroup
	done    map[string]*atomic.Int64 // by statement
}

// startCrowd runs each statement in clients of its own. %[1]d is another number each time.
// No statement may fail: not for a deadlock, not for a timeout, not for a plan.
func startCrowd(t *testing.T, db *pgtest.DB, clients int, statements ...string) *crowd {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &crowd{stop: stop, done: map[string]*atomic.Int64{}}
	for _, sql := range statements {
		c.done[sql] = &atomic.Int64{}
	}
	var number atomic.Int64
	for i := range clients * len(statements) {
		conn, sql := db.Conn(t), statements[i%len(statements)]
		c.clients.Go(func() {
			for ctx.Err() == nil {
				n := number.Add(1)
				// Not ctx: a client that is stopped ends its statement.
				if _, err := text(t.Context(), conn, fmt.Sprintf(sql, n)); err != nil {
					t.Errorf("%s with %d: %v", sql, n, err)
					return
				}
				c.done[sql].Add(1)
			}
		})
	}
	t.Cleanup(c.end)
	return c
}

// end stops the clients, each after its statement.
func (c *crowd) end() {
	c.stop()
	c.clients.Wait()
}

// awaitWork returns when every statement has been done again.
func (c *crowd) awaitWork(t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for sql, done := range c.done {
		for before := done.Load(); done.Load() == before; {
			select {
			case <-ticker.C:
			case <-deadline:
				t.Fatalf("nobody does %s", sql)
			}
		}
	}
}

// count is how often statements that hold a text were done.
func (c *crowd) count(holds string) (n int64) {
	for sql, done := range c.done {
		if strings.Contains(sql, holds) {
			n += done.Load()
		}
	}
	return n
}

// TestCutoverInACrowd swaps while a view of the table and a child that references it are
// written as fast as can be, also both in one transaction, in either order. No client may
// notice but by its wait: deadlocks are the swap's to give way to, however long it may wait
// for its locks and however early the server looks for deadlocks.
func TestCutoverInACrowd(t *testing.T) {
	for name, c := range map[string]struct {
		deadlockTimeout string
		lockTimeout     time.Duration
	}{
		"by default":          {"1s", 500 * time.Millisecond},
		"a patient swap":      {"1s", 5 * time.Second},
		"an impatient server": {"50ms", 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"deadlock_timeout": c.deadlockTimeout}}))
			db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT i, 'v' FROM generate_series(0, 999) i;
				CREATE TABLE child (id int PRIMARY KEY, t int NOT NULL REFERENCES t); CREATE VIEW tv AS SELECT * FROM t; CREATE VIEW tvv AS SELECT id, n FROM tv WHERE id >= 0`)
			config := tableT(t, db, nil)
			config.Cutover.LockTimeout = c.lockTimeout
			clients := startCrowd(t, db, 2,
				"SELECT sum(n) FROM tvv WHERE id < %[1]d %% 100",
				"UPDATE tv SET n = n + 1 WHERE id = %[1]d %% 1000",
				"INSERT INTO child VALUES (%[1]d, %[1]d %% 1000)",
				"BEGIN; UPDATE tvv SET n = n + 1 WHERE id = %[1]d %% 1000; INSERT INTO child VALUES (%[1]d, %[1]d %% 1000); COMMIT",
				"BEGIN; INSERT INTO child VALUES (%[1]d, %[1]d %% 1000); UPDATE t SET n = n + 1 WHERE id = %[1]d %% 1000; COMMIT")
			config.Observer = migration.ObserverFunc(func(event migration.Event) {
				logEvent(t, event)
				if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Cutover {
					clients.awaitWork(t)
				}
			})
			report, err := migration.Run(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d attempts, the lock was waited for %.1f ms and held %.1f ms", report.Cutover.Attempts, report.Cutover.LockWaitMS, report.Cutover.LockHoldMS)
			clients.awaitWork(t)
			clients.end()
			requireClean(t, db, report)
			updates, inserts := pgtest.Scalar[int64](t, db, "SELECT sum(n) FROM t"), pgtest.Scalar[int64](t, db, "SELECT count(*) FROM child")
			if updates != clients.count("UPDATE") || inserts != clients.count("INSERT") {
				t.Errorf("%d updates and %d inserts are there, the clients made %d and %d", updates, inserts, clients.count("UPDATE"), clients.count("INSERT"))
			}
		})
	}
}

// TestDeadlockIsForTheSwapToEnd: a transaction that has written the table goes on to its
// child, while the swap has that and waits for the table. The server ends whichever of the
// two looks first; it must never be the application's.
func TestDeadlockIsForTheSwapToEnd(t *testing.T) {
	for name, c := range map[string]struct {
		deadlockTimeout, looked string
		lockTimeout             time.Duration
	}{
		"a patient swap":      {"1s", "1100ms", 10 * time.Second},
		"an impatient server": {"50ms", "100ms", 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"deadlock_timeout": c.deadlockTimeout}}))
			db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 1000) i; CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t)")
			config := tableT(t, db, nil)
			config.Cutover.Mode, config.Cutover.LockTimeout = migration.CutoverManual, c.lockTimeout
			run := launch(t, config)
			run.await(t, "wait for the operator", waitingFor(theOperator))
			client := db.Conn(t)
			mustExec(t, client, "BEGIN; UPDATE t SET v = 'mine' WHERE id = 1")
			run.command(t, db, migration.CommandCutover, "")
			failed := run.drain()
			// Whatever the swap does first: look for a deadlock, and not again, or give up.
			const looking = `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE datname = current_database() AND ` + cutoverSession + `
				AND EXISTS (SELECT FROM pg_locks h WHERE h.pid = l.pid AND h.relation = 'child'::regclass AND h.granted)
				AND relation = 't'::regclass AND NOT granted AND clock_timestamp() - waitstart > $1::text::interval`
			ticker := time.NewTicker(5 * time.Millisecond)
			defer ticker.Stop()
			for gaveUp := false; !gaveUp && pgtest.Scalar[int](t, db, looking, c.looked) == 0; {
				select {
				case <-failed:
					gaveUp = true
				case <-ticker.C:
				case <-run.ended:
					t.Fatalf("the run ended: %v", run.err)
				}
			}
			mustExec(t, client, "INSERT INTO child VALUES (1, 1); COMMIT")
			requireClean(t, db, run.done(t))
			if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM child JOIN t ON t.id = child.t WHERE v = 'mine'"); n != 1 {
				t.Errorf("%d rows of the client are there", n)
			}
		})
	}
}
