package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestCommittedInTheWALAndNotYetVisible is the race of INV-1, held open: a
// synchronous standby that is not there keeps three commits in the gap between
// their WAL record, which the stream delivers, and their visibility. Verification
// is off, so nothing but the visibility check saves the rows.
func TestCommittedInTheWALAndNotYetVisible(t *testing.T) {
	for _, phases := range []struct{ begin, release migration.Phase }{
		// The keys are above the high watermark: the copy is about to read them,
		// and sees the old rows (INV-3).
		{begin: migration.Copy, release: migration.Index},
		// The keys are below the low watermark: replay is about to read them.
		{begin: migration.CatchUp, release: migration.CatchUp},
	} {
		t.Run(phases.begin.String(), func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{
				"synchronous_standby_names": "absent", "synchronous_commit": "local"}})
			db := pgtest.NewOn(t, server)
			db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'before' FROM generate_series(1, 1000) i`)
			gap := &gap{t: t, db: db, received: make(chan struct{})}
			report, err := migration.Run(t.Context(), migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}, Verify: verify.Off,
				Observer: migration.ObserverFunc(func(event migration.Event) { gap.observe(event, phases.begin, phases.release) })})
			if err != nil {
				t.Fatalf("%v (report %+v)", err, report)
			}
			gap.writers.Wait()
			got := pgtest.Scalar[string](t, db, `SELECT string_agg(id || ' ' || v, ', ' ORDER BY id) FROM t WHERE id > 998`)
			if want := "999 after, 1001 new"; got != want {
				t.Errorf("the table holds %q, want %q", got, want)
			}
		})
	}
}

// gap holds commits between the WAL and visibility.
type gap struct {
	t        *testing.T
	db       *pgtest.DB
	writers  sync.WaitGroup
	received chan struct{} // closed when the stream has brought all, and replay has had its chance at them
	once     sync.Once
}

var gapWrites = []string{"UPDATE t SET v = 'after' WHERE id = 999", "DELETE FROM t WHERE id = 1000", "INSERT INTO t VALUES (1001, 'new')"}

func (g *gap) observe(event migration.Event, begin, release migration.Phase) {
	switch e := event.(type) {
	case migration.PhaseStarted:
		if e.Phase == begin {
			g.write()
			select {
			case <-g.received:
			case <-g.t.Context().Done():
			}
		}
		if e.Phase == release {
			g.db.Exec(g.t, "ALTER SYSTEM SET synchronous_standby_names = ''")
			g.db.Exec(g.t, "SELECT pg_reload_conf()")
		}
	case migration.Progressed:
		p := e.Progress
		if p.ChangesReceived >= uint64(len(gapWrites)) && (p.InvisibleKeys == int64(len(gapWrites)) || p.DirtyKeys == 0) {
			g.once.Do(func() { close(g.received) })
		}
	}
}

func (g *gap) write() {
	for _, sql := range gapWrites {
		g.writers.Go(func() {
			if err := g.commitWaiting(sql); err != nil {
				g.t.Errorf("%s: %v", sql, err)
			}
		})
	}
}

func (g *gap) commitWaiting(sql string) error {
	ctx := context.WithoutCancel(g.t.Context())
	conn, err := pgx.Connect(ctx, g.db.DSN)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // the test is over by then
	_, err = conn.Exec(ctx, "SET synchronous_commit = on; "+sql)
	return err
}
