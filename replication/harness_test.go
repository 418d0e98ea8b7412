package replication

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const patience = 20 * time.Second

// collector is a Sink that keeps what comes, until the test says it is applied.
type collector struct {
	mu      sync.Mutex
	changes []Change
	cuts    []Change // truncations
	pending []pg.LSN
	full    bool
	room    chan struct{}
}

func newCollector() *collector { return &collector{room: make(chan struct{})} }

func (c *collector) Add(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes = append(c.changes, change)
	c.pending = append(c.pending, change.Commit)
}

func (c *collector) Truncate(xid uint32, commit pg.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts = append(c.cuts, Change{XID: xid, Commit: commit})
}

func (c *collector) Full() (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full, c.room
}

func (c *collector) Oldest() (pg.LSN, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return 0, false
	}
	return c.pending[0], true
}

// apply says that all that has come is replayed, but for the last keep changes.
func (c *collector) apply(keep int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = slices.Clone(c.pending[max(len(c.pending)-keep, 0):])
}

func (c *collector) fill(full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full && !full {
		close(c.room)
		c.room = make(chan struct{})
	}
	c.full = full
}

// drain returns the keys that have come since the last call, and their changes.
func (c *collector) drain() (keys []string, changes []Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changes, c.changes = c.changes, nil
	for _, change := range changes {
		keys = append(keys, change.Key.String())
	}
	return keys, changes
}

// rig is a table t with its publication and slot, and the stream of the moment.
type rig struct {
	db       *pgtest.DB
	database *pg.Database
	config   Config
	sink     *collector
	stream   *Stream
	ended    chan error
	stop     context.CancelFunc
}

// newRig makes a table t and streams its changes.
func newRig(t *testing.T, db *pgtest.DB, table string, key keyset.Columns) *rig {
	t.Helper()
	r := &rig{db: db, sink: newCollector()}
	db.Exec(t, table)
	var err error
	r.database, err = pg.Open(db.DSN)
	must(t, err)
	conn := r.session(t)
	must(t, pg.InTx(t.Context(), conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return CreatePublication(t.Context(), tx, "", publication, "public.t", false)
	}))
	start, err := CreateSlot(t.Context(), conn, db.Name)
	must(t, err)
	r.config = Config{Slot: db.Name, Publication: publication, RunID: "test", Prefix: "pgshadow", Schema: "public", Table: "t", Key: key, Start: start}
	rows, err := conn.Query(t.Context(), `SELECT attname, atttypid, atttypmod FROM pg_attribute
		WHERE attrelid = 'public.t'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`)
	must(t, err)
	r.config.Columns, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StreamColumn])
	must(t, err)
	r.open(t)
	return r
}

func (r *rig) session(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := r.database.Connect(t.Context(), "test")
	must(t, err)
	t.Cleanup(func() { _ = pg.Close(context.Background(), conn) })
	return conn
}

// open starts the stream from r.config.Start.
func (r *rig) open(t *testing.T) {
	t.Helper()
	var err error
	r.stream, err = Open(t.Context(), r.database, r.config, r.sink)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	stream := r.stream
	go func() { ended <- stream.Run(ctx) }()
	r.stop, r.ended = cancel, ended
	t.Cleanup(func() {
		cancel()
		<-stream.Done()
	})
}

// reopen ends the stream, if it has not, and starts again from what the slot was told.
func (r *rig) reopen(t *testing.T) {
	t.Helper()
	r.stop()
	<-r.stream.Done()
	slot := r.slot(t)
	r.config.Start, r.sink = slot.Confirmed, newCollector()
	r.open(t)
}

// awaitEnd returns what the stream ends with.
func (r *rig) awaitEnd(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		t.Fatal("the stream goes on")
		return nil
	}
}

func (r *rig) slot(t *testing.T) SlotState {
	t.Helper()
	state, err := LoadSlot(t.Context(), r.session(t), r.config.Slot)
	must(t, err)
	return state
}

// fence waits until all that was committed before has been received.
func (r *rig) fence(t *testing.T) {
	t.Helper()
	_, err := r.stream.Fence(t.Context())
	must(t, err)
}

// write runs a script as one transaction and returns its id.
func (r *rig) write(t *testing.T, script string) (xid uint32) {
	t.Helper()
	tx, err := r.db.Conn(t).Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), script)
	must(t, err)
	var id int64
	must(t, tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&id))
	must(t, tx.Commit(t.Context()))
	return uint32(id)
}

// requireKeys waits for the fence, and holds what came since the last call
// against the keys wanted, all of one transaction.
func (r *rig) requireKeys(t *testing.T, xid uint32, want ...string) {
	t.Helper()
	r.fence(t)
	keys, changes := r.sink.drain()
	if !slices.Equal(keys, want) {
		t.Fatalf("the stream brought %v, want %v", keys, want)
	}
	for _, change := range changes {
		if change.XID != xid {
			t.Errorf("key %s came with transaction %d, want %d", change.Key, change.XID, xid)
		}
	}
}

// eventually waits for what the server or the stream does in its own time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func currentLSN(t *testing.T, db *pgtest.DB) pg.LSN {
	t.Helper()
	lsn, err := pg.ParseLSN(pgtest.Scalar[string](t, db, "SELECT pg_current_wal_lsn()::text"))
	must(t, err)
	return lsn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// publication needs quoting wherever it is named.
const publication = `A "publication", quoted's`

var idKey = keyset.Columns{{Name: "id", Type: "integer"}}

const plain = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5) i"

// long is a text of n characters that does not compress.
func long(seed string, n int) string {
	return fmt.Sprintf("(SELECT left(string_agg(md5('%s' || i), ''), %d) FROM generate_series(1, %d) i)", seed, n, n/32+1)
}
