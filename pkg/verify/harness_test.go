package verify

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/flowtest"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// hundreds cuts the whole numbers of a key into ranges of a hundred.
type hundreds struct{ rows atomic.Int64 }

func (h *hundreds) Cut(ctx context.Context, conn *pgx.Conn, within keyset.Range) (*keyset.Key, error) {
	next := 100
	if within.Lo != nil {
		lo, err := strconv.Atoi(string(*within.Lo))
		if err != nil {
			return nil, err
		}
		next = lo + 100
	}
	var last int
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(id), 0)::int FROM public.t").Scan(&last); err != nil || next >= last {
		return nil, err
	}
	key := keyset.NewKey(strconv.Itoa(next))
	return &key, nil
}

func (h *hundreds) Observe(rows int, _ time.Duration) { h.rows.Add(int64(rows)) }

// everything is one range.
type everything struct{}

func (everything) Cut(context.Context, *pgx.Conn, keyset.Range) (*keyset.Key, error) {
	return nil, nil //nolint:nilnil // no bound is an answer
}

func (everything) Observe(int, time.Duration) {}

type free struct{}

func (free) Wait(context.Context, int) error { return nil }

type rig struct {
	*flowtest.Flow
	mode   Mode
	cutter Cutter
	replay Replay
}

const thousand = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i"

var toBigint = shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint"}}

func newRig(t *testing.T, script string, change shadow.Change) *rig {
	t.Helper()
	f := flowtest.New(t, pgtest.New(t), script, change)
	return &rig{Flow: f, mode: Full, cutter: &hundreds{}, replay: f}
}

func (r *rig) run(t *testing.T) (Report, error) {
	t.Helper()
	return New(Config{Mode: r.mode, Workers: 2}, r.Plan, r.AsLogin, r.cutter, r.replay, free{}).Run(t.Context())
}

// spoil changes the shadow behind everybody's back.
func (r *rig) spoil(t *testing.T, format string) {
	t.Helper()
	r.DB.Exec(t, fmt.Sprintf(format, r.Plan.Names.Shadow()))
}

// defy spoils rows of the shadow so that replay cannot mend them: row 3 comes
// out changed, row 5 not at all, and row 2000 stays.
func (r *rig) defy(t *testing.T) {
	t.Helper()
	r.spoil(t, `CREATE FUNCTION defy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF TG_OP = 'DELETE' THEN IF OLD.id = 2000 THEN RETURN NULL; END IF; RETURN OLD; END IF;
			IF NEW.id = 5 THEN RETURN NULL; END IF;
			IF NEW.id = 3 THEN NEW.v = 'wrong'; END IF;
			RETURN NEW; END $$;
		INSERT INTO %[1]s VALUES (2000, 'extra'); DELETE FROM %[1]s WHERE id = 5; UPDATE %[1]s SET v = 'wrong' WHERE id = 3;
		CREATE TRIGGER defy BEFORE INSERT OR UPDATE OR DELETE ON %[1]s FOR EACH ROW EXECUTE FUNCTION defy()`)
}

func sorted(keys []keyset.Key) string {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b keyset.Key) int {
		x, _ := strconv.Atoi(string(a))
		y, _ := strconv.Atoi(string(b))
		return x - y
	})
	return fmt.Sprint(keys)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// requireEqual fails unless so many rows agree on both sides.
func requireEqual(t *testing.T, report Report, rows int64) {
	t.Helper()
	if report.OriginalRows != rows || report.ShadowRows != rows || report.DigestOriginal != report.DigestShadow || report.Mismatches != 0 {
		t.Errorf("want %d equal rows, the report is %+v", rows, report)
	}
}
