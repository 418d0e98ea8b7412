package cutover

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/flowtest"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const rows = "CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE); INSERT INTO t SELECT i, i * 100 FROM generate_series(1, 10) i; CREATE TABLE record (done int)"

var toBigint = shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint"}}

// hooks stand in for what a run checks and records under the lock.
type hooks struct {
	wanted                     func() bool
	await                      func(context.Context) error
	unchanged, compare, record func(ctx context.Context, tx pgx.Tx) error
}

func call(hook func(context.Context, pgx.Tx) error, ctx context.Context, tx pgx.Tx) error { //nolint:revive // the hook comes first
	if hook == nil {
		return nil
	}
	return hook(ctx, tx)
}

func (h *hooks) Wanted() bool { return h.wanted == nil || h.wanted() }

func (h *hooks) Await(ctx context.Context) error {
	if h.await == nil {
		return nil
	}
	return h.await(ctx)
}

func (h *hooks) Unchanged(ctx context.Context, tx pgx.Tx) error { return call(h.unchanged, ctx, tx) }
func (h *hooks) Compare(ctx context.Context, tx pgx.Tx) error   { return call(h.compare, ctx, tx) }

func (h *hooks) Record(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "INSERT INTO public.record VALUES (1)"); err != nil {
		return err
	}
	return call(h.record, ctx, tx)
}

// rig is a cutover of a live pair of tables.
type rig struct {
	*flowtest.Flow
	*hooks
	config  Config
	connect func(ctx context.Context, purpose string) (*pgx.Conn, error)
	fencer  Fencer
	horizon Horizon
	undone  func(ctx context.Context, tx pgx.Tx) error
	onEvent func(Event)

	mu     sync.Mutex
	events []Event
}

func newRig(t *testing.T, db *pgtest.DB, script string, change shadow.Change) *rig {
	t.Helper()
	f := flowtest.New(t, db, script, change)
	r := &rig{Flow: f, hooks: &hooks{}, connect: f.AsLogin, fencer: f, onEvent: func(Event) {},
		config: Config{LockTimeout: 100 * time.Millisecond, MaxHold: 5 * time.Second, Attempts: 30}}
	r.horizon = r.now(t)
	return r
}

// now is the horizon of a shadow that has all rows.
func (r *rig) now(t *testing.T) (h Horizon) {
	t.Helper()
	var text string
	must(t, r.Session(t).QueryRow(t.Context(), "SELECT pg_current_snapshot()::text, clock_timestamp()").Scan(&text, &h.At))
	snapshot, err := pg.ParseSnapshot(text)
	must(t, err)
	h.XID = snapshot.Xmax()
	return h
}

func (r *rig) cutover(t *testing.T) *Cutover {
	t.Helper()
	oid, err := schema.Resolve(t.Context(), r.Session(t), r.Plan.Names.ShadowSchema(), "t")
	must(t, err)
	return New(func() Config { return r.config }, Swap{Plan: r.Plan, ShadowOID: oid, Horizon: r.horizon, Undone: r.undone}, r.connect, r, r, r.fencer, r.hooks, func(event Event) {
		r.mu.Lock()
		r.events = append(r.events, event)
		r.mu.Unlock()
		r.onEvent(event)
	})
}

func (r *rig) run(t *testing.T) (Report, error) {
	t.Helper()
	return r.cutover(t).Run(t.Context())
}

// requireReason fails unless an attempt was given up for a reason that holds text.
func (r *rig) requireReason(t *testing.T, text string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range r.events {
		if event.Reason != "" && strings.Contains(event.Reason, text) {
			return
		}
	}
	t.Errorf("no attempt was given up for %q: %+v", text, r.events)
}

// requireSwapped fails unless the changed table is in place with the rows and the
// record, and the original retired.
func (r *rig) requireSwapped(t *testing.T, err error) {
	t.Helper()
	must(t, err)
	place := pgtest.Scalar[string](t, r.DB, "SELECT string_agg(relnamespace::regnamespace || ' ' || (SELECT atttypid::regtype FROM pg_attribute WHERE attrelid = c.oid AND attname = 'id'), ', ' ORDER BY oid DESC) FROM pg_class c WHERE relname = 't'")
	if want := "public bigint, pgshadow_test_retired integer"; place != want {
		t.Errorf("the tables are %s, want %s", place, want)
	}
	if n := pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM record"); n != 1 {
		t.Errorf("it is recorded %d times", n)
	}
	const differ = "SELECT count(*) FROM (SELECT id, code FROM t EXCEPT SELECT id, code FROM pgshadow_test_retired.t UNION ALL (SELECT id, code FROM pgshadow_test_retired.t EXCEPT SELECT id, code FROM t)) d"
	if n := pgtest.Scalar[int](t, r.DB, differ); n != 0 {
		t.Errorf("%d rows are not those that the original had", n)
	}
}

// requireInPlace fails unless the original is untouched (INV-7), unlocked, and its
// changes are replayed on.
func (r *rig) requireInPlace(t *testing.T) {
	t.Helper()
	if oid := pgtest.Scalar[uint32](t, r.DB, "SELECT 'public.t'::regclass::oid"); oid != r.Plan.Original.OID {
		t.Fatal("the original is not in place")
	}
	if n := pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM record"); n != 0 {
		t.Error("the swap is recorded")
	}
	r.DB.Exec(t, "SET lock_timeout = '5s'; INSERT INTO t SELECT max(id) + 1, max(code) + 1 FROM t")
	must(t, r.Drain(t.Context()))
	if n := r.Differences(t); n != 0 {
		t.Errorf("%d rows differ", n)
	}
}

// open runs a script in a transaction that stays open.
func (r *rig) open(t *testing.T, script string) *pgx.Conn {
	t.Helper()
	conn := r.DB.Conn(t)
	_, err := conn.Exec(t.Context(), "SET application_name = 'an old client'; BEGIN ISOLATION LEVEL REPEATABLE READ; "+script)
	must(t, err)
	return conn
}

func end(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Error(err)
	}
}

var errStop = errors.New("stop here")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
