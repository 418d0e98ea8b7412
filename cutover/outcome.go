package cutover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// outcomeLimit bounds how long the server is asked what became of the swap.
const outcomeLimit = time.Minute

// outcome asks, on new connections, what became of the swap's transaction:
// pg_xact_status (PostgreSQL manual section 9.27.4), and which table now bears
// the name. The two must agree.
func (c *Cutover) outcome(ctx context.Context, xid uint64) (Outcome, error) {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeLimit)
	defer cancel()
	var failures error
	for {
		outcome, err := c.askOutcome(asking, xid)
		if err == nil && outcome != Unknown {
			return outcome, failures
		}
		failures = errors.Join(err)
		if wait(asking, backoffMin) != nil {
			return Unknown, failures
		}
	}
}

func (c *Cutover) askOutcome(ctx context.Context, xid uint64) (outcome Outcome, err error) {
	conn, err := c.connect(ctx, "outcome")
	if err != nil {
		return Unknown, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	var status *string
	var oid *uint32
	err = conn.QueryRow(ctx, `SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8),
		(SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $2 AND c.relname = $3)`,
		fmt.Sprint(xid), c.plan.Original.Schema, c.plan.Original.Name).Scan(&status, &oid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Unknown, fmt.Errorf("asking what became of transaction %d: %w", xid, err)
	}
	inPlace := oid != nil && *oid == c.plan.Original.OID
	switch {
	case status == nil || *status == "in progress":
		return Unknown, nil
	case *status == "committed" && !inPlace:
		return Committed, nil
	case *status == "aborted" && inPlace:
		return NotCommitted, nil
	default:
		return Unknown, fmt.Errorf("transaction %d is said to be %s, and the table's name says otherwise", xid, *status)
	}
}
