package replication

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

// statusInterval is how often the slot is told the positions, far below any
// sensible wal_sender_timeout.
const statusInterval = time.Second

// Change says that a committed transaction wrote a row: its key is dirty.
type Change struct {
	Key    keyset.Key
	XID    uint32
	Commit pg.LSN // position of the commit record
}

// Sink takes what the stream brings, in the order of commits.
type Sink interface {
	// Add marks a key dirty. It never blocks.
	Add(change Change)
	// Truncate says that the original was truncated by the transaction.
	Truncate(xid uint32, commit pg.LSN)
	// Full tells that no more changes are wanted for now; room is closed when
	// there is space again.
	Full() (full bool, room <-chan struct{})
	// Oldest is the lowest commit position of a change not yet replayed.
	Oldest() (commit pg.LSN, pending bool)
}

// Config of a Stream.
type Config struct {
	Slot        string
	Publication string
	RunID       string
	Prefix      string // of fence messages
	Schema      string
	Table       string
	Key         keyset.Columns
	// Columns is the list that the server's relation message must show, as
	// name, type OID and modifier; any difference ends the stream.
	Columns []StreamColumn
	Start   pg.LSN // confirmed position of the slot
}

// StreamColumn is one published column.
type StreamColumn struct {
	Name   string
	Type   uint32
	Typmod int32
}

// Stream reads the changes of the original. One goroutine, Run, reads the
// connection and answers keepalives; it never waits for replay.
type Stream struct {
	config Config
	conn   *pgconn.PgConn
	sink   Sink
	fences *fences

	positions atomic.Pointer[Positions]
	confirmed atomic.Uint64 // asked for by Confirm, taken over by Run
	received  atomic.Uint64 // changes

	keyAt       []int // index of each key column in the relation's tuples
	relation    uint32
	transaction *pglogrepl.BeginMessage // being read; nil between transactions
	err         error
	done        chan struct{}
}

// Open starts replication from the slot.
func Open(ctx context.Context, db *pg.Database, config Config, sink Sink) (*Stream, error) {
	conn, err := db.ConnectReplication(ctx, config.RunID+" stream")
	if err != nil {
		return nil, err
	}
	arguments := []string{
		"proto_version '1'", "messages 'true'",
		"publication_names " + pg.Literal(pg.Ident(config.Publication)),
	}
	err = pglogrepl.StartReplication(ctx, conn, pg.Ident(config.Slot), pglogrepl.LSN(config.Start),
		pglogrepl.StartReplicationOptions{PluginArgs: arguments})
	if err != nil {
		closing, cancel := pg.Cleanup(ctx)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("starting replication from slot %q: %w", config.Slot, err), conn.Close(closing))
	}
	s := &Stream{config: config, conn: conn, sink: sink, done: make(chan struct{}),
		fences: newFences(db, config)}
	s.positions.Store(&Positions{Received: config.Start, Applied: config.Start, Confirmed: config.Start})
	s.confirmed.Store(uint64(config.Start))
	return s, nil
}

// Run reads until ctx ends (nil) or the stream breaks. It closes the connection.
func (s *Stream) Run(ctx context.Context) (err error) {
	defer func() {
		s.err = err
		close(s.done)
	}()
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	next := time.Now()
	for ctx.Err() == nil {
		if !time.Now().Before(next) {
			if err := s.sendStatus(); err != nil {
				return err
			}
			next = time.Now().Add(statusInterval)
		}
		if full, room := s.sink.Full(); full {
			wait(ctx, room, time.Until(next))
			continue
		}
		reply, err := s.receiveOnce(ctx, next)
		if err != nil {
			return err
		}
		if reply {
			next = time.Now()
		}
	}
	return nil
}

func (s *Stream) close(ctx context.Context) error {
	closing, cancel := pg.Cleanup(ctx)
	defer cancel()
	return errors.Join(s.fences.close(closing), s.conn.Close(closing))
}

// wait returns when room is closed, after d, or when ctx ends.
func wait(ctx context.Context, room <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-room:
	case <-timer.C:
	}
}

// receiveOnce handles one message, or none until the deadline. It tells whether
// the server wants a status at once.
func (s *Stream) receiveOnce(ctx context.Context, deadline time.Time) (reply bool, err error) {
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	raw, err := s.conn.ReceiveMessage(waiting)
	if err != nil {
		if pgconn.Timeout(err) || ctx.Err() != nil {
			return false, nil
		}
		return false, fmt.Errorf("reading the stream of slot %q: %w", s.config.Slot, err)
	}
	switch message := raw.(type) {
	case *pgproto3.CopyData:
		return s.copyData(message.Data)
	case *pgproto3.ErrorResponse:
		return false, fmt.Errorf("reading the stream of slot %q: %w", s.config.Slot, pgconn.ErrorResponseToPgError(message))
	case *pgproto3.CopyDone:
		return false, fmt.Errorf("reading the stream of slot %q: the server ended it", s.config.Slot)
	default:
		return false, nil
	}
}

func (s *Stream) copyData(data []byte) (reply bool, err error) {
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		keepalive, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return false, fmt.Errorf("decoding a keepalive: %w", err)
		}
		s.advance(pg.LSN(keepalive.ServerWALEnd))
		return keepalive.ReplyRequested, nil
	case pglogrepl.XLogDataByteID:
		data, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return false, fmt.Errorf("decoding WAL data: %w", err)
		}
		message, err := pglogrepl.Parse(data.WALData)
		if err != nil {
			return false, fmt.Errorf("decoding a replication message: %w", err)
		}
		return false, s.handle(message)
	default:
		return false, nil
	}
}

// advance moves the received position; in the middle of a transaction nothing
// moves.
func (s *Stream) advance(lsn pg.LSN) {
	if s.transaction == nil {
		positions := s.Positions().receive(lsn)
		s.positions.Store(&positions)
	}
}

// settle recomputes what depends on the sink and publishes the positions.
func (s *Stream) settle() Positions {
	positions := s.Positions()
	positions = positions.apply(s.safe(positions)).confirm(pg.LSN(s.confirmed.Load()))
	s.positions.Store(&positions)
	return positions
}

// safe is the position below which every change has been replayed (INV-4). Only
// the reading goroutine asks, so no change can come in between.
func (s *Stream) safe(positions Positions) pg.LSN {
	if oldest, pending := s.sink.Oldest(); pending {
		return oldest
	}
	if s.transaction != nil {
		return min(positions.Received, pg.LSN(s.transaction.FinalLSN))
	}
	return positions.Received
}

func (s *Stream) sendStatus() error {
	positions := s.settle()
	// All three are given: pglogrepl would read a zero flush position as "all
	// that was received" (hazard H12).
	flush := max(positions.Confirmed, 1)
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: pglogrepl.LSN(positions.Received), WALFlushPosition: pglogrepl.LSN(flush), WALApplyPosition: pglogrepl.LSN(flush),
	})
	if err != nil {
		return fmt.Errorf("telling slot %q the confirmed position %s: %w", s.config.Slot, positions.Confirmed, err)
	}
	return nil
}

// Positions returns the last published positions.
func (s *Stream) Positions() Positions { return *s.positions.Load() }

// Applied returns a position below which every change has been replayed, as of
// the last status. Commit what makes it durable, then Confirm it.
func (s *Stream) Applied() pg.LSN { return s.Positions().Applied }

// Confirm tells the slot, with the next status, that every change below lsn is
// replayed and durable (INV-4).
func (s *Stream) Confirm(lsn pg.LSN) { s.confirmed.Store(uint64(lsn)) }

// Received counts the row changes read so far.
func (s *Stream) Received() uint64 { return s.received.Load() }

// Done is closed when Run has returned; Err is its error then.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err is what ended Run. Read it after Done is closed.
func (s *Stream) Err() error { return s.err }
