package copier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/shadowtest"
)

// log records chunks in a table, in the transaction that it is given.
type log struct {
	before func(chunk keyset.Range) error // may be nil
	after  func(chunk keyset.Range) error // may be nil
}

func (l *log) RecordChunk(ctx context.Context, tx pgx.Tx, chunk keyset.Range, rows int64) error {
	var err error
	if l.before != nil {
		err = l.before(chunk)
	}
	if err == nil {
		_, err = tx.Exec(ctx, "INSERT INTO public.chunks (lo, hi, rows) VALUES ($1, $2, $3)", number(chunk.Lo), number(chunk.Hi), rows)
	}
	if err == nil && l.after != nil {
		err = l.after(chunk)
	}
	return err
}

func number(key *keyset.Key) *string {
	if key == nil {
		return nil
	}
	text := key.Values()[0]
	return &text
}

// brake is a throttle that counts who asks.
type brake struct {
	mu   sync.Mutex
	rows []int
	fail error
}

func (b *brake) Wait(_ context.Context, rows int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, rows)
	return b.fail
}

type rig struct {
	*shadowtest.Pair
	config Config
	log    *log
	brake  *brake
	chunks *Chunks
}

const tenThousand = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 10000) i"

var toBigint = shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint"}}

func newRig(t *testing.T, script string, change shadow.Change) *rig {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(t, script+"; CREATE TABLE chunks (n int GENERATED ALWAYS AS IDENTITY, lo text, hi text, rows bigint)")
	return &rig{Pair: shadowtest.New(t, db, "t", change), config: Config{Tuning: newTuned(3, 20*time.Millisecond)},
		log: &log{}, brake: &brake{}, chunks: NewChunks(nil)}
}

func (r *rig) copier() *Copier {
	c := New(r.config, r.Plan, r.AsLogin, r.log, r.brake, r.chunks)
	c.cutter.size.rows = 500 // rows of the first chunk
	return c
}

func (r *rig) requireCopied(t *testing.T) {
	t.Helper()
	if n := r.Differences(t); n != 0 {
		t.Errorf("the tables differ in %d rows", n)
	}
	// The recorded chunks follow each other from the beginning to the end.
	holes := pgtest.Scalar[int](t, r.DB, `SELECT count(*) FROM (SELECT lo, lag(hi) OVER w AS before, row_number() OVER w AS n FROM chunks WINDOW w AS (ORDER BY lo::int NULLS FIRST)) c
		WHERE CASE WHEN n = 1 THEN lo IS NOT NULL ELSE lo IS DISTINCT FROM before END`)
	if holes != 0 || pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM chunks WHERE hi IS NULL") != 1 {
		t.Errorf("the recorded chunks have %d holes", holes)
	}
	if rows := pgtest.Scalar[int64](t, r.DB, "SELECT sum(rows)::bigint FROM chunks"); rows != r.chunks.Rows() || rows != pgtest.Scalar[int64](t, r.DB, "SELECT count(*) FROM t") {
		t.Errorf("%d rows are recorded, %d counted", rows, r.chunks.Rows())
	}
	if !r.chunks.Complete() {
		t.Error("the copy is not complete")
	}
}

// recorded are the committed chunks, as a resumed process reads them.
func (r *rig) recorded(t *testing.T) []Done {
	t.Helper()
	rows, err := r.DB.Conn(t).Query(t.Context(), "SELECT lo, hi, rows FROM chunks ORDER BY lo::int NULLS FIRST")
	must(t, err)
	chunks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Done, err error) {
		var lo, hi *string
		err = row.Scan(&lo, &hi, &d.Rows)
		d.Range = keyset.Range{Lo: (*keyset.Key)(lo), Hi: (*keyset.Key)(hi)}
		return d, err
	})
	must(t, err)
	return chunks
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCopy(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		change shadow.Change
	}{
		"many chunks": {tenThousand, toBigint},
		"no rows":     {"CREATE TABLE t (id int PRIMARY KEY)", toBigint},
		"converted, generated, with an identity": {`CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, twice text GENERATED ALWAYS AS (v || v) STORED);
			INSERT INTO t (v) SELECT i::text FROM generate_series(1, 2000) i`,
			shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint, ADD COLUMN n int, DROP COLUMN twice"}, Set: map[string]shadow.Expression{"n": {SQL: "o.v::int + 1", Columns: []string{"v"}}}}},
		"a child that is none of it": {tenThousand + "; CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (-1), (20000)", toBigint},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.script, c.change)
			must(t, r.copier().Run(t.Context()))
			if strings.Contains(name, "child") {
				r.DB.Exec(t, "DROP TABLE child")
			}
			r.requireCopied(t)
		})
	}
}

// TestChunksAreAnnouncedBeforeTheyBegin: replay leaves a key above the high
// watermark to the copy, so no chunk may be read before it is below that (INV-3),
// and none below the low one before it is committed (INV-2).
func TestChunksAreAnnouncedBeforeTheyBegin(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand, toBigint)
	r.log.before = func(chunk keyset.Range) error {
		low, high := r.chunks.Watermarks()
		_, hi := ends(chunk, 10_000)
		lowAt, _ := ends(keyset.Range{Lo: low.Key}, 10_000)
		highAt, _ := ends(keyset.Range{Lo: high.Key}, 10_000)
		if (!high.End && highAt < hi) || low.End || lowAt >= hi {
			return fmt.Errorf("while chunk %s is copied the watermarks are %s and %s", chunk, shown(low), shown(high))
		}
		return nil
	}
	told := map[string]int64{}
	var mu sync.Mutex
	r.config.OnChunk = func(chunk keyset.Range, rows int64, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		told[chunk.String()] += rows
		if took <= 0 {
			t.Errorf("chunk %s took %s", chunk, took)
		}
	}
	must(t, r.copier().Run(t.Context()))
	r.requireCopied(t)
	for _, chunk := range r.recorded(t) {
		if rows, ok := told[chunk.Range.String()]; !ok || rows != chunk.Rows {
			t.Errorf("chunk %s of %d rows was told of with %d", chunk.Range, chunk.Rows, rows)
		}
	}
	asked := 0
	for _, rows := range r.brake.rows {
		asked += rows
	}
	if len(r.brake.rows) < len(told)+r.config.Tuning.Workers() || asked != 10_000 {
		t.Errorf("for %d chunks the throttle was asked %d times, about %d rows", len(told), len(r.brake.rows), asked)
	}
}

// TestStoppedCopyResumes: several times, with chunks in flight.
func TestStoppedCopyResumes(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand, toBigint)
	for stop := 1; ; stop++ {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		var mu sync.Mutex
		r.config.OnChunk = func(keyset.Range, int64, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if seen++; seen == 3 && stop < 4 {
				cancel()
			}
		}
		err := r.copier().Run(ctx)
		cancel()
		if stop == 4 {
			must(t, err)
			break
		}
		if err == nil {
			t.Fatal("the copy went on")
		}
		r.chunks = NewChunks(r.recorded(t))
	}
	r.requireCopied(t)
}

// TestChunkAndItsRecordAreOneTransaction: where the record fails, or the commit
// after it, no row of the chunk is there.
func TestChunkAndItsRecordAreOneTransaction(t *testing.T) {
	errRecord := errors.New("no record")
	for name, spoil := range map[string]func(*rig){
		"the record fails": func(r *rig) {
			n := 0
			r.log.after = func(keyset.Range) error {
				if n++; n == 3 {
					return errRecord
				}
				return nil
			}
		},
		"the commit fails": func(r *rig) {
			r.DB.Exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'too late'; END $$;
				CREATE CONSTRAINT TRIGGER late AFTER INSERT ON chunks DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.n = 3) EXECUTE FUNCTION refuse()`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tenThousand, toBigint)
			r.config.Tuning = newTuned(1, 20*time.Millisecond)
			spoil(r)
			if err := r.copier().Run(t.Context()); err == nil {
				t.Fatal("the copy went on")
			}
			got := pgtest.Scalar[string](t, r.DB, "SELECT (SELECT count(*) FROM "+r.Plan.Names.Shadow()+") || ' copied, ' || sum(rows) || ' recorded' FROM chunks")
			want := fmt.Sprintf("%[1]d copied, %[1]d recorded", r.chunks.Rows())
			if got != want || r.chunks.Rows() == 0 {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// limited is a change whose conversion is cancelled, as by a statement timeout,
// in a transaction that converts more than 60 rows.
const limited = `CREATE FUNCTION limited(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
	PERFORM set_config('test.rows', (coalesce(nullif(current_setting('test.rows', true), ''), '0')::int + 1)::text, true);
	IF current_setting('test.rows')::int > 60 THEN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END IF;
	RETURN v; END $$`

func TestChunkThatRunsIntoItsTimeLimitIsSplit(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand+"; DELETE FROM t WHERE id > 2000; "+limited, shadow.Change{Alters: []string{"ALTER COLUMN v TYPE varchar(20)"},
		Using: map[string]shadow.Expression{"v": {SQL: "public.limited(o.v)", Columns: []string{"v"}, Functions: []string{"limited"}}}})
	must(t, r.copier().Run(t.Context()))
	if n := pgtest.Scalar[int](t, r.DB, "SELECT max(rows)::int FROM chunks"); n > 60 || n < 10 {
		t.Errorf("the largest chunk has %d rows, want some less than 60", n)
	}
	if n := pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM "+r.Plan.Names.Shadow()); n != 2000 {
		t.Errorf("%d rows were copied, want 2000", n)
	}
}

func TestCopyWaitsForALock(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand, toBigint)
	holder := r.DB.Conn(t)
	_, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE t")
	must(t, err)
	connect := r.AsLogin
	c := New(r.config, r.Plan, func(ctx context.Context, purpose string) (*pgx.Conn, error) {
		conn, err := connect(ctx, purpose)
		if err == nil {
			_, err = conn.Exec(ctx, "SET lock_timeout = 30")
		}
		return conn, err
	}, r.log, r.brake, r.chunks)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	for waiting := 0; waiting < 20; {
		waiting += pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted")
	}
	_, err = holder.Exec(t.Context(), "ROLLBACK")
	must(t, err)
	must(t, <-ended)
	r.requireCopied(t)
}

func TestThrottleEndsTheCopy(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand, toBigint)
	r.brake.fail = errors.New("no more")
	if err := r.copier().Run(t.Context()); !errors.Is(err, r.brake.fail) {
		t.Errorf("Run returned %v", err)
	}
	if n := pgtest.Scalar[int](t, r.DB, "SELECT count(*) FROM "+r.Plan.Names.Shadow()); n != 0 {
		t.Errorf("%d rows were copied", n)
	}
}
