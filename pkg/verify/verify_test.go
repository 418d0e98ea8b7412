package verify

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication/replay"
)

func TestEqualTables(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	report, err := r.run(t)
	must(t, err)
	requireEqual(t, report, 1000)
	if report.RowsCompared != 1000 || report.Rechecked != 0 || report.Mode != Full || report.DigestOriginal == "0000000000000000" {
		t.Errorf("the report is %+v", report)
	}
	if observed := r.cutter.(*hundreds).rows.Load(); observed != 1000 {
		t.Errorf("the cutter was told of %d rows", observed)
	}
}

// TestLostChangesHeal: rows that differ only because a change was lost become
// dirty, and equal.
func TestLostChangesHeal(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.spoil(t, "UPDATE %[1]s SET v = 'stale' WHERE id = 3; DELETE FROM %[1]s WHERE id IN (5, 1000); INSERT INTO %[1]s VALUES (2000, 'resurrected'), (0, 'too')")
	report, err := r.run(t)
	must(t, err)
	requireEqual(t, report, 1000)
	if report.Rechecked != 5 || len(report.InDoubt) != 0 {
		t.Errorf("the report is %+v, want 5 rows rechecked", report)
	}
	if n := r.Differences(t); n != 0 {
		t.Errorf("the tables differ in %d rows", n)
	}
}

// TestCorruptionIsFound: one changed, one missing, one extra row, that replay does not mend.
func TestCorruptionIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.defy(t)
	report, err := r.run(t)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || sorted(mismatch.Keys) != "[(3) (5) (2000)]" {
		t.Fatalf("Run returned %v", err)
	}
	if !strings.HasPrefix(err.Error(), "verification found 3 rows that differ from the original with no change pending, such as [(") {
		t.Errorf("it says %s", err)
	}
	if report.Mismatches != 3 || report.OriginalRows != 998 || report.DigestOriginal != report.DigestShadow {
		t.Errorf("the report is %+v", report)
	}
}

// hot is a live side on which rows are written between their replay and their
// comparison, every time.
type hot struct {
	*rig
	t   *testing.T
	sql string
}

func (h *hot) Drain(ctx context.Context) error {
	if err := h.Flow.Drain(ctx); err != nil {
		return err
	}
	if err := h.Pause(ctx); err != nil {
		return err
	}
	h.DB.Exec(h.t, h.sql)
	return nil
}

func (h *hot) Fence(ctx context.Context) (time.Duration, error) {
	defer h.Resume()
	return h.Flow.Fence(ctx)
}

// TestHotRowsStayInDoubt, and are compared under the lock, where nothing is pending.
func TestHotRowsStayInDoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.spoil(t, "UPDATE %[1]s SET v = 'stale' WHERE id IN (3, 4)")
	r.replay = &hot{rig: r, t: t, sql: "UPDATE t SET v = v || '.' WHERE id = 3"}
	report, err := r.run(t)
	must(t, err)
	if sorted(report.InDoubt) != "[(3)]" || report.Mismatches != 0 || report.OriginalRows != 999 || report.Rechecked != 2 {
		t.Errorf("the report is %+v, want the hot row in doubt and the other equal", report)
	}
	must(t, r.Drain(t.Context()))
	if err := underLock(t, r, report.InDoubt); err != nil {
		t.Errorf("under the lock: %v", err)
	}
	r.spoil(t, "UPDATE %[1]s SET v = 'lost' WHERE id = 3")
	var mismatch *MismatchError
	if err := underLock(t, r, []keyset.Key{keyset.NewKey("4"), keyset.NewKey("3")}); !errors.As(err, &mismatch) || sorted(mismatch.Keys) != "[(3)]" {
		t.Errorf("with a lost change it returned %v", err)
	}
	must(t, underLock(t, r, nil))
	must(t, underLock(t, r, []keyset.Key{keyset.NewKey("-1")})) // gone on both sides
}

func underLock(t *testing.T, r *rig, keys []keyset.Key) error {
	t.Helper()
	return pg.InTx(t.Context(), r.Owner(t), pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "LOCK TABLE ONLY public.t, ONLY "+r.Plan.Names.Shadow()); err != nil {
			return err
		}
		return UnderLock(t.Context(), tx, r.Plan, keys)
	})
}

// TestChangeOnItsWayIsNoMismatch: it is committed, seen by the comparison, and
// received only by its end.
func TestChangeOnItsWayIsNoMismatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.spoil(t, "UPDATE %[1]s SET v = 'stale' WHERE id IN (3, 4, 5)")
	r.replay = &hot{rig: r, t: t, sql: "UPDATE t SET v = 'new' WHERE id = 3; DELETE FROM t WHERE id = 4; UPDATE t SET id = 5000 WHERE id = 5"}
	report, err := r.run(t)
	must(t, err)
	if report.Mismatches != 0 || report.Rechecked != 3 {
		t.Errorf("the report is %+v", report)
	}
}

// TestKeyWrittenAnotherWay: 281.5 is watched, and becomes 281.500 while it is compared again.
func TestKeyWrittenAnotherWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id numeric PRIMARY KEY, v text); INSERT INTO t VALUES (281.5, 'v'), (282.5, 'v')", shadow.Change{Alters: []string{"ADD COLUMN w int"}})
	r.cutter = everything{}
	r.spoil(t, "UPDATE %[1]s SET v = 'stale' WHERE id = 281.5")
	r.replay = &hot{rig: r, t: t, sql: "UPDATE t SET id = 281.500, v = 'new' WHERE id = 281.5"}
	report, err := r.run(t)
	must(t, err)
	if report.Mismatches != 0 || report.Rechecked == 0 {
		t.Errorf("the report is %+v", report)
	}
}

// TestKeyWrittenAnotherWayAndLost: a row that stays wrong is a mismatch under every spelling.
func TestKeyWrittenAnotherWayAndLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id numeric PRIMARY KEY, v text); INSERT INTO t VALUES (281.5, 'v'), (282.5, 'v')", shadow.Change{Alters: []string{"ADD COLUMN w int"}})
	r.cutter = everything{}
	r.spoil(t, `CREATE FUNCTION defy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id = 281.50; NEW.v = 'wrong'; RETURN NEW; END $$;
		UPDATE %[1]s SET id = 281.50, v = 'wrong' WHERE id = 281.5; CREATE TRIGGER defy BEFORE INSERT OR UPDATE ON %[1]s FOR EACH ROW WHEN (NEW.id = 281.5) EXECUTE FUNCTION defy()`)
	report, err := r.run(t)
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) || report.Mismatches == 0 {
		t.Errorf("no mismatch: %v, %+v", err, report)
	}
}

// stuck is a live side whose replay waits, as for a synchronous standby that is away.
type stuck struct {
	*rig
	draining, release chan struct{}
}

func (s *stuck) Drain(ctx context.Context) error {
	close(s.draining)
	<-s.release
	return s.Flow.Drain(ctx)
}

// TestProgressWhileReplayWaits: whoever asks how far it is waits for nobody, since
// checkpoints and the watch over the WAL ask too.
func TestProgressWhileReplayWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.spoil(t, "UPDATE %[1]s SET v = 'stale' WHERE id = 3")
	waiting := &stuck{rig: r, draining: make(chan struct{}), release: make(chan struct{})}
	v := New(Config{Mode: Full, Workers: 2}, r.Plan, r.AsLogin, r.cutter, waiting, free{})
	ended := make(chan error, 1)
	go func() {
		_, err := v.Run(t.Context())
		ended <- err
	}()
	<-waiting.draining
	told := make(chan int64, 1)
	go func() { told <- v.Rows() }()
	select {
	case rows := <-told:
		if rows != 1000 {
			t.Errorf("it tells of %d rows", rows)
		}
	case <-time.After(time.Minute):
		t.Error("it tells nothing")
	}
	close(waiting.release)
	must(t, <-ended)
}

func TestSample(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 2450) i", toBigint)
	r.mode = Sample
	r.spoil(t, "UPDATE %[1]s SET v = 'stale' WHERE id IN (50, 150, 950, 1050, 1150, 2050, 2350, 2450)")
	report, err := r.run(t)
	must(t, err)
	// The ranges that are compared begin at 0, 1000 and 2000, and the last one at 2400.
	if report.RowsCompared != 350 || report.Rechecked != 4 || report.Mode != Sample {
		t.Errorf("the report is %+v, want 350 rows compared and 4 rechecked", report)
	}
	requireEqual(t, report, 350)
	if n := r.Differences(t); n != 8 {
		t.Errorf("the tables differ in %d rows, want 8 on both sides of 4 keys", n)
	}
}

func TestOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.defy(t)
	r.mode = Off
	report, err := r.run(t)
	must(t, err)
	if report.RowsCompared != 0 || report.Mode != Off {
		t.Errorf("the report is %+v", report)
	}
}

func TestTruncationEndsTheComparison(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.DB.Exec(t, "TRUNCATE t")
	if _, err := r.run(t); !errors.Is(err, replay.ErrTruncated) {
		t.Errorf("Run returned %v", err)
	}
}

// TestManyRowsDiffer: more than are rechecked at a time.
func TestManyRowsDiffer(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 25000) i", toBigint)
	r.spoil(t, "DELETE FROM %[1]s")
	report, err := r.run(t)
	must(t, err)
	requireEqual(t, report, 25000)
	if report.Rechecked != 25000 || report.RowsCompared != 25000 {
		t.Errorf("the report is %+v", report)
	}
}

// TestWhatADigestSeesAsEqual: conversions that keep or change the text of a
// value give the same digest on both sides, and a lost change is found and mended.
func TestWhatADigestSeesAsEqual(t *testing.T) {
	for name, c := range map[string]struct {
		script, alter, spoil string
		using                map[string]shadow.Expression
	}{
		"whole numbers, the key too": {"CREATE TABLE t (id int PRIMARY KEY, v smallint); INSERT INTO t SELECT i, i FROM generate_series(-50, 50) i",
			"ALTER COLUMN id TYPE bigint, ALTER COLUMN v TYPE numeric", "v = 0", nil},
		"the scale of numbers": {"CREATE TABLE t (id int PRIMARY KEY, v numeric(12,4)); INSERT INTO t SELECT i, i + 0.12345 FROM generate_series(1, 100) i; INSERT INTO t VALUES (101, 'NaN'), (102, NULL)",
			"ALTER COLUMN v TYPE numeric(14,2)", "v = 0", nil},
		"the scale of the key": {"CREATE TABLE t (id numeric(10,2) PRIMARY KEY, v text); INSERT INTO t SELECT i + 0.25, 'v' FROM generate_series(1, 100) i",
			"ALTER COLUMN id TYPE numeric(12,4)", "v = ''", nil},
		"the length of text": {`CREATE TABLE t (id text PRIMARY KEY, v text, w char(5)); INSERT INTO t SELECT i::text, 'v' || i || '  ', 'w' FROM generate_series(1, 100) i; INSERT INTO t VALUES ('', '', ''), ('x', NULL, NULL), ('(,"', '(,"', ',)')`,
			"ALTER COLUMN v TYPE varchar(40), ALTER COLUMN w TYPE char(9), ALTER COLUMN id TYPE varchar(9)", "v = 'x'", nil},
		"times": {"CREATE TABLE t (id timestamptz PRIMARY KEY, v timestamp); INSERT INTO t SELECT '2024-03-31'::timestamptz + i * interval '17 min', '2024-10-27'::timestamp + i * interval '17 min' FROM generate_series(1, 100) i; INSERT INTO t VALUES ('infinity', '-infinity'), ('0044-03-15 BC', NULL)",
			"ALTER COLUMN v TYPE timestamptz(0)", "v = now()", nil},
		"an expression": {"CREATE TABLE t (id int PRIMARY KEY, v text, w int); INSERT INTO t SELECT i, i::text, i FROM generate_series(1, 100) i",
			"ALTER COLUMN v TYPE int USING v::int * w", "v = 0", map[string]shadow.Expression{"v": {SQL: "o.v::int * o.w", Columns: []string{"v", "w"}}}},
		"documents and numbers with a sign": {`CREATE TABLE t (id float8 PRIMARY KEY, v json, f float4, b bytea); INSERT INTO t SELECT i / 3.0, '{"b": 1, "a": [1.0, null]}', i / 7.0, '\x00ff' FROM generate_series(1, 100) i; INSERT INTO t VALUES ('-0', 'null', '-0', ''), ('NaN', NULL, 'NaN', NULL), ('-Infinity', '1', 'Infinity', '\x5c')`,
			"ALTER COLUMN v TYPE jsonb, ALTER COLUMN f TYPE float8", "f = 1", nil},
		"a column that is generated": {"CREATE TABLE t (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
			"ALTER COLUMN id TYPE bigint", "v = 0", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.script, shadow.Change{Alters: []string{c.alter}, Using: c.using})
			r.cutter = everything{}
			want := int64(r.count(t))
			report, err := r.run(t)
			must(t, err)
			requireEqual(t, report, want)
			if report.Rechecked != 0 {
				t.Errorf("%d rows differ", report.Rechecked)
			}
			r.spoil(t, "UPDATE %[1]s SET "+c.spoil+" WHERE id = (SELECT min(id) FROM %[1]s)")
			mended, err := r.run(t)
			must(t, err)
			requireEqual(t, mended, want)
			if mended.Rechecked != 1 || mended.DigestOriginal != report.DigestOriginal {
				t.Errorf("the report is %+v, want one row rechecked and the digest %s", mended, report.DigestOriginal)
			}
		})
	}
}

func (r *rig) count(t *testing.T) (n int) {
	t.Helper()
	must(t, r.Session(t).QueryRow(t.Context(), "SELECT count(*) FROM public.t").Scan(&n))
	return n
}

// TestTwoRowsExchanged: the same values in each other's place are a difference.
func TestTwoRowsExchanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, thousand, toBigint)
	r.cutter = everything{}
	r.spoil(t, "UPDATE %[1]s SET v = CASE id WHEN 1 THEN 'v2' ELSE 'v1' END WHERE id IN (1, 2)")
	report, err := r.run(t)
	must(t, err)
	if report.Rechecked != 2 {
		t.Errorf("the report is %+v, want 2 rows rechecked", report)
	}
}
