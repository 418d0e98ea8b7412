package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// lockClass is the first half of pgshadow's advisory lock keys: "pgsh".
const lockClass = 0x70677368

// TryLock takes the session advisory lock of a table (PostgreSQL manual section
// 13.3.5) without waiting. The lock lasts as long as the session. holder is
// the process id of the backend that has it, this session's own or another's.
func TryLock(ctx context.Context, conn *pgx.Conn, table uint32) (held bool, holder int32, err error) {
	key := int32(table) //nolint:gosec // the lock's second half is the OID's 32 bits, sign and all
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_try_advisory_lock($1, $2)", int32(lockClass), key).Scan(&held); err != nil {
		return false, 0, fmt.Errorf("taking the advisory lock of table %d: %w", table, err)
	}
	holder, err = LockHolder(ctx, conn, table)
	return held, holder, err
}

// Release gives a session's advisory locks back, and closes it. A server takes a
// moment to notice that a session was closed, in which its lock would keep out
// whoever comes next.
func Release(ctx context.Context, conn *pgx.Conn) error {
	releasing, cancel := Cleanup(ctx)
	defer cancel()
	_, _ = conn.Exec(releasing, "SELECT pg_catalog.pg_advisory_unlock_all()") // a session that fails here is ending, and its locks with it
	return Close(ctx, conn)
}

// Locked tells whether any session holds the advisory lock of a table.
func Locked(ctx context.Context, conn *pgx.Conn, table uint32) (bool, error) {
	holder, err := LockHolder(ctx, conn, table)
	return holder != 0, err
}

// LockHolder is the process id of the backend that holds the lock, 0 for none.
func LockHolder(ctx context.Context, conn *pgx.Conn, table uint32) (holder int32, err error) {
	err = conn.QueryRow(ctx, `SELECT coalesce(max(pid), 0) FROM pg_catalog.pg_locks
		WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND objsubid = 2 AND granted
		AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())`,
		uint32(lockClass), table).Scan(&holder)
	if err != nil {
		return 0, fmt.Errorf("finding who holds the advisory lock of table %d: %w", table, err)
	}
	return holder, nil
}

// Backend is one backend of the server: process ids are used again.
type Backend struct {
	PID   int32
	Since string // backend_start
}

// LoadBackend returns the backend with a process id, which may have ended: then
// Since is empty.
func LoadBackend(ctx context.Context, conn *pgx.Conn, pid int32) (Backend, error) {
	backend := Backend{PID: pid}
	err := conn.QueryRow(ctx, "SELECT coalesce(max(backend_start)::pg_catalog.text, '') FROM pg_catalog.pg_stat_activity WHERE pid = $1", pid).Scan(&backend.Since)
	if err != nil {
		return backend, fmt.Errorf("looking for backend %d: %w", pid, err)
	}
	return backend, nil
}
