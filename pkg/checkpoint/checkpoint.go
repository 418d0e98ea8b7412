// Package checkpoint owns the state rows: which runs there are, how far each has
// come, and which chunks are committed. They live in the database that the run
// changes, in schema pgshadow. What a plan or a watermark means is not its
// business: they are opaque documents here.
package checkpoint

import (
	"cmp"
	"context"
	_ "embed" // the DDL
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

//go:embed state.sql
var stateSQL string

// Run is one run's row.
type Run struct {
	ID        string
	TableOID  uint32
	Table     string // schema.name as it was, for people
	TableName string // the name alone, from which artifacts derive
	Change    json.RawMessage
	Phase     string
	Plan      json.RawMessage // null until the shadow exists
	Owner     Owner
	CreatedAt time.Time
	UpdatedAt time.Time
	EndedAt   *time.Time // nil while the run is open
	Outcome   string
	Heal      bool   // changes were missed: a full comparison is due
	Server    string // system identifier and timeline of the slot's server; empty before there is a slot
	Steering  json.RawMessage
	Progress  json.RawMessage // null before the first checkpoint
	Detail    string          // why it ended as it did
	History
}

// Owner says which process works on a run.
type Owner struct {
	Host string `json:"host"`
	PID  int    `json:"pid"`
}

// OwnerError says that the state tables, or something in their place, belong to a
// role that the session's role does not trust: its triggers, rules and views would
// run with the session's rights (INV-6).
type OwnerError struct {
	Object, Owner string
	Role          string // of the session
	Closed        bool   // the role may not use it; else it could, and must not
}

func (e *OwnerError) Error() string {
	if e.Closed {
		return fmt.Sprintf("%s belongs to role %s, and role %s may not use it", e.Object, e.Owner, e.Role)
	}
	return fmt.Sprintf("%s belongs to role %s, whose code would run with the rights of role %s", e.Object, e.Owner, e.Role)
}

// Exists tells whether the state tables are there; before the first run of a
// database they are not. The error is an *OwnerError when they are not to be
// touched: they must be the session role's own, or a superuser's that it may read.
func Exists(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var exists, closed bool
	var object, owner *string
	var role string
	err := conn.QueryRow(ctx, `WITH theirs AS (
			SELECT 'schema pgshadow' AS object, nspowner AS owner, false AS state, NOT pg_catalog.has_schema_privilege(oid, 'USAGE') AS closed
			FROM pg_catalog.pg_namespace WHERE nspname = 'pgshadow'
			UNION ALL SELECT pg_catalog.format('relation pgshadow.%I', relname), relowner, relname = 'command', relkind = 'r' AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
			FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'pgshadow')
		SELECT coalesce((SELECT bool_or(state) FROM theirs), false), session_user, f.object, f.rolname, coalesce(f.closed, false)
		FROM (VALUES (1)) AS one LEFT JOIN LATERAL (SELECT object, rolname, rolsuper AND closed AS closed FROM theirs JOIN pg_catalog.pg_roles r ON r.oid = owner
			WHERE rolname <> session_user AND (NOT rolsuper OR closed) ORDER BY rolsuper, object DESC LIMIT 1) f ON true`).Scan(&exists, &role, &object, &owner, &closed)
	if err != nil {
		return false, fmt.Errorf("looking for the state tables: %w", err)
	}
	if object != nil {
		return false, &OwnerError{Object: *object, Owner: *owner, Role: role, Closed: closed}
	}
	return exists, nil
}

// Init creates the state tables if they are not there, in the transaction that
// records the first run. Those of an earlier pgshadow get the columns they lack.
func Init(ctx context.Context, tx pgx.Tx) error {
	exists, err := Exists(ctx, tx.Conn())
	if err != nil {
		return err
	}
	if exists {
		return extend(ctx, tx)
	}
	if _, err := tx.Exec(ctx, stateSQL); err != nil {
		return fmt.Errorf("creating the state tables in schema pgshadow: %w", err)
	}
	_, err = Exists(ctx, tx.Conn()) // somebody else may have made the schema meanwhile
	return err
}

// Store writes the rows of one run.
type Store struct{ runID string }

// NewStore names the run whose rows are written.
func NewStore(runID string) *Store { return &Store{runID: runID} }

// Create records a new run, in the transaction that creates its first artifacts.
// The server records the session's role. A run without a method is one by shadow.
func Create(ctx context.Context, tx pgx.Tx, run Run) error {
	_, err := tx.Exec(ctx, `INSERT INTO pgshadow.run (run_id, table_oid, table_title, table_name, change, phase, host, pid, method, fingerprint)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		run.ID, run.TableOID, run.Table, run.TableName, run.Change, run.Phase, run.Owner.Host, run.Owner.PID, cmp.Or(run.Method, MethodShadow), run.Fingerprint)
	if err != nil {
		return fmt.Errorf("recording run %s: %w", run.ID, err)
	}
	return nil
}

const runColumns = `run_id, table_oid, table_title, table_name, change, phase, coalesce(plan, 'null'), host, pid, created_at, updated_at, ended_at, coalesce(outcome, ''), heal, coalesce(server, ''), steering, coalesce(progress, 'null'), coalesce(detail, ''), ` + laterColumns

// Runs lists the runs of the database, the newest first. openOnly leaves out
// those that have ended.
func Runs(ctx context.Context, conn *pgx.Conn, openOnly bool) ([]Run, error) {
	return runs(ctx, conn, "ended_at IS NULL OR NOT $1", openOnly)
}

func runs(ctx context.Context, conn *pgx.Conn, condition string, args ...any) ([]Run, error) {
	return list(ctx, conn, "SELECT "+runColumns+" FROM pgshadow.run AS r WHERE "+condition+" ORDER BY created_at DESC", args...)
}

func list(ctx context.Context, conn *pgx.Conn, query string, args ...any) ([]Run, error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("listing runs: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Run, error) {
		var r Run
		err := row.Scan(&r.ID, &r.TableOID, &r.Table, &r.TableName, &r.Change, &r.Phase, &r.Plan, &r.Owner.Host, &r.Owner.PID,
			&r.CreatedAt, &r.UpdatedAt, &r.EndedAt, &r.Outcome, &r.Heal, &r.Server, &r.Steering, &r.Progress, &r.Detail,
			&r.Method, &r.Role, &r.Fingerprint, &r.Report)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("listing runs: %w", err)
	}
	return found, nil
}

// OpenRun returns the open run of a table, or nil.
func OpenRun(ctx context.Context, conn *pgx.Conn, table uint32) (*Run, error) {
	return first(runs(ctx, conn, "ended_at IS NULL AND table_oid = $1", table))
}

// FindRun returns a run by its id, open or not, or nil.
func FindRun(ctx context.Context, conn *pgx.Conn, runID string) (*Run, error) {
	return first(runs(ctx, conn, "run_id = $1", runID))
}

// UntidyRun returns the run whose swap put the table in place and which was not
// given the time to clean up after it, or nil. tidy is the phase of one that was.
func UntidyRun(ctx context.Context, conn *pgx.Conn, table uint32, tidy string) (*Run, error) {
	return first(runs(ctx, conn, "result_oid = $1 AND phase <> $2", table, tidy))
}

func first(runs []Run, err error) (*Run, error) {
	if err != nil || len(runs) == 0 {
		return nil, err
	}
	return &runs[0], nil
}

// SetPlan keeps the plan, in the transaction that made what it speaks of. It fails when
// the run has ended.
func (s *Store) SetPlan(ctx context.Context, tx pgx.Tx, plan any) error {
	document, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("encoding the plan of run %s: %w", s.runID, err)
	}
	tag, err := tx.Exec(ctx, "UPDATE pgshadow.run SET plan = $2, updated_at = pg_catalog.now() WHERE run_id = $1 AND ended_at IS NULL", s.runID, document)
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("it has ended")
	}
	if err != nil {
		return fmt.Errorf("keeping the plan of run %s: %w", s.runID, err)
	}
	return nil
}

// SetHeal records that changes were missed, or that a full comparison has made up
// for it.
func (s *Store) SetHeal(ctx context.Context, tx pgx.Tx, heal bool) error {
	if _, err := tx.Exec(ctx, "UPDATE pgshadow.run SET heal = $2, updated_at = pg_catalog.now() WHERE run_id = $1", s.runID, heal); err != nil {
		return fmt.Errorf("recording that run %s has missed changes: %w", s.runID, err)
	}
	return nil
}

// Claim makes sure that the run is still open, and waits for a swap that is
// being committed. It returns false when the run has ended: then nothing of it
// may be dropped as if it had not.
func (s *Store) Claim(ctx context.Context, conn *pgx.Conn) (open bool, err error) {
	tag, err := conn.Exec(ctx, "UPDATE pgshadow.run SET updated_at = pg_catalog.now() WHERE run_id = $1 AND ended_at IS NULL", s.runID)
	if err != nil {
		return false, fmt.Errorf("claiming run %s: %w", s.runID, err)
	}
	return tag.RowsAffected() == 1, nil
}

// SetPhase records the phase that begins, and who works on it.
func (s *Store) SetPhase(ctx context.Context, conn *pgx.Conn, phase string, owner Owner) error {
	_, err := conn.Exec(ctx, "UPDATE pgshadow.run SET phase = $2, host = $3, pid = $4, updated_at = pg_catalog.now() WHERE run_id = $1",
		s.runID, phase, owner.Host, owner.PID)
	if err != nil {
		return fmt.Errorf("recording phase %s of run %s: %w", phase, s.runID, err)
	}
	return nil
}

// SetServer keeps which server the slot was made on.
func (s *Store) SetServer(ctx context.Context, conn *pgx.Conn, server string) error {
	if _, err := conn.Exec(ctx, "UPDATE pgshadow.run SET server = $2, updated_at = pg_catalog.now() WHERE run_id = $1", s.runID, server); err != nil {
		return fmt.Errorf("recording the server of run %s: %w", s.runID, err)
	}
	return nil
}

// SetSteering keeps what the operator has asked for.
func (s *Store) SetSteering(ctx context.Context, conn pg.Execer, steering any) error {
	document, err := json.Marshal(steering)
	if err != nil {
		return fmt.Errorf("encoding what the operator of run %s asked for: %w", s.runID, err)
	}
	if _, err := conn.Exec(ctx, "UPDATE pgshadow.run SET steering = $2 WHERE run_id = $1", s.runID, document); err != nil {
		return fmt.Errorf("keeping what the operator of run %s asked for: %w", s.runID, err)
	}
	return nil
}

// Touch records that the run is alive, and how far it is. The session commits with at least
// synchronous_commit=local, so when it returns this commit is durable on the
// server, and every commit before it too.
func (s *Store) Touch(ctx context.Context, conn *pgx.Conn, applied pg.LSN, progress any) error {
	document, err := json.Marshal(progress)
	if err != nil {
		return fmt.Errorf("encoding the progress of run %s: %w", s.runID, err)
	}
	_, err = conn.Exec(ctx, "UPDATE pgshadow.run SET applied = $2, progress = $3, updated_at = pg_catalog.now() WHERE run_id = $1", s.runID, applied.String(), document)
	if err != nil {
		return fmt.Errorf("writing the checkpoint of run %s: %w", s.runID, err)
	}
	return nil
}

// End closes the run.
func (s *Store) End(ctx context.Context, conn *pgx.Conn, outcome, detail string) error {
	_, err := conn.Exec(ctx, "UPDATE pgshadow.run SET ended_at = pg_catalog.now(), updated_at = pg_catalog.now(), outcome = $2, detail = $3 WHERE run_id = $1 AND ended_at IS NULL",
		s.runID, outcome, detail)
	if err != nil {
		return fmt.Errorf("recording the end of run %s: %w", s.runID, err)
	}
	return nil
}

// EndIn closes the run in the transaction of the swap, which puts the table result
// in place.
func (s *Store) EndIn(ctx context.Context, tx pgx.Tx, outcome string, result uint32) error {
	tag, err := tx.Exec(ctx, `UPDATE pgshadow.run SET ended_at = pg_catalog.now(), updated_at = pg_catalog.now(), outcome = $2, result_oid = $3
		WHERE run_id = $1 AND ended_at IS NULL`, s.runID, outcome, result)
	if err != nil {
		return fmt.Errorf("recording the end of run %s: %w", s.runID, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("recording the end of run %s: it has been ended by somebody else", s.runID)
	}
	return nil
}

// NoteIn keeps a word on how far an open run is, in a transaction of the caller's.
func (s *Store) NoteIn(ctx context.Context, tx pgx.Tx, detail string) error {
	if _, err := tx.Exec(ctx, "UPDATE pgshadow.run SET detail = $2, updated_at = pg_catalog.now() WHERE run_id = $1 AND ended_at IS NULL", s.runID, detail); err != nil {
		return fmt.Errorf("keeping a word on run %s: %w", s.runID, err)
	}
	return nil
}

// RecordChunk records a committed chunk, in the chunk's own transaction.
func (s *Store) RecordChunk(ctx context.Context, tx pgx.Tx, chunk keyset.Range, rows int64) error {
	_, err := tx.Exec(ctx, "INSERT INTO pgshadow.chunk (run_id, lo, hi, rows) VALUES ($1, $2, $3, $4)", s.runID, bound(chunk.Lo), bound(chunk.Hi), rows)
	if err != nil {
		return fmt.Errorf("recording chunk %s: %w", chunk, err)
	}
	return nil
}

// ForgetChunks removes every chunk's record, in the transaction that empties the
// shadow.
func (s *Store) ForgetChunks(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "DELETE FROM pgshadow.chunk WHERE run_id = $1", s.runID); err != nil {
		return fmt.Errorf("forgetting the chunks of run %s: %w", s.runID, err)
	}
	return nil
}

// Chunk is one committed chunk's record.
type Chunk struct {
	Range keyset.Range
	Rows  int64
}

// Chunks lists the committed chunks in key order, which only the server knows.
func (s *Store) Chunks(ctx context.Context, conn *pgx.Conn, key keyset.Columns) ([]Chunk, error) {
	order := ""
	for i, column := range key {
		order += column.Cast(fmt.Sprintf("lo[%d]", i+1)) + " NULLS FIRST, "
	}
	rows, err := conn.Query(ctx, "SELECT lo, hi, rows FROM pgshadow.chunk WHERE run_id = $1 ORDER BY "+order+"chunk_id", s.runID)
	if err != nil {
		return nil, fmt.Errorf("reading the chunks of run %s: %w", s.runID, err)
	}
	chunks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Chunk, error) {
		var lo, hi []string
		var c Chunk
		err := row.Scan(&lo, &hi, &c.Rows)
		c.Range = keyset.Range{Lo: boundOf(lo), Hi: boundOf(hi)}
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the chunks of run %s: %w", s.runID, err)
	}
	return chunks, nil
}

func bound(key *keyset.Key) []string {
	if key == nil {
		return nil
	}
	return key.Values()
}

func boundOf(values []string) *keyset.Key {
	if values == nil {
		return nil
	}
	key := keyset.NewKey(values...)
	return &key
}
