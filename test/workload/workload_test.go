package workload_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/test/workload"
)

func TestEverySpec(t *testing.T) {
	for _, spec := range workload.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			db, conn := create(t, spec, 500)
			w := start(t, db, spec, workload.Options{Kinds: slices.Concat(kindsOf(spec), []workload.Kind{workload.Prepared})})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			must(t, w.AwaitEach(ctx, 10))
			must(t, workload.Check(ctx, conn, spec, nil)) // while they run
			must(t, w.Big(ctx, 400))
			stats := stop(t, w)
			must(t, workload.RequireRan(stats, workload.FirstPhase))
			must(t, workload.Check(ctx, conn, spec, nil))
			if stats.Total(workload.Big) != 1 {
				t.Errorf("Big was counted %d times", stats.Total(workload.Big))
			}
		})
	}
}

func kindsOf(spec *workload.Spec) []workload.Kind {
	return slices.DeleteFunc(workload.DefaultKinds(), func(k workload.Kind) bool {
		return spec.FixedKey && (k == workload.KeyUp || k == workload.KeyDown)
	})
}

func TestTruncate(t *testing.T) {
	spec := workload.Orders()
	db, conn := create(t, spec, 1000)
	w := start(t, db, spec, workload.Options{HoldIn: []string{workload.FirstPhase}})
	must(t, w.AwaitEach(deadline(t), 2))
	must(t, w.Truncate(deadline(t)))
	must(t, w.AwaitEach(deadline(t), 2))
	if stats := stop(t, w); stats.Total(workload.Truncate) != 1 {
		t.Errorf("Truncate was counted %d times", stats.Total(workload.Truncate))
	}
	must(t, workload.Check(t.Context(), conn, spec, nil))
}

func TestPhases(t *testing.T) {
	spec := workload.Orders()
	db, conn := create(t, spec, 1000)
	w := start(t, db, spec, workload.Options{Writers: 2, HoldIn: []string{"copy"}, Columns: spec.Columns("created_at")})
	w.Phase("copy")
	must(t, w.AwaitEach(deadline(t), 3))
	if n := w.Stats().Commits["copy"][workload.LongOpen]; n != 0 {
		t.Errorf("LongOpen committed %d times in a phase in which it is held", n)
	}
	w.Release()
	must(t, w.AwaitCommits(deadline(t), workload.Insert, 5))
	w.Phase("catch up")
	must(t, w.AwaitEach(deadline(t), 3))
	stats := stop(t, w)
	must(t, workload.RequireRan(stats, "copy", "catch up"))
	must(t, workload.Check(t.Context(), conn, spec, nil))
	for _, phase := range []string{"copy", "catch up"} {
		for _, kind := range w.Kinds() {
			if kind != workload.LongOpen && stats.Commits[phase][kind] < 3 {
				t.Errorf("%v committed %d times in %q", kind, stats.Commits[phase][kind], phase)
			}
		}
	}
	if err := workload.RequireRan(stats, "cutover"); err == nil || !strings.Contains(err.Error(), "cutover") {
		t.Errorf("a phase that never was: %v", err)
	}
	stats.Kinds = append(stats.Kinds, workload.Prepared)
	if err := workload.RequireRan(stats); err == nil || !strings.Contains(err.Error(), "Prepared") {
		t.Errorf("a kind that never ran: %v", err)
	}
	if err := w.AwaitEach(deadline(t), 1); err == nil {
		t.Error("awaiting commits of a workload that has ended gave no error")
	}
}

func TestRate(t *testing.T) {
	spec := workload.BigintKey()
	db, _ := create(t, spec, 100)
	began := time.Now()
	w := start(t, db, spec, workload.Options{Rate: 100, Kinds: []workload.Kind{workload.Upsert}})
	must(t, w.AwaitCommits(deadline(t), workload.Upsert, 50))
	stats, seconds := stop(t, w), time.Since(began).Seconds()
	if rate := float64(stats.Total(workload.Upsert)) / seconds; rate > 120 {
		t.Errorf("%.0f transactions per second, at most 100 were asked for", rate)
	}
}

func TestOptionsRefused(t *testing.T) {
	spec := workload.OrdersAlways()
	if _, err := workload.Start(t.Context(), "", spec, workload.Options{}); err == nil {
		t.Error("a spec that was never created was accepted")
	}
	db, _ := create(t, spec, 10)
	for name, opts := range map[string]workload.Options{
		"key update of an identity ALWAYS": {Kinds: []workload.Kind{workload.KeyUp}},
		"Big by itself":                    {Kinds: []workload.Kind{workload.Big}},
		"unknown column":                   {Columns: []string{"status", "nonsense"}},
		"no unique column":                 {Columns: []string{"status"}, Kinds: []workload.Kind{workload.UniqueSwap}},
		"no plain column":                  {Columns: []string{"code"}},
	} {
		if _, err := workload.Start(t.Context(), db.DSN, spec, opts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSwap swaps a copy in under the writers, the way a schema change ends: with other types, one of which loses digits,
// with a column renamed and another one gone.
func TestSwap(t *testing.T) {
	spec := workload.Orders()
	spec.Table, spec.Mirror = `"Odd ""Table"" it's"`, `"the \Mirror"`
	spec.Column("created_at").Blind = true
	status := spec.Column("status") // becomes an enum: its literals must have no type
	status.Type, status.Def = "", "text NOT NULL"
	status.Gen = func(r *rand.Rand) string { return []string{"new", "paid", "sent"}[r.IntN(3)] }
	db, conn := create(t, spec, 2000)
	w := start(t, db, spec, workload.Options{Columns: spec.Columns("note", "customer_id")})
	must(t, w.AwaitEach(deadline(t), 2))
	w.Phase("cutover")
	exec(t, conn, strings.ReplaceAll(`CREATE TYPE status AS ENUM ('returned', 'sent', 'packed', 'paid', 'new');
		BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
		CREATE TABLE swapped (LIKE {table} INCLUDING ALL);
		INSERT INTO swapped SELECT * FROM {table};
		ALTER TABLE swapped ALTER id TYPE bigint, ALTER status TYPE status USING status::status,
			ALTER amount TYPE numeric(14,4), ALTER created_at TYPE timestamptz(0), DROP note;
		ALTER TABLE swapped RENAME customer_id TO customer;
		SELECT setval(pg_get_serial_sequence('swapped', 'id'), nextval(pg_get_serial_sequence($q${table}$q$, 'id')));
		ALTER TABLE {table} RENAME TO retired; ALTER TABLE swapped RENAME TO "Odd ""Table"" it's"; DROP TABLE retired; COMMIT`,
		"{table}", spec.Table))
	w.Phase("after")
	must(t, w.AwaitEach(deadline(t), 2))
	must(t, workload.RequireRan(stop(t, w), workload.FirstPhase, "after"))
	mapping := workload.Mapping{
		"note": {Skip: true}, "amount": {Mirror: "amount::numeric(14,4)"}, "created_at": {Mirror: "created_at::timestamptz(0)"},
		"customer_id": {Table: "customer"},
	}
	must(t, workload.Check(t.Context(), conn, spec, mapping))
}

// TestDivergedLive loses writes in a swap: the writers themselves must find out.
func TestDivergedLive(t *testing.T) {
	for name, damage := range map[string]string{
		"changed":     "UPDATE orders SET customer_id = customer_id + 1",
		"lost":        "DELETE FROM orders",
		"resurrected": "DELETE FROM orders_mirror",
	} {
		t.Run(name, func(t *testing.T) {
			spec := workload.Orders()
			db, conn := create(t, spec, 500)
			w := start(t, db, spec, workload.Options{Writers: 2})
			must(t, w.AwaitEach(deadline(t), 1))
			exec(t, conn, "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE; "+damage+"; COMMIT")
			err := w.AwaitEach(deadline(t), 1000)
			if _, ok := errors.AsType[*workload.Diverged](err); !ok {
				t.Errorf("AwaitEach returned %v", err)
			}
			if _, err := w.Stop(deadline(t)); err == nil || !strings.Contains(err.Error(), "seed") {
				t.Errorf("Stop returned %v", err)
			}
			if workload.Check(t.Context(), conn, spec, nil) == nil {
				t.Error("Check found nothing")
			}
		})
	}
}

func TestUnexpectedErrors(t *testing.T) {
	spec := workload.Orders()
	db, conn := create(t, spec, 500)
	w := start(t, db, spec, workload.Options{})
	must(t, w.AwaitEach(deadline(t), 1))
	exec(t, conn, "ALTER TABLE orders RENAME TO gone")
	if _, err := w.Stop(deadline(t)); err != nil && !strings.Contains(err.Error(), "42P01") {
		t.Errorf("Stop returned %v", err)
	}
	w = start(t, db, spec, workload.Options{})
	if err := w.AwaitEach(deadline(t), 1); err == nil || !strings.Contains(err.Error(), "42P01") {
		t.Errorf("AwaitEach returned %v", err)
	}
	if _, err := w.Stop(deadline(t)); err == nil || !strings.Contains(err.Error(), "42P01") || w.Err() == nil {
		t.Errorf("Stop returned %v", err)
	}
}

const terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pgshadow-workload' AND datname = current_database()"

func TestLostConnections(t *testing.T) {
	spec := workload.Orders()
	db, conn := create(t, spec, 500)
	w := start(t, db, spec, workload.Options{Reconnect: true, Kinds: append(workload.DefaultKinds(), workload.Prepared)})
	for range 10 {
		must(t, w.AwaitEach(deadline(t), 1))
		if count(t, conn, terminate) == 0 {
			t.Error("there was nobody to terminate")
		}
	}
	must(t, w.AwaitEach(deadline(t), 1))
	if stats := stop(t, w); stats.Reconnects == 0 {
		t.Error("nobody has reconnected")
	}
	if n := count(t, conn, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"); n != 0 {
		t.Errorf("%d transactions were left prepared", n)
	}
	must(t, workload.Check(t.Context(), conn, spec, nil))

	w = start(t, db, spec, workload.Options{})
	count(t, conn, terminate)
	if err := w.AwaitEach(deadline(t), 100); err == nil {
		t.Error("a lost connection was no error")
	}
}

// TestStopIsBounded stops writers that wait for a lock nobody releases.
func TestStopIsBounded(t *testing.T) {
	spec := workload.Orders()
	db, conn := create(t, spec, 500)
	w := start(t, db, spec, workload.Options{})
	must(t, w.AwaitEach(deadline(t), 1))
	exec(t, conn, "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop returned %v", err)
	}
	exec(t, conn, "ROLLBACK")
	must(t, workload.Check(t.Context(), conn, spec, nil))
}

func TestStartContextEnds(t *testing.T) {
	spec := workload.Orders()
	db, _ := create(t, spec, 500)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := workload.Start(ctx, db.DSN, spec, workload.Options{})
	must(t, err)
	cancel()
	if err := w.AwaitEach(deadline(t), 1_000_000); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitEach returned %v", err)
	}
	if _, err := w.Stop(deadline(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop returned %v", err)
	}
}
