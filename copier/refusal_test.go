package copier

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// TestDataErrorNamesTheRow among many, the first where there are several.
func TestDataErrorNamesTheRow(t *testing.T) {
	for name, c := range map[string]struct {
		script, alter, using string
		key                  keyset.Key
		code                 string
	}{
		"too long":             {tenThousand + "; UPDATE t SET v = 'far too long' WHERE id = 7531", "ALTER COLUMN v TYPE varchar(8)", "", keyset.NewKey("7531"), "22001"},
		"several":              {tenThousand + "; UPDATE t SET v = NULL WHERE id IN (1234, 1235, 1900, 9000)", "ALTER COLUMN v SET NOT NULL", "", keyset.NewKey("1234"), "23502"},
		"the first":            {tenThousand + "; UPDATE t SET v = '' WHERE id = 1", "ADD CHECK (v <> '')", "", keyset.NewKey("1"), "23514"},
		"the last":             {tenThousand + "; UPDATE t SET v = '' WHERE id = 10000", "ADD CHECK (v <> '')", "", keyset.NewKey("10000"), "23514"},
		"only one":             {"CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (5, 'x')", "ALTER COLUMN v TYPE int", "o.v::int", keyset.NewKey("5"), "22P02"},
		"all":                  {tenThousand, "ALTER COLUMN v TYPE int", "o.v::int", keyset.NewKey("1"), "22P02"},
		"owner's code":         {tenThousand + "; CREATE FUNCTION f(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF v = 'v42' THEN RAISE 'never that'; END IF; RETURN 1; END $$", "ALTER COLUMN v TYPE int", "public.f(o.v)", keyset.NewKey("42"), "P0001"},
		"with a composite key": {`CREATE TABLE t (n int, region text COLLATE "en-x-icu", v text, PRIMARY KEY (region, n)); INSERT INTO t SELECT i / 3, (ARRAY['a', 'B', 'c'])[1 + i % 3], 'v' FROM generate_series(0, 5999) i; UPDATE t SET v = '' WHERE region = 'B' AND n = 1500`, "ADD CHECK (v <> '')", "", keyset.NewKey("B", "1500"), "23514"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := shadow.Change{Alters: []string{c.alter}}
			if c.using != "" {
				change.Alters[0] += " USING " + strings.ReplaceAll(c.using, "o.", "")
				change.Using = map[string]shadow.Expression{"v": {SQL: c.using, Columns: []string{"v"}}}
			}
			r := newRig(t, c.script, change)
			r.config.Tuning = newTuned(1, 20*time.Millisecond)
			err := r.copier().Run(t.Context())
			var data *DataError
			if !errors.As(err, &data) || data.Key != c.key || !pg.Is(err, c.code) {
				t.Fatalf("Run returned %v, want SQLSTATE %s of the row with key %s", err, c.code, c.key)
			}
			if text := err.Error(); !strings.Contains(text, "the new schema refuses the row with key "+c.key.String()) || !strings.Contains(text, "(SQLSTATE "+c.code+")") {
				t.Errorf("it says %s", text)
			}
		})
	}
}

// TestRowsThatCollide: two keys that become one; no row is refused alone.
func TestRowsThatCollide(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id numeric(10,2) PRIMARY KEY); INSERT INTO t SELECT i FROM generate_series(1, 2000) i; INSERT INTO t VALUES (1500.25)",
		shadow.Change{Alters: []string{"ALTER COLUMN id TYPE numeric(10,0)"}})
	r.config.Tuning = newTuned(1, 20*time.Millisecond)
	if err := r.copier().Run(t.Context()); !pg.IsUniqueConflict(err) || !strings.Contains(pg.Server(err).Detail, "(1500)") {
		t.Errorf("Run returned %v", err)
	}
}

// TestRefusedRowsAreLeftOut: all others are copied, and each refused one is told once.
func TestRefusedRowsAreLeftOut(t *testing.T) {
	for name, c := range map[string]struct {
		spoil string
		want  func(id int) bool // is refused
	}{
		"one":               {"id = 7531", func(id int) bool { return id == 7531 }},
		"the ends":          {"id IN (1, 10000)", func(id int) bool { return id == 1 || id == 10000 }},
		"side by side":      {"id BETWEEN 1200 AND 1260", func(id int) bool { return id >= 1200 && id <= 1260 }},
		"everywhere":        {"id % 100 = 3", func(id int) bool { return id%100 == 3 }},
		"all but a handful": {"id > 4 AND id < 400 OR id > 410 AND id < 900", func(id int) bool { return id > 4 && id < 400 || id > 410 && id < 900 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tenThousand+"; UPDATE t SET v = '' WHERE "+c.spoil, shadow.Change{Alters: []string{"ADD CHECK (v <> '')"}})
			var mu sync.Mutex
			told := map[keyset.Key]int{}
			r.config.OnRefused = func(refused *DataError) bool {
				mu.Lock()
				defer mu.Unlock()
				told[refused.Key]++
				if !pg.Is(refused, "23514") {
					t.Errorf("the row is refused by %v", refused)
				}
				return true
			}
			if err := r.copier().Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			refused := 0
			for id := 1; id <= 10000; id++ {
				want := 0
				if c.want(id) {
					want = 1
					refused++
				}
				if got := told[keyset.NewKey(strconv.Itoa(id))]; got != want {
					t.Errorf("row %d is told %d times as refused, want %d", id, got, want)
				}
			}
			if n := r.Differences(t); n != refused {
				t.Errorf("%d rows differ, want the %d that are refused", n, refused)
			}
			if !r.chunks.Complete() || r.chunks.Rows() != int64(10000-refused) {
				t.Errorf("complete: %t, with %d rows", r.chunks.Complete(), r.chunks.Rows())
			}
		})
	}
}

// TestRefusedRowsUntilThereAreEnough: the copy ends with the last that was wanted.
func TestRefusedRowsUntilThereAreEnough(t *testing.T) {
	t.Parallel()
	r := newRig(t, tenThousand+"; UPDATE t SET v = '' WHERE id % 10 = 0", shadow.Change{Alters: []string{"ADD CHECK (v <> '')"}})
	r.config.Tuning = newTuned(1, 20*time.Millisecond)
	told := 0
	r.config.OnRefused = func(*DataError) bool { told++; return told < 5 }
	err := r.copier().Run(t.Context())
	var data *DataError
	if !errors.As(err, &data) || data.Key != keyset.NewKey("50") || told != 5 {
		t.Errorf("Run returned %v after %d rows", err, told)
	}
}

// TestRefusedWhateverTheRows: an expression that the planner already fails at is no
// row's fault, and the copy comes to an end.
func TestRefusedWhateverTheRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, "CREATE TABLE t (id int PRIMARY KEY, v int)", shadow.Change{Alters: []string{"ADD COLUMN w int"},
		Set: map[string]shadow.Expression{"w": {SQL: "1 / 0"}}})
	r.config.OnRefused = func(refused *DataError) bool { t.Errorf("told of %v", refused); return true }
	var rejected *shadow.RejectedError
	if err := r.copier().Run(t.Context()); !errors.As(err, &rejected) || !pg.Is(err, "22012") {
		t.Errorf("Run returned %v", err)
	}
}
