package pg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// Listen opens a session that is notified on a channel (PostgreSQL manual,
// LISTEN). AwaitNotification waits on it, and statements may run between waits.
func (d *Database) Listen(ctx context.Context, purpose, channel string) (*pgx.Conn, error) {
	// A wait that ends by its deadline must not cancel anything on the server.
	config := d.config.Copy()
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
	}
	conn, err := (&Database{config: config, settings: d.settings, pooled: d.pooled}).Connect(ctx, purpose)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+Ident(channel)); err != nil {
		return nil, errors.Join(fmt.Errorf("listening on channel %q: %w", channel, err), Close(ctx, conn))
	}
	return conn, nil
}

// AwaitNotification returns at the next notification, or after d. The error is
// ctx's, or says that the session is lost.
func AwaitNotification(ctx context.Context, conn *pgx.Conn, d time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := conn.WaitForNotification(waiting)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for a notification: %w", ctx.Err())
	case err == nil, pgconn.Timeout(err):
		return nil
	default:
		return fmt.Errorf("waiting for a notification: %w", err)
	}
}
