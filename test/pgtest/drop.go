package pgtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	objectInUse  = "55006" // a slot whose walsender has not gone yet
	pollInterval = 20 * time.Millisecond
)

// drop removes the database, what would stand in the way of that, its slots and prepared transactions, and then its
// roles.
func (db *DB) drop(ctx context.Context) error {
	return session(ctx, db.source.adminDSN, func(ctx context.Context, conn *pgx.Conn) error {
		if err := dropSlots(ctx, conn, db.Name); err != nil {
			return err
		}
		if err := db.rollbackPrepared(ctx, conn); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(db.Name)+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("dropping the database: %w", err)
		}
		for _, role := range slices.Backward(db.roles) {
			if _, err := conn.Exec(ctx, "DROP ROLE IF EXISTS "+quote(role)); err != nil {
				return fmt.Errorf("dropping its role: %w", err)
			}
		}
		return nil
	})
}

func dropSlots(ctx context.Context, conn *pgx.Conn, database string) error {
	slots, err := column(ctx, conn, "SELECT slot_name::text FROM pg_replication_slots WHERE database = $1", database)
	if err != nil {
		return fmt.Errorf("listing slots: %w", err)
	}
	for _, slot := range slots {
		if err := dropSlot(ctx, conn, slot); err != nil {
			return fmt.Errorf("dropping slot %q: %w", slot, err)
		}
	}
	return nil
}

// dropSlot ends the walsender that uses the slot, again and again since a client may connect anew, and drops the slot.
func dropSlot(ctx context.Context, conn *pgx.Conn, slot string) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		_, err := conn.Exec(ctx,
			"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", slot)
		if err != nil {
			return fmt.Errorf("terminating its walsender: %w", err)
		}
		_, err = conn.Exec(ctx,
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", slot)
		var refused *pgconn.PgError
		if err == nil || !errors.As(err, &refused) || refused.Code != objectInUse {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-ticker.C:
		}
	}
}

// rollbackPrepared ends the prepared transactions of the database, which can only be done from inside it.
func (db *DB) rollbackPrepared(ctx context.Context, admin *pgx.Conn) error {
	gids, err := column(ctx, admin, "SELECT gid FROM pg_prepared_xacts WHERE database = $1", db.Name)
	if err != nil {
		return fmt.Errorf("listing prepared transactions: %w", err)
	}
	if len(gids) == 0 {
		return nil
	}
	return session(ctx, db.DSN, func(ctx context.Context, conn *pgx.Conn) error {
		for _, gid := range gids {
			literal, err := column(ctx, conn, "SELECT quote_literal($1::text)", gid)
			if err != nil {
				return fmt.Errorf("quoting %q: %w", gid, err)
			}
			if _, err = conn.Exec(ctx, "ROLLBACK PREPARED "+literal[0]); err != nil {
				return fmt.Errorf("rolling back prepared transaction %q: %w", gid, err)
			}
		}
		return nil
	})
}

func column(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]string, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
