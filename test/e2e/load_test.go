package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

func TestIntToBigintOnTheKey(t *testing.T) {
	for _, spec := range []*workload.Spec{workload.Orders(), workload.OrdersSerial(), workload.OrdersAlways()} {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			db, _ := change{spec: spec, rows: 20000, alters: []string{"ALTER COLUMN id TYPE bigint, ALTER COLUMN customer_id TYPE bigint"}}.run(t)
			if got := pgtest.Scalar[string](t, db, "SELECT string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1::regclass AND attname IN ('id', 'customer_id')", spec.Table); got != "bigint bigint" {
				t.Errorf("the columns are %s", got)
			}
		})
	}
}

func TestManyChangesAtOnce(t *testing.T) {
	spec := workload.Orders()
	change{spec: spec, rows: 20000,
		alters: []string{
			"RENAME COLUMN status TO state",
			"DROP COLUMN note, ALTER COLUMN amount TYPE numeric(14,4) USING amount * 2, ALTER COLUMN state TYPE varchar(80) USING upper(state), ADD COLUMN extra text DEFAULT 'x', ALTER COLUMN customer_id TYPE bigint",
			"ADD CONSTRAINT named CHECK (customer_id IS NOT NULL), ADD COLUMN half bigint",
		},
		set:     map[string]string{"half": "customer_id / 2"},
		columns: spec.Columns("status", "note", "amount"),
		mapping: workload.Mapping{
			"status": {Table: "upper(state)", Mirror: "upper(status)"}, "note": {Skip: true}, "amount": {Mirror: "(amount * 2)::numeric(14,4)"},
		},
	}.run(t)
}

// TestTruncate empties the table in the middle of the copy, and again while the
// tables are compared: the copy begins again each time.
func TestTruncate(t *testing.T) {
	var once [2]sync.Once
	restarts := 0
	change{spec: workload.Orders(), rows: 20000, alters: []string{"ALTER COLUMN customer_id TYPE bigint"},
		onEvent: func(ctx context.Context, _ *pgtest.DB, w *workload.Workload, event migration.Event) (err error) {
			switch e := event.(type) {
			case migration.ChunkCopied:
				once[0].Do(func() { err = w.Truncate(ctx) })
			case migration.PhaseStarted:
				if e.Phase == migration.Cutover {
					once[1].Do(func() { err = w.Truncate(ctx) })
				}
			case migration.Restarted:
				restarts++
			}
			return err
		}}.run(t)
	if restarts < 2 {
		t.Errorf("the copy began again %d times, want 2", restarts)
	}
}

// TestPreparedTransactions has two-phase commits in the load.
func TestPreparedTransactions(t *testing.T) {
	change{spec: workload.Orders(), rows: 10000, alters: []string{"ALTER COLUMN customer_id TYPE bigint"},
		options: workload.Options{Kinds: append(workload.DefaultKinds(), workload.Prepared)}}.run(t)
}

// TestOpenAcrossPhases holds a writing transaction open from one end of each
// live phase to the other.
func TestOpenAcrossPhases(t *testing.T) {
	change{spec: workload.Orders(), rows: 10000, alters: []string{"ALTER COLUMN customer_id TYPE bigint"},
		options: workload.Options{HoldIn: livePhases}}.run(t)
}

// TestMillionRowTransaction writes a million rows in one transaction during the
// copy, far more keys than the dirty set may hold at once.
func TestMillionRowTransaction(t *testing.T) {
	var once sync.Once
	change{spec: workload.Orders(), rows: 200_000, alters: []string{"ALTER COLUMN id TYPE bigint"},
		config: func(c *migration.Config) { c.Copy.DirtyMemory = 4 << 20 },
		onEvent: func(ctx context.Context, _ *pgtest.DB, w *workload.Workload, event migration.Event) (err error) {
			if _, ok := event.(migration.ChunkCopied); ok {
				once.Do(func() { err = w.Big(ctx, 1_000_000) })
			}
			return err
		}}.run(t)
}

// TestTenMegabyteValues has values of 10 MB beside small ones.
func TestTenMegabyteValues(t *testing.T) {
	change{spec: workload.Orders(), rows: 2000, alters: []string{"ALTER COLUMN id TYPE bigint"},
		setup: func(t *testing.T, db *pgtest.DB) {
			for _, table := range []string{"orders", "orders_mirror"} {
				db.Exec(t, fmt.Sprintf("UPDATE %s SET note = repeat(md5(id::text), 10 * 1024 * 1024 / 32) WHERE id %% 200 = 7", table))
			}
		}}.run(t)
}

// TestUniqueConstraintAdded builds a new unique index over a column whose values
// writers swap all the time: rows read at different moments collide in the
// shadow, and the original never had a duplicate.
func TestUniqueConstraintAdded(t *testing.T) {
	change{spec: workload.Orders(), rows: 5000, alters: []string{"ADD CONSTRAINT code_again UNIQUE (code)", "ALTER COLUMN customer_id TYPE bigint"},
		options: workload.Options{Kinds: append(workload.DefaultKinds(), workload.UniqueSwap, workload.UniqueSwap)}}.run(t)
}

// TestManyWorkers copies, builds and compares with more sessions than there is
// work for, in tiny chunks.
func TestManyWorkers(t *testing.T) {
	change{spec: workload.Orders(), rows: 30000, alters: []string{"ALTER COLUMN id TYPE bigint"},
		config: func(c *migration.Config) {
			c.Copy.Workers, c.Copy.IndexWorkers, c.Copy.ChunkTime = 8, 4, time.Millisecond
		}}.run(t)
}
