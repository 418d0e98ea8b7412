package checkpoint_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// earlier makes of the state tables those of a pgshadow that kept no history, with
// a run in them.
const earlier = `ALTER TABLE pgshadow.run DROP COLUMN method, DROP COLUMN role, DROP COLUMN fingerprint, DROP COLUMN report`

// columnsSQL are the columns of the run's table with all that makes them up.
const columnsSQL = `SELECT string_agg(format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)), E'\n' ORDER BY attname)
	FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'pgshadow.run'::regclass AND attnum > 0 AND NOT attisdropped`

func columns(t *testing.T, conn *pgx.Conn) (text string) {
	t.Helper()
	must(t, conn.QueryRow(t.Context(), columnsSQL).Scan(&text))
	return text
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	must(t, err)
}

func create(t *testing.T, conn *pgx.Conn, run checkpoint.Run) {
	t.Helper()
	run.Change = json.RawMessage(`{}`)
	in(t, conn, func(tx pgx.Tx) error {
		must(t, checkpoint.Init(t.Context(), tx))
		return checkpoint.Create(t.Context(), tx, run)
	})
}

// ids are the runs' own names, in their order.
func ids(runs []checkpoint.Run) []string {
	found := []string{}
	for _, run := range runs {
		found = append(found, run.ID)
	}
	return found
}

// The state tables of an earlier pgshadow can be read as they are. The next run makes
// them what they would be if they were new, and keeps what is in them.
func TestEarlierTables(t *testing.T) {
	t.Parallel()
	_, conn, store := state(t)
	wanted := columns(t, conn)
	exec(t, conn, earlier)
	old := columns(t, conn)
	run, err := checkpoint.OpenRun(t.Context(), conn, 42)
	must(t, err)
	if got := fmt.Sprintf("%s %+v", run.ID, run.History); got != "first {Method:shadow Role: Fingerprint: Report:[110 117 108 108]}" {
		t.Errorf("read from the earlier tables: %s", got)
	}
	listed, err := checkpoint.RunsOf(t.Context(), conn, checkpoint.Which{}, 0)
	if err != nil || len(listed) != 1 {
		t.Errorf("listed from the earlier tables: %v, %v", listed, err)
	}
	if now := columns(t, conn); now != old {
		t.Errorf("reading has changed the columns to\n%s", now)
	}
	create(t, conn, checkpoint.Run{ID: "second", TableOID: 43, Table: "public.u", TableName: "u", Phase: "prepare"})
	if got := columns(t, conn); got != wanted {
		t.Errorf("the columns are\n%s\nwant\n%s", got, wanted)
	}
	for id, want := range map[string]string{"first": "shadow ''", "second": "shadow 'postgres'"} {
		run, err := checkpoint.FindRun(t.Context(), conn, id)
		must(t, err)
		if got := fmt.Sprintf("%s '%s'", run.Method, run.Role); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	exec(t, conn, earlier) // a run may have begun before the columns came
	must(t, store.SetReport(t.Context(), conn, map[string]int{"n": 1}))
	if run, err = checkpoint.FindRun(t.Context(), conn, "first"); err != nil || string(run.Report) != `{"n": 1}` {
		t.Errorf("the report of the earlier run is %s, %v", run.Report, err)
	}
	if got := columns(t, conn); got != wanted {
		t.Errorf("after a report the columns are\n%s\nwant\n%s", got, wanted)
	}
}

// Complete tables are not locked, so that no run waits for another's beginning.
func TestCompleteTablesAreNotLocked(t *testing.T) {
	t.Parallel()
	db, conn, _ := state(t)
	other := listen(t, db.With(map[string]string{"lock_timeout": "10"}), "unheard")
	in(t, conn, func(tx pgx.Tx) error {
		must(t, checkpoint.Init(t.Context(), tx))
		if _, err := checkpoint.Runs(t.Context(), other, false); err != nil {
			t.Errorf("another session cannot read: %v", err)
		}
		return nil
	})
	exec(t, conn, earlier)
	in(t, conn, func(tx pgx.Tx) error {
		must(t, checkpoint.Init(t.Context(), tx))
		if _, err := checkpoint.Runs(t.Context(), other, false); !pg.Is(err, pg.LockNotAvailable) {
			t.Errorf("another session reads while columns come: %v", err)
		}
		return nil
	})
}

// A report takes the place of those before it, and keeps them.
func TestReports(t *testing.T) {
	t.Parallel()
	_, conn, store := state(t)
	for i, want := range []string{`{"n": 0}`, `{"n": 1, "earlier": [{"n": 0}]}`, `{"n": 2, "earlier": [{"n": 0}, {"n": 1}]}`} {
		must(t, store.SetReport(t.Context(), conn, map[string]int{"n": i}))
		run, err := checkpoint.FindRun(t.Context(), conn, "first")
		if err != nil || string(run.Report) != want {
			t.Errorf("the report is %s, %v; want %s", run.Report, err, want)
		}
	}
}

// The runs of a table are found by every OID that it has had, and by the name.
func TestRunsOf(t *testing.T) {
	t.Parallel()
	db, err := pg.Open(pgtest.New(t).DSN)
	must(t, err)
	conn := listen(t, db, "unheard")
	ended := func(id string, oid, result uint32, title, name string) {
		create(t, conn, checkpoint.Run{ID: id, TableOID: oid, Table: title, TableName: name, Phase: "ended", History: checkpoint.History{Method: checkpoint.MethodNative, Fingerprint: "f"}})
		in(t, conn, func(tx pgx.Tx) error { return checkpoint.NewStore(id).EndIn(t.Context(), tx, "done", result) })
	}
	ended("a", 10, 11, "public.t", "t")         // it was called t,
	ended("b", 11, 12, "public.moved", "moved") // then moved,
	ended("c", 12, 13, "public.u", "u")         // and is u now
	ended("d", 20, 21, "public.u", "u")         // another one that was called u
	ended("e", 30, 31, "other.u", "u")
	create(t, conn, checkpoint.Run{ID: "f", TableOID: 13, Table: "public.v", TableName: "v", Phase: "copy"})
	for name, c := range map[string]struct {
		which checkpoint.Which
		limit int
		want  []string
	}{
		"all":           {checkpoint.Which{}, 0, []string{"f", "e", "d", "c", "b", "a"}},
		"some":          {checkpoint.Which{}, 2, []string{"f", "e"}},
		"OID and title": {checkpoint.Which{OID: 13, Table: "public.u"}, 0, []string{"f", "d", "c", "b", "a"}},
		"another's OID": {checkpoint.Which{OID: 21, Table: "public.w"}, 0, []string{"d"}},
		"title":         {checkpoint.Which{Table: "public.u"}, 0, []string{"d", "c"}},
		"name":          {checkpoint.Which{Name: "u"}, 2, []string{"e", "d"}},
		"nothing of it": {checkpoint.Which{OID: 99, Table: "public.x"}, 0, []string{}},
		"nor of a name": {checkpoint.Which{Name: "x"}, 0, []string{}},
		"before a swap": {checkpoint.Which{OID: 11, Table: "x.x"}, 0, []string{"b", "a"}},
	} {
		found, err := checkpoint.RunsOf(t.Context(), conn, c.which, c.limit)
		if got := ids(found); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
	found, err := checkpoint.FindRun(t.Context(), conn, "a")
	if err != nil || found.Method != "native" || found.Fingerprint != "f" || found.Role != "postgres" {
		t.Errorf("the history of a is %+v, %v", found.History, err)
	}
}
