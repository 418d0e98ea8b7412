package checkpoint

import (
	"context"
	_ "embed" // the DDL
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// The methods of a run.
const (
	MethodShadow = "shadow"
	MethodNative = "native" // a plain ALTER TABLE
)

// History is what a run's row keeps for those who look back. State tables that an
// earlier pgshadow made may lack it.
type History struct {
	Method      string
	Role        string          // that began the run, session_user; empty when not known
	Fingerprint string          // of the table as it was planned for; empty when not known
	Report      json.RawMessage // of the last process that said how it ended; null when none has. SetReport has its form
}

// laterColumns reads History out of pgshadow.run AS r, whether it has the columns
// or not: who only reads must not add them.
const laterColumns = `coalesce(pg_catalog.to_jsonb(r) ->> 'method', 'shadow'), coalesce(pg_catalog.to_jsonb(r) ->> 'role', ''),
	coalesce(pg_catalog.to_jsonb(r) ->> 'fingerprint', ''), coalesce(pg_catalog.to_jsonb(r) -> 'report', 'null')`

//go:embed extend.sql
var extendSQL string

// extend adds the columns of History to state tables that lack them. Where nothing
// is missing it takes no lock that anybody waits for.
func extend(ctx context.Context, tx pgx.Tx) error {
	var complete bool
	err := tx.QueryRow(ctx, `SELECT count(*) = 4 FROM pg_catalog.pg_attribute WHERE attrelid = 'pgshadow.run'::pg_catalog.regclass
		AND attname IN ('method', 'role', 'fingerprint', 'report') AND NOT attisdropped`).Scan(&complete)
	if err != nil {
		return fmt.Errorf("looking at the columns of pgshadow.run: %w", err)
	}
	if complete {
		return nil
	}
	if _, err := tx.Exec(ctx, extendSQL); err != nil {
		return fmt.Errorf("adding columns to pgshadow.run, which an earlier pgshadow has made: %w", err)
	}
	return nil
}

// SetReport keeps how a process has ended its work on the run, a JSON object. A
// report that an earlier process of the run has left moves to the list "earlier" of
// the new one, the oldest first.
func (s *Store) SetReport(ctx context.Context, conn *pgx.Conn, report any) error {
	document, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encoding the report of run %s: %w", s.runID, err)
	}
	return pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := extend(ctx, tx); err != nil { // the run may be older than the columns
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE pgshadow.run SET report = $2::pg_catalog.jsonb || CASE WHEN report IS NULL THEN '{}' ELSE
			pg_catalog.jsonb_build_object('earlier', coalesce(report -> 'earlier', '[]') || pg_catalog.jsonb_build_array(report - 'earlier')) END
			WHERE run_id = $1`, s.runID, document)
		if err != nil {
			return fmt.Errorf("keeping the report of run %s: %w", s.runID, err)
		}
		return nil
	})
}

// Which says whose runs RunsOf lists. The zero value is every run's.
type Which struct {
	OID   uint32 // the table as it is now, 0 when there is none of the name
	Table string // schema.name as runs have recorded it; empty: not asked for
	Name  string // the name alone, in whatever schema; empty: not asked for
}

// RunsOf lists runs, the newest first, at most limit unless that is zero: those that
// were made to the table of the OID or to one that a swap has put it in the place
// of, whatever it was called, and those that were made to a table of the name.
func RunsOf(ctx context.Context, conn *pgx.Conn, which Which, limit int) ([]Run, error) {
	return list(ctx, conn, `WITH RECURSIVE one(oid) AS (SELECT $1::pg_catalog.oid WHERE $1::pg_catalog.oid <> 0
			UNION SELECT before.table_oid FROM pgshadow.run AS before JOIN one ON before.result_oid = one.oid)
		SELECT `+runColumns+` FROM pgshadow.run AS r WHERE $1::pg_catalog.oid = 0 AND $2 = '' AND $3 = ''
			OR table_oid IN (SELECT oid FROM one) OR result_oid IN (SELECT oid FROM one) OR table_title = nullif($2, '') OR table_name = nullif($3, '')
		ORDER BY created_at DESC, run_id LIMIT nullif($4::pg_catalog.int8, 0)`, which.OID, which.Table, which.Name, limit)
}
