package checkpoint_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state makes the state tables with one run of table 42.
func state(t *testing.T) (*pg.Database, *pgx.Conn, *checkpoint.Store) {
	t.Helper()
	db, err := pg.Open(pgtest.New(t).DSN)
	must(t, err)
	conn := listen(t, db, "unheard")
	if exists, err := checkpoint.Exists(t.Context(), conn); exists || err != nil {
		t.Fatalf("before: %t, %v", exists, err)
	}
	in(t, conn, func(tx pgx.Tx) error {
		must(t, checkpoint.Init(t.Context(), tx))
		must(t, checkpoint.Init(t.Context(), tx)) // does no harm
		return checkpoint.Create(t.Context(), tx, checkpoint.Run{ID: "first", TableOID: 42, Table: "public.t", TableName: "t", Change: json.RawMessage(`{"a": 1}`),
			Phase: "prepare", Owner: checkpoint.Owner{Host: "here", PID: 7}})
	})
	if exists, err := checkpoint.Exists(t.Context(), conn); !exists || err != nil {
		t.Fatalf("after: %t, %v", exists, err)
	}
	return db, conn, checkpoint.NewStore("first")
}

func listen(t *testing.T, db *pg.Database, channel string) *pgx.Conn {
	t.Helper()
	conn, err := db.Listen(t.Context(), "test", channel)
	must(t, err)
	t.Cleanup(func() { _ = pg.Close(context.Background(), conn) }) // a test may have closed it
	return conn
}

func in(t *testing.T, conn *pgx.Conn, work func(tx pgx.Tx) error) {
	t.Helper()
	must(t, pg.InTx(t.Context(), conn, pgx.TxOptions{}, work))
}

// TestRun follows the row of a run from its beginning to its end.
func TestRun(t *testing.T) {
	t.Parallel()
	_, conn, store := state(t)
	ctx := t.Context()
	if other, err := checkpoint.OpenRun(ctx, conn, 43); other != nil || err != nil {
		t.Errorf("another table has the run %v, %v", other, err)
	}
	must(t, store.SetPhase(ctx, conn, "copy", checkpoint.Owner{Host: "there", PID: 8}))
	must(t, store.Touch(ctx, conn, 0x123, map[string]int{"rows": 5}))
	must(t, store.SetSteering(ctx, conn, map[string]string{"paused": "by me"}))
	in(t, conn, func(tx pgx.Tx) error { return store.SetHeal(ctx, tx, true) })
	run, err := checkpoint.OpenRun(ctx, conn, 42)
	must(t, err)
	if got := fmt.Sprint(run.ID, run.Table, run.TableName, run.Phase, run.Owner, string(run.Progress), string(run.Steering), string(run.Plan), run.Heal, run.EndedAt); got !=
		`firstpublic.ttcopy{there 8}{"rows": 5}{"paused": "by me"}nulltrue <nil>` {
		t.Errorf("the run is %s", got)
	}
	if open, err := store.Claim(ctx, conn); !open || err != nil {
		t.Errorf("claimed: %t, %v", open, err)
	}
	if untidy, err := checkpoint.UntidyRun(ctx, conn, 99, "ended"); untidy != nil || err != nil {
		t.Errorf("an open run is untidy: %v, %v", untidy, err)
	}
	in(t, conn, func(tx pgx.Tx) error { return store.EndIn(ctx, tx, "done", 99) })
	if outcome, ended, err := store.LoadEnd(ctx, conn); outcome != "done" || !ended || err != nil {
		t.Errorf("it ended %q, %t, %v", outcome, ended, err)
	}
	if open, err := store.Claim(ctx, conn); open || err != nil {
		t.Errorf("claimed after its end: %t, %v", open, err)
	}
	must(t, store.End(ctx, conn, "aborted", "too late")) // it has ended already
	untidy, err := checkpoint.UntidyRun(ctx, conn, 99, "ended")
	if err != nil || untidy == nil || untidy.ID != "first" || untidy.Outcome != "done" || untidy.EndedAt == nil {
		t.Errorf("the untidy run is %+v, %v", untidy, err)
	}
	must(t, store.SetPhase(ctx, conn, "ended", checkpoint.Owner{}))
	if untidy, err := checkpoint.UntidyRun(ctx, conn, 99, "ended"); untidy != nil || err != nil {
		t.Errorf("a tidy run is untidy: %v, %v", untidy, err)
	}
	all, err := checkpoint.Runs(ctx, conn, false)
	if open, openErr := checkpoint.Runs(ctx, conn, true); err != nil || openErr != nil || len(all) != 1 || len(open) != 0 {
		t.Errorf("%d runs, %d open, %v, %v", len(all), len(open), err, openErr)
	}
}

// TestChunks come back in the order of their keys, whatever order they were
// recorded in, and with bounds of any text.
func TestChunks(t *testing.T) {
	t.Parallel()
	_, conn, store := state(t)
	columns := keyset.Columns{{Name: "a", Type: "integer"}, {Name: "b", Type: "text"}}
	key := func(values ...string) *keyset.Key { k := keyset.NewKey(values...); return &k }
	ranges := []keyset.Range{{Hi: key("9", `{"x,\`)}, {Lo: key("9", `{"x,\`), Hi: key("10", "")}, {Lo: key("10", "")}}
	for _, i := range []int{1, 2, 0} {
		in(t, conn, func(tx pgx.Tx) error { return store.RecordChunk(t.Context(), tx, ranges[i], int64(i)) })
	}
	chunks, err := store.Chunks(t.Context(), conn, columns)
	must(t, err)
	for i, chunk := range chunks {
		if chunk.Range.String() != ranges[i].String() || chunk.Rows != int64(i) {
			t.Errorf("chunk %d is %s with %d rows", i, chunk.Range, chunk.Rows)
		}
	}
	in(t, conn, func(tx pgx.Tx) error { return store.ForgetChunks(t.Context(), tx) })
	if chunks, err := store.Chunks(t.Context(), conn, columns); len(chunks) != 0 || err != nil {
		t.Errorf("%d chunks are left, %v", len(chunks), err)
	}
}

// TestCommands are heard at once, answered once, and can be taken back.
func TestCommands(t *testing.T) {
	t.Parallel()
	db, _, store := state(t)
	worker, operator := listen(t, db, checkpoint.Channel), listen(t, db, checkpoint.Channel)
	issue := func(name, argument string) int64 {
		id, err := checkpoint.Issue(t.Context(), operator, "first", name, argument)
		must(t, err)
		return id
	}
	first, second := issue("set", "a=b"), issue("pause", "")
	must(t, pg.AwaitNotification(t.Context(), worker, time.Minute))
	commands, err := store.Pending(t.Context(), worker)
	if err != nil || len(commands) != 2 || commands[0].ID != first || commands[0].Name != "set" || commands[0].Argument != "a=b" || commands[0].By != "postgres" ||
		commands[0].Age < 0 || commands[0].Age > time.Hour || commands[1].ID != second {
		t.Fatalf("pending are %+v, %v", commands, err)
	}
	if answer, err := checkpoint.LoadAnswer(t.Context(), operator, first); answer.Given || err != nil {
		t.Errorf("before: %+v, %v", answer, err)
	}
	if given, err := store.Answer(t.Context(), worker, first, true, "yes"); !given || err != nil {
		t.Errorf("answered: %t, %v", given, err)
	}
	if again, err := store.Answer(t.Context(), operator, first, false, "withdrawn"); again || err != nil {
		t.Errorf("withdrawn after the answer: %t, %v", again, err)
	}
	if answer, err := checkpoint.LoadAnswer(t.Context(), operator, first); answer != (checkpoint.Answer{Given: true, Accepted: true, Text: "yes"}) || err != nil {
		t.Errorf("the answer is %+v, %v", answer, err)
	}
	if withdrawn, err := store.Answer(t.Context(), operator, second, false, "withdrawn"); !withdrawn || err != nil {
		t.Errorf("withdrawn: %t, %v", withdrawn, err)
	}
	if commands, err := store.Pending(t.Context(), worker); len(commands) != 0 || err != nil {
		t.Errorf("pending are %+v, %v", commands, err)
	}
	if _, err := checkpoint.LoadAnswer(t.Context(), operator, 4711); err == nil {
		t.Error("there is an answer to a command that was never issued")
	}
	if _, err := checkpoint.Issue(t.Context(), operator, "nobody", "pause", ""); err == nil {
		t.Error("a command to no run was issued")
	}
}

// TestAwaitNotification ends by its time, by its context, and by the loss of the
// session, and leaves the session usable after the first.
func TestAwaitNotification(t *testing.T) {
	t.Parallel()
	db, control, _ := state(t)
	conn := listen(t, db, checkpoint.Channel)
	must(t, pg.AwaitNotification(t.Context(), conn, 10*time.Millisecond))
	_, err := conn.Exec(t.Context(), "SELECT 1")
	must(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pg.AwaitNotification(ended, conn, time.Minute); err == nil || pg.IsConnection(err) {
		t.Errorf("a context that has ended gives %v", err)
	}
	conn = listen(t, db, checkpoint.Channel)
	_, err = control.Exec(t.Context(), "SELECT pg_catalog.pg_terminate_backend($1)", conn.PgConn().PID())
	must(t, err)
	if err := pg.AwaitNotification(t.Context(), conn, time.Minute); !pg.IsConnection(err) {
		t.Errorf("a session that is lost gives %v", err)
	}
}
