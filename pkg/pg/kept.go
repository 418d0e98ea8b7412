package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Kept is a transaction whose queries are prepared, so that the session keeps their
// plans: for what would take long to plan while a lock is held.
type Kept struct{ tx pgx.Tx }

// Keep makes a Kept for the statements that come next, up to one of a Confined. Code
// that ran there can have prepared another statement under a name of the session's
// own; all are given up then.
func Keep(ctx context.Context, tx pgx.Tx) (Kept, error) {
	var foreign bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)").Scan(&foreign)
	if err == nil && foreign {
		err = tx.Conn().DeallocateAll(ctx)
	}
	if err != nil {
		return Kept{}, fmt.Errorf("looking for statements that others have prepared: %w", err)
	}
	return Kept{tx}, nil
}

// Query is pgx.Tx's.
func (k Kept) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return k.tx.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheStatement}, args...)...) //nolint:rowserrcheck // the caller reads them
}

// QueryRow is pgx.Tx's.
func (k Kept) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return k.tx.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeCacheStatement}, args...)...)
}
