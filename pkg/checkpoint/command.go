package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Channel is what is notified when a command is issued or answered (PostgreSQL
// manual, NOTIFY). The payload is the run's id.
const Channel = "pgshadow"

// Command is what an operator asks of the process that works on a run.
type Command struct {
	ID       int64
	Name     string
	Argument string
	By       string        // the role that issued it
	Age      time.Duration // since it was issued
}

// Answer is what became of a command.
type Answer struct {
	Given    bool
	Accepted bool
	Text     string
}

// Issue leaves a command for the run, and wakes the process that works on it.
func Issue(ctx context.Context, conn *pgx.Conn, runID, name, argument string) (id int64, err error) {
	err = conn.QueryRow(ctx, `WITH issued AS (INSERT INTO pgshadow.command (run_id, name, argument) VALUES ($1, $2, $3) RETURNING command_id)
		SELECT command_id FROM issued, (SELECT pg_catalog.pg_notify($4, $1)) AS told`, runID, name, argument, Channel).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("issuing %s to run %s: %w", name, runID, err)
	}
	return id, nil
}

// Pending lists the commands that were not answered, in the order they were issued.
func (s *Store) Pending(ctx context.Context, conn *pgx.Conn) ([]Command, error) {
	rows, err := conn.Query(ctx, "SELECT command_id, name, argument, issued_by, pg_catalog.clock_timestamp() - issued_at FROM pgshadow.command WHERE run_id = $1 AND answered_at IS NULL ORDER BY command_id", s.runID)
	if err != nil {
		return nil, fmt.Errorf("reading the commands to run %s: %w", s.runID, err)
	}
	commands, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Command])
	if err != nil {
		return nil, fmt.Errorf("reading the commands to run %s: %w", s.runID, err)
	}
	return commands, nil
}

// Answer says what became of a command, and wakes who waits for it. One that was
// answered or withdrawn already stays as it is: given is false then.
func (s *Store) Answer(ctx context.Context, conn pg.Execer, id int64, accepted bool, text string) (given bool, err error) {
	tag, err := conn.Exec(ctx, `WITH answered AS (UPDATE pgshadow.command SET answered_at = pg_catalog.clock_timestamp(), accepted = $3, answer = $4
			WHERE command_id = $2 AND answered_at IS NULL RETURNING run_id)
		SELECT pg_catalog.pg_notify($5, $1) FROM answered`, s.runID, id, accepted, text, Channel)
	if err != nil {
		return false, fmt.Errorf("answering a command to run %s: %w", s.runID, err)
	}
	return tag.RowsAffected() == 1, nil
}

// LoadAnswer reads what became of a command.
func LoadAnswer(ctx context.Context, conn *pgx.Conn, id int64) (Answer, error) {
	var a Answer
	err := conn.QueryRow(ctx, "SELECT answered_at IS NOT NULL, coalesce(accepted, false), coalesce(answer, '') FROM pgshadow.command WHERE command_id = $1", id).
		Scan(&a.Given, &a.Accepted, &a.Text)
	if errors.Is(err, pgx.ErrNoRows) {
		return a, fmt.Errorf("reading the answer to command %d: its record is gone", id)
	}
	if err != nil {
		return a, fmt.Errorf("reading the answer to command %d: %w", id, err)
	}
	return a, nil
}

// LoadEnd tells whether the run has ended, and how.
func (s *Store) LoadEnd(ctx context.Context, conn *pgx.Conn) (outcome string, ended bool, err error) {
	err = conn.QueryRow(ctx, "SELECT coalesce(outcome, ''), ended_at IS NOT NULL FROM pgshadow.run WHERE run_id = $1", s.runID).Scan(&outcome, &ended)
	if err != nil {
		return "", false, fmt.Errorf("reading how run %s has ended: %w", s.runID, err)
	}
	return outcome, ended, nil
}
