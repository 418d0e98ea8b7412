// Package flowtest lets the changes of an original flow into its shadow as a run does, for the tests of the parts that
// work meanwhile.
package flowtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/replication/replay"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/shadowtest"
)

// Flow is a complete shadow of a table, the stream of the table's changes, and
// their replay, all running until the test's end.
type Flow struct {
	*shadowtest.Pair
	*replay.Set
	*replay.Replayer
	Stream *replication.Stream
}

// complete says that nothing is left to copy.
type complete struct{}

func (complete) Watermarks() (low, high keyset.Watermark) {
	end := keyset.Watermark{End: true}
	return end, end
}

// New makes table t by a script, its shadow with all rows and indexes, and starts the flow.
func New(t testing.TB, db *pgtest.DB, script string, change shadow.Change) *Flow {
	t.Helper()
	db.Exec(t, script)
	f := &Flow{Pair: shadowtest.New(t, db, "t", change), Set: replay.NewSet(1 << 30)}
	conn := f.Session(t)
	must(t, pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return replication.CreatePublication(t.Context(), tx, "", "pgshadow_"+db.Name, f.Plan.Original.Quoted(), false)
	}))
	start, err := replication.CreateSlot(t.Context(), conn, db.Name)
	must(t, err)
	config := replication.Config{Slot: db.Name, Publication: "pgshadow_" + db.Name, RunID: "test", Prefix: "pgshadow",
		Schema: "public", Table: "t", Key: f.Plan.Key, Start: start}
	for _, c := range f.Original.Columns {
		if c.Generated == "" {
			config.Columns = append(config.Columns, replication.StreamColumn{Name: c.Name, Type: c.TypeOID, Typmod: c.Typmod})
		}
	}
	f.Stream, err = replication.Open(t.Context(), f.Database, config, f.Set)
	must(t, err)
	f.Fill(t)
	f.Build(t)
	f.Replayer = replay.New(f.Plan, f.Set, f.Owner(t), complete{}, f.Stream)
	f.start(t)
	return f
}

func (f *Flow) start(t testing.TB) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.Stream.Run(ctx) })
	group.Go(func() error { return f.Run(ctx) })
	t.Cleanup(func() {
		stop()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the flow ended with %v", err)
		}
	})
}

// Fence emits a fence and waits until it has come out of the stream.
func (f *Flow) Fence(ctx context.Context) (time.Duration, error) { return f.Stream.Fence(ctx) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Locked tells whether a backend of the stream's server has a table exclusively.
func (f *Flow) Locked(ctx context.Context, backend int32, table uint32) (bool, error) {
	return f.Stream.Locked(ctx, backend, table)
}
