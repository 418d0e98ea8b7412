package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/shadowtest"
)

// flow is a stream, its dirty set and its replay on one table, as in a run.
type flow struct {
	*shadowtest.Pair
	set      *Set
	stream   *replication.Stream
	replayer *Replayer
}

func newFlow(t *testing.T, table string, change shadow.Change, limit int) *flow {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(t, table)
	f := &flow{Pair: shadowtest.New(t, db, "t", change), set: NewSet(limit)}
	conn := f.Session(t)
	must(t, pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return replication.CreatePublication(t.Context(), tx, "", db.Name, f.Plan.Original.Quoted(), false)
	}))
	start, err := replication.CreateSlot(t.Context(), conn, db.Name)
	must(t, err)
	config := replication.Config{Slot: db.Name, Publication: db.Name, RunID: "test", Prefix: "pgshadow", Schema: "public", Table: "t",
		Key: f.Plan.Key, Columns: streamed(f.Original), Start: start}
	f.stream, err = replication.Open(t.Context(), f.Database, config, f.set)
	must(t, err)
	f.Fill(t)
	f.Build(t)
	f.replayer = New(f.Plan, f.set, f.Owner(t), &marks{low: theEnd, high: theEnd}, f.stream)

	ctx, stop := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.stream.Run(ctx) })
	group.Go(func() error { return f.replayer.Run(ctx) })
	t.Cleanup(func() {
		stop()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func streamed(table *schema.Table) []replication.StreamColumn {
	var columns []replication.StreamColumn
	for _, c := range table.Columns {
		columns = append(columns, replication.StreamColumn{Name: c.Name, Type: c.TypeOID, Typmod: c.Typmod})
	}
	return columns
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReplayFollowsWriters has writers do at random all that a table can take,
// and holds the two tables against each other whenever the replay has drained.
func TestReplayFollowsWriters(t *testing.T) {
	t.Parallel()
	const writers, rounds, statements = 3, 3, 150
	f := newFlow(t, `CREATE TABLE t (region text COLLATE "en-x-icu", id int, code int UNIQUE, v text, PRIMARY KEY (region, id));
		INSERT INTO t SELECT (ARRAY['eu','Us','ä','us'])[1 + i % 4], i, i, 'v' || i FROM generate_series(1, 60) i`,
		shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint, ALTER COLUMN v TYPE varchar(60), DROP CONSTRAINT t_code_key"}}, roomy)
	for round := range rounds {
		group, ctx := errgroup.WithContext(t.Context())
		for w := range writers {
			group.Go(func() error { return write(ctx, f, rand.New(rand.NewPCG(uint64(round), uint64(w))), statements) })
		}
		must(t, group.Wait())
		must(t, f.replayer.Drain(t.Context()))
		if n := f.Differences(t); n != 0 {
			t.Fatalf("round %d: the tables differ in %d rows", round, n)
		}
	}
	if f.replayer.Replayed() == 0 || f.stream.Received() < writers*rounds*statements/3 {
		t.Errorf("%d keys were replayed of %d changes", f.replayer.Replayed(), f.stream.Received())
	}
}

func write(ctx context.Context, f *flow, random *rand.Rand, statements int) (err error) {
	conn, err := f.Database.Connect(ctx, "writer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	for range statements {
		id, other := random.IntN(60), random.IntN(60)
		sql := []string{
			fmt.Sprintf("UPDATE public.t SET v = v || '.' WHERE id = %d AND length(v) < 50", id),
			fmt.Sprintf("DELETE FROM public.t WHERE id = %d", id),
			fmt.Sprintf("INSERT INTO public.t VALUES ('eu', %d, NULL, 'new') ON CONFLICT DO NOTHING", id),
			fmt.Sprintf("INSERT INTO public.t VALUES ('Us', %d, NULL, 'new') ON CONFLICT (region, id) DO UPDATE SET v = 'again'", id),
			fmt.Sprintf("UPDATE public.t SET region = 'ä' WHERE id = %d AND region = 'us' AND NOT EXISTS (SELECT FROM public.t u WHERE u.id = %[1]d AND u.region = 'ä')", id),
			fmt.Sprintf("UPDATE public.t SET v = NULL WHERE id IN (%d, %d)", id, other),
			fmt.Sprintf("BEGIN; UPDATE public.t SET v = 'undone' WHERE id = %d; ROLLBACK", id),
			fmt.Sprintf("BEGIN; SAVEPOINT s; DELETE FROM public.t WHERE id = %d; ROLLBACK TO s; UPDATE public.t SET v = 'kept' WHERE id = %[1]d; COMMIT", id),
		}[random.IntN(8)]
		if _, err := conn.Exec(ctx, sql); err != nil && !pg.IsLockFailure(err) && !pg.IsUniqueConflict(err) {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// TestTransactionFarLargerThanTheSet is read and replayed piece by piece.
func TestTransactionFarLargerThanTheSet(t *testing.T) {
	t.Parallel()
	f := newFlow(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 20000) i", toBigint, 100*entryBytes)
	f.DB.Exec(t, "UPDATE t SET n = id")
	must(t, f.replayer.Drain(t.Context()))
	if n := f.Differences(t); n != 0 {
		t.Errorf("the tables differ in %d rows", n)
	}
}

// TestSwapsAcrossBatches has every row exchange its unique value with another.
func TestSwapsAcrossBatches(t *testing.T) {
	t.Parallel()
	f := newFlow(t, "CREATE TABLE t (id int PRIMARY KEY, code int, CONSTRAINT code_once UNIQUE (code) DEFERRABLE); INSERT INTO t SELECT i, i FROM generate_series(1, 12000) i",
		shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint, DROP CONSTRAINT code_once, ADD UNIQUE (code)"}}, roomy)
	for range 3 {
		f.DB.Exec(t, "UPDATE t SET code = 12001 - code")
		must(t, f.replayer.Drain(t.Context()))
		if n := f.Differences(t); n != 0 {
			t.Fatalf("the tables differ in %d rows", n)
		}
	}
}
