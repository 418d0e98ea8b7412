package throttle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// statementLimit is the statement_timeout of everything the throttle asks a server.
const statementLimit = 2 * time.Second

// readOnly is not among the settings that the session is opened with, by which a
// connection string with target_session_attrs would take the server for a standby.
const readOnly = "SET default_transaction_read_only = on"

const idle = 'I' // the transaction status of a session without a transaction

// session is one connection, opened when first used and again when lost. It never
// begins a transaction: read only and the time limit are settings of the session.
type session struct {
	db   *pg.Database
	turn chan struct{} // holds a token while the session is in use
	conn *pgx.Conn     // nil: none open
}

func newSession(db *pg.Database) *session {
	return &session{
		db: db.With(map[string]string{
			"statement_timeout": pg.Milliseconds(statementLimit),
		}),
		turn: make(chan struct{}, 1),
	}
}

// do runs work on the session. A session that turns out to have been lost since
// it was last used is replaced and work, which only reads, is run again.
func (s *session) do(ctx context.Context, work func(ctx context.Context, conn *pgx.Conn) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the throttle's session: %w", ctx.Err())
	}
	used := s.conn != nil
	err := s.once(ctx, work)
	if used && s.conn == nil && pg.IsConnection(err) && ctx.Err() == nil {
		return s.once(ctx, work)
	}
	return err
}

func (s *session) once(ctx context.Context, work func(ctx context.Context, conn *pgx.Conn) error) error {
	if s.conn == nil {
		conn, err := s.db.Connect(ctx, "throttle")
		if err != nil {
			return err
		}
		s.conn = conn
		if _, err := conn.Exec(ctx, readOnly); err != nil {
			return errors.Join(fmt.Errorf("making the session read only: %w", err), s.drop(ctx))
		}
	}
	err := work(ctx, s.conn)
	switch {
	case s.conn.IsClosed() || pg.IsConnection(err):
		return errors.Join(err, s.drop(ctx))
	case s.conn.PgConn().TxStatus() != idle:
		return errors.Join(err, errors.New("the statement began a transaction"), s.drop(ctx))
	default:
		return err
	}
}

// drop closes the connection, if any; the next use opens another one.
func (s *session) drop(ctx context.Context) error {
	conn := s.conn
	s.conn = nil
	if conn == nil || conn.IsClosed() {
		return nil
	}
	if err := pg.Close(ctx, conn); err != nil {
		return fmt.Errorf("closing the throttle's session: %w", err)
	}
	return nil
}

// close waits its turn and closes the connection, also when ctx has ended.
func (s *session) close(ctx context.Context) error {
	ctx, cancel := pg.Cleanup(ctx)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
		return s.drop(ctx)
	case <-ctx.Done():
		return fmt.Errorf("waiting to close the throttle's session: %w", ctx.Err())
	}
}
