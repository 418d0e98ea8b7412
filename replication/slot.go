package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// CreatePublication publishes the changes of one table. It must be committed
// before the slot is created (hazard H5). It takes SHARE UPDATE EXCLUSIVE on the
// table (PostgreSQL manual, CREATE PUBLICATION), under the session's lock_timeout.
// generated has stored generated columns published, from PostgreSQL 18 on.
// role, or the session's own where it is empty, must own the table.
func CreatePublication(ctx context.Context, tx pgx.Tx, role, name, table string, generated bool) error {
	options := "publish = 'insert, update, delete, truncate'"
	if generated {
		options += ", publish_generated_columns = stored"
	}
	sql := fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE ONLY %s WITH (%s)", pg.Ident(name), table, options)
	if err := pg.ExecAs(ctx, tx, role, nil, sql); err != nil {
		return fmt.Errorf("creating publication %q: %w", name, err)
	}
	return nil
}

// CreateSlot creates the logical slot without exporting a snapshot (hazard H2)
// and returns the position from which it streams. It waits for every transaction
// of the cluster that was running when it began: bound it by ctx.
func CreateSlot(ctx context.Context, conn *pgx.Conn, name string) (pg.LSN, error) {
	var text string
	err := conn.QueryRow(ctx, "SELECT lsn::pg_catalog.text FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')", name).Scan(&text)
	if err != nil {
		return 0, fmt.Errorf("creating slot %q: %w", name, err)
	}
	return pg.ParseLSN(text)
}

// Blocker is a transaction that slot creation waits for.
type Blocker struct {
	Database string
	What     string // a session or a prepared transaction, as a DBA would find it
	Age      string
}

// SlotBlockers lists the oldest transactions with an id, of every database, which
// is what slot creation waits for. Prepared ones have no session. Of other roles'
// sessions a role without pg_read_all_stats is shown neither state nor age.
func SlotBlockers(ctx context.Context, conn *pgx.Conn) ([]Blocker, error) {
	rows, err := conn.Query(ctx, `SELECT coalesce(datname, ''), pg_catalog.format('pid %s (%s, %s%s)', pid, application_name, coalesce(state, 'its state is hidden'), `+pg.CommitWaits("a")+`),
			coalesce(pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - xact_start)::pg_catalog.text, 'a time that is hidden')
		FROM pg_catalog.pg_stat_activity a WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
		UNION ALL
		SELECT database, pg_catalog.format('prepared transaction %L', gid), pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - prepared)::pg_catalog.text
		FROM pg_catalog.pg_prepared_xacts ORDER BY 3 DESC NULLS LAST LIMIT 5`)
	if err != nil {
		return nil, fmt.Errorf("listing the transactions that slot creation waits for: %w", err)
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Blocker])
	if err != nil {
		return nil, fmt.Errorf("listing the transactions that slot creation waits for: %w", err)
	}
	return blockers, nil
}

// SlotState is what the server says of a slot.
type SlotState struct {
	Exists    bool
	Lost      bool // its WAL is gone: changes are missing
	Active    bool
	Retained  int64 // bytes of WAL that it holds back
	KeepSize  int64 // bytes at which the server takes a slot away (max_slot_wal_keep_size); below 0: never
	Confirmed pg.LSN
}

// LoadSlot reads a slot's state; a missing slot is not an error.
func LoadSlot(ctx context.Context, conn *pgx.Conn, name string) (SlotState, error) {
	var state SlotState
	var confirmed string
	err := conn.QueryRow(ctx, `SELECT coalesce(wal_status = 'lost', false), active,
			coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::bigint,
			CASE pg_catalog.current_setting('max_slot_wal_keep_size') WHEN '-1' THEN -1
				ELSE pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size')) END,
			coalesce(confirmed_flush_lsn, '0/0')::pg_catalog.text
		FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`, name).Scan(&state.Lost, &state.Active, &state.Retained, &state.KeepSize, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return SlotState{}, nil
	}
	if err != nil {
		return SlotState{}, fmt.Errorf("reading the state of slot %q: %w", name, err)
	}
	state.Exists = true
	state.Confirmed, err = pg.ParseLSN(confirmed)
	return state, err
}

// ReleaseSlot ends the walsender that may still hold the slot after its client,
// an earlier process of the run, has gone.
func ReleaseSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	const sql = `SELECT pg_catalog.pg_terminate_backend(active_pid, 5000) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active`
	if _, err := conn.Exec(ctx, sql, name); err != nil {
		return fmt.Errorf("ending the walsender of slot %q: %w", name, err)
	}
	return nil
}

// DropSlot drops the slot if it exists.
func DropSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	if err := ReleaseSlot(ctx, conn, name); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", name)
	if err != nil && !pg.Is(err, pg.UndefinedObject) {
		return fmt.Errorf("dropping slot %q: %w", name, err)
	}
	return nil
}

// DropPublication drops the publication if it exists.
func DropPublication(ctx context.Context, conn *pgx.Conn, name string) error {
	if err := pg.DropAsOwner(ctx, conn, ownerSQL, name, "DROP PUBLICATION IF EXISTS "+pg.Ident(name)); err != nil {
		return fmt.Errorf("dropping publication %q: %w", name, err)
	}
	return nil
}

const ownerSQL = "SELECT pg_catalog.pg_get_userbyid(pubowner) FROM pg_catalog.pg_publication WHERE pubname = $1"
