package copier

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/shadowtest"
)

// TestCut follows the key space of hard keys in steps of a few rows: each range
// but the last holds just so many.
func TestCut(t *testing.T) {
	for name, script := range map[string]string{
		"whole numbers":                "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i * 7 - 40, 1 FROM generate_series(1, 23) i",
		"text in its own order":        `CREATE TABLE t (id text COLLATE "en-x-icu" PRIMARY KEY, v int); INSERT INTO t SELECT chr(64 + i) || repeat('x', i % 3), 1 FROM generate_series(1, 23) i WHERE i <> 28`,
		"an order unlike the columns'": `CREATE TABLE t (v int, b text, a date, PRIMARY KEY (a, b)); INSERT INTO t SELECT 1, (i % 4)::text, '2024-01-01'::date + i / 4 FROM generate_series(1, 23) i`,
		"bytes":                        `CREATE TABLE t (id bytea PRIMARY KEY, v int); INSERT INTO t SELECT decode(lpad(to_hex(i * 11), 2, '0'), 'hex') || '\x00', 1 FROM generate_series(0, 22) i`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, script)
			p := shadowtest.New(t, db, "t", shadow.Change{Alters: []string{"ALTER COLUMN v TYPE bigint"}})
			conn := p.Owner(t)
			cutter := NewCutter(p.Plan, always(time.Second))
			cutter.size.rows = 5
			var within keyset.Range
			var counts []string
			for range 10 {
				hi, err := cutter.Cut(t.Context(), conn, within)
				must(t, err)
				part := keyset.Range{Lo: within.Lo, Hi: hi}
				predicate, args := p.Plan.Key.Predicate(p.Plan.Key.Tuple(shadow.RowAlias), part, 1)
				var n int
				must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM public.t AS o WHERE "+predicate, args...).Scan(&n))
				counts = append(counts, fmt.Sprint(n))
				if hi == nil {
					break
				}
				// Within a range that ends here, there is no later cut.
				if again, err := cutter.cut(t.Context(), conn, part, 6); err != nil || again != nil {
					t.Errorf("cut beyond the end of %s: %v, %v", part, again, err)
				}
				within.Lo = hi
			}
			if got := strings.Join(counts, " "); got != "5 5 5 5 3" {
				t.Errorf("the ranges hold %s rows", got)
			}
		})
	}
}
