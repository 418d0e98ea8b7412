package replication

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// fences are the messages whose return from the stream proves that every commit
// before them has been read (INV-5). The nonce keeps a fence of an earlier
// process of the same run, streamed once more, from passing for a new one.
type fences struct {
	config Config
	nonce  string

	sending sync.Mutex // guards session and count
	session *pgx.Conn  // opened when the first fence is emitted, and again when it broke
	count   int
	db      *pg.Database

	mu      sync.Mutex // guards waiting; the reader takes it, so it is never held during I/O
	waiting map[string]chan struct{}
}

func newFences(db *pg.Database, config Config) *fences {
	return &fences{db: db, config: config, nonce: rand.Text(), waiting: map[string]chan struct{}{}}
}

// FenceSQL emits a fence: a prefix, and a name.
const FenceSQL = "SELECT pg_catalog.pg_logical_emit_message(true, $1, $2)"

// Fence is a message that was written to the WAL and will come out of the
// stream after every commit that came before it.
type Fence struct {
	stream  *Stream
	name    string
	passed  chan struct{}
	emitted time.Time
}

// Emit writes a fence: a transactional message in a session of its own, whose
// commit flushes the WAL (INV-5).
func (s *Stream) Emit(ctx context.Context) (*Fence, error) {
	began := time.Now()
	name, passed, err := s.fences.emit(ctx)
	if err != nil {
		return nil, err
	}
	return &Fence{stream: s, name: name, passed: passed, emitted: began}, nil
}

// Wait blocks until the fence has passed, and returns how long that took since
// its emission began. It fails when ctx ends or the stream breaks.
func (f *Fence) Wait(ctx context.Context) (time.Duration, error) {
	defer f.stream.fences.forget(f.name)
	select {
	case <-f.passed:
		return time.Since(f.emitted), nil
	case <-f.stream.Done():
		return 0, fmt.Errorf("waiting for fence %s: the stream ended: %w", f.name, errors.Join(f.stream.Err(), context.Canceled))
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for fence %s: %w", f.name, ctx.Err())
	}
}

// Fence emits a fence and waits for it.
func (s *Stream) Fence(ctx context.Context) (time.Duration, error) {
	fence, err := s.Emit(ctx)
	if err != nil {
		return 0, err
	}
	return fence.Wait(ctx)
}

// Locked tells whether a backend of the server whose stream this is has a table in
// ACCESS EXCLUSIVE mode.
func (s *Stream) Locked(ctx context.Context, backend int32, table uint32) (locked bool, err error) {
	f := s.fences
	f.sending.Lock()
	defer f.sending.Unlock()
	if f.session == nil {
		return false, fmt.Errorf("looking for a lock: no fence was emitted: %w", pg.ErrSessionLost)
	}
	err = f.session.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
		WHERE pid = $1 AND relation = $2 AND mode = 'AccessExclusiveLock' AND granted)`, backend, table).Scan(&locked)
	if err != nil {
		return false, fmt.Errorf("looking for the lock of backend %d: %w", backend, err)
	}
	return locked, nil
}

// Identify returns the system identifier and the timeline of the server.
func Identify(ctx context.Context, db *pg.Database) (server string, err error) {
	conn, err := db.ConnectReplication(ctx, "identify")
	if err != nil {
		return "", err
	}
	defer func() {
		closing, cancel := pg.Cleanup(ctx)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return "", fmt.Errorf("identifying the server: %w", err)
	}
	return fmt.Sprintf("%s/%d", system.SystemID, system.Timeline), nil
}

func (f *fences) emit(ctx context.Context) (string, chan struct{}, error) {
	f.sending.Lock()
	defer f.sending.Unlock()
	if f.session == nil || f.session.IsClosed() {
		session, err := f.db.Connect(ctx, f.config.RunID+" fence")
		if err != nil {
			return "", nil, err
		}
		f.session = session
	}
	f.count++
	name := fmt.Sprintf("%s/%s/%d", f.config.RunID, f.nonce, f.count)
	passed := make(chan struct{})
	f.expect(name, passed)
	if _, err := f.session.Exec(ctx, FenceSQL, f.config.Prefix, name); err != nil {
		f.forget(name)
		return "", nil, fmt.Errorf("emitting fence %s: %w", name, err)
	}
	return name, passed, nil
}

func (f *fences) expect(name string, passed chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[name] = passed
}

// pass releases who waits for a fence. Messages of others have another prefix.
func (f *fences) pass(prefix, name string) {
	if prefix != f.config.Prefix {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if passed, ok := f.waiting[name]; ok {
		close(passed)
		delete(f.waiting, name)
	}
}

func (f *fences) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, name)
}

func (f *fences) close(ctx context.Context) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	if f.session == nil {
		return nil
	}
	return pg.Close(ctx, f.session)
}
