package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

func TestPublicationIsOfOneTableOnly(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE "T ""x" (id int PRIMARY KEY); CREATE TABLE child () INHERITS ("T ""x")`)
	conn := (&rig{database: open(t, db)}).session(t)
	const name = `odd "name"`
	must(t, pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return CreatePublication(t.Context(), tx, "", name, pg.Ident("public", `T "x`), false)
	}))
	got := pgtest.Scalar[string](t, db, "SELECT string_agg(tablename, ',') || pubinsert || pubupdate || pubdelete || pubtruncate FROM pg_publication JOIN pg_publication_tables USING (pubname) GROUP BY pubinsert, pubupdate, pubdelete, pubtruncate")
	if want := `T "xtruetruetruetrue`; got != want {
		t.Errorf("it publishes %s, want %s", got, want)
	}
	for range 2 { // the second finds none, which is fine
		must(t, DropPublication(t.Context(), conn, name))
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_publication"); n != 0 {
		t.Errorf("%d publications are left", n)
	}
}

func open(t *testing.T, db *pgtest.DB) *pg.Database {
	t.Helper()
	database, err := pg.Open(db.DSN)
	must(t, err)
	return database
}

func TestSlotThatIsInUseIsDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	conn := r.session(t)
	if state := r.slot(t); !state.Exists || !state.Active || state.Lost || state.Confirmed != r.config.Start || state.Retained < 0 {
		t.Errorf("the slot's state is %+v", state)
	}
	must(t, DropSlot(t.Context(), conn, r.config.Slot))
	if err := r.awaitEnd(t); err == nil {
		t.Error("the stream goes on without a slot")
	}
	if state := r.slot(t); state != (SlotState{}) {
		t.Errorf("the slot's state is %+v", state)
	}
	must(t, DropSlot(t.Context(), conn, r.config.Slot))
	if _, err := Open(t.Context(), r.database, r.config, r.sink); !pg.Is(err, pg.UndefinedObject) {
		t.Errorf("opening without a slot returned %v", err)
	}
}

// TestSlotCreationWaits for a transaction that was open before it, of another
// database too; who that is can be asked meanwhile, and the wait be given up.
func TestSlotCreationWaits(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db, other := pgtest.NewOn(t, server), pgtest.NewOn(t, server)
	database := open(t, db)
	must(t, begin(t, db, "PREPARE TRANSACTION 'held'"))
	must(t, begin(t, other, ""))

	creator, asker := (&rig{database: database}).session(t), (&rig{database: database}).session(t)
	ctx, cancel := context.WithCancel(t.Context())
	created := make(chan error, 1)
	go func() {
		_, err := CreateSlot(ctx, creator, "waits")
		created <- err
	}()
	eventually(t, "the creation to wait", func() bool {
		return pgtest.Scalar[bool](t, db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_create_logical%' AND wait_event = 'transactionid')")
	})
	blockers, err := SlotBlockers(t.Context(), asker)
	must(t, err)
	text := fmt.Sprint(blockers)
	if len(blockers) != 2 || !strings.Contains(text, "prepared transaction 'held'") || !strings.Contains(text, other.Name) || !strings.Contains(text, "idle in transaction") {
		t.Errorf("the blockers are %v", blockers)
	}
	cancel()
	if err := <-created; !pg.Is(err, pg.QueryCanceled) && !errors.Is(err, context.Canceled) {
		t.Errorf("the creation ended with %v", err)
	}
	state, err := LoadSlot(t.Context(), asker, "waits")
	must(t, err)
	if state.Exists {
		t.Error("the slot is there although its creation was given up")
	}
}

// begin opens a transaction that has an id, and leaves it as end says.
func begin(t *testing.T, db *pgtest.DB, end string) error {
	t.Helper()
	_, err := db.Conn(t).Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id(); "+end)
	return err
}

// TestLostSlot is one whose WAL the server has removed.
func TestLostSlot(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{
		"max_slot_wal_keep_size": "1MB", "wal_keep_size": "0", "min_wal_size": "2MB", "max_wal_size": "2MB"}, InitdbArgs: []string{"--wal-segsize=1"}})
	r := newRig(t, pgtest.NewOn(t, server), plain, idKey)
	r.stop()
	<-r.stream.Done()
	conn := r.session(t)
	eventually(t, "the slot to be free", func() bool { return !r.slot(t).Active })
	eventually(t, "the slot to be lost", func() bool {
		_, err := conn.Exec(t.Context(), "SELECT pg_switch_wal()")
		must(t, err)
		_, err = conn.Exec(t.Context(), "SELECT pg_catalog.pg_logical_emit_message(true, 'x', repeat('x', 1000000)); ")
		must(t, err)
		_, err = conn.Exec(t.Context(), "CHECKPOINT")
		must(t, err)
		return r.slot(t).Lost
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := Open(ctx, r.database, r.config, r.sink); pg.Server(err) == nil {
		t.Errorf("opening a lost slot returned %v", err)
	}
}
