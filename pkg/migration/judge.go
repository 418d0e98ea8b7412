package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// judgement is what the change costs in place.
type judgement struct {
	verdict shadow.Verdict
	lock    string // of the table
	reason  error  // for which PostgreSQL refuses it
	creates bool   // indexes or sequences, in the table's schema
}

// hearer gathers what the server says.
type hearer struct {
	mu       sync.Mutex
	messages []string
}

func (h *hearer) hear(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, message)
}

// take takes the messages so far.
func (h *hearer) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	messages := h.messages
	h.messages = nil
	return messages
}

// judge finds out by trial what the change costs in place: PostgreSQL makes it on an
// empty copy of the table with everything attached, in a transaction that is rolled
// back. What PostgreSQL says no to is a verdict too.
func (m *Migration) judge(ctx context.Context) (found judgement, err error) {
	if tied, err := m.tiedByType(ctx); err != nil || tied != nil {
		return judgement{verdict: shadow.Refused, reason: tied}, err
	}
	if leaf := m.target.table.Leaf; leaf != nil && m.target.change.Reshapes {
		reason := &shadow.Refusal{Check: "partition", Reason: fmt.Sprintf("the columns of %s are those of %s", m.target.table, leaf.Parent()), Remedy: "change the partitioned table"}
		return judgement{verdict: shadow.Refused, reason: reason}, nil
	}
	heard := &hearer{}
	conn, err := m.db.Hearing(heard.hear).Connect(ctx, "plan")
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	err = pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return undone(ctx, tx, func(tx pgx.Tx) error {
			found, err = m.tryInPlace(ctx, tx, heard)
			return err
		})
	})
	var refusal *shadow.Refusal
	var syntax *shadow.SyntaxError
	if err = m.refuseRights(err); errors.As(err, &refusal) || errors.As(err, &syntax) {
		found.verdict, found.reason = shadow.Refused, err
		return found, nil
	}
	return found, err
}

// tiedByType refuses what a copy of the table could be changed by, and the table cannot:
// the columns of a typed table are those of its type, and where a column has the table's
// row type, PostgreSQL would have to give new values of the rows to that column's too.
func (m *Migration) tiedByType(ctx context.Context) (error, error) {
	var typed, column *string
	err := m.control.QueryRow(ctx, `SELECT (SELECT pg_catalog.format_type(reloftype, NULL) FROM pg_catalog.pg_class WHERE oid = $1 AND reloftype <> 0),
		(SELECT pg_catalog.min(pg_catalog.format('column %I of %s', a.attname, c.oid::pg_catalog.regclass))
		FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.atttypid IN (t.oid, t.typarray) AND NOT a.attisdropped
			JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'm', 'p') WHERE t.typrelid = $1)`, m.target.table.OID).Scan(&typed, &column)
	if err != nil {
		return nil, fmt.Errorf("looking for what the table has to do with types: %w", err)
	}
	refuse := func(check, format string, args ...any) error {
		return &shadow.Refusal{Check: check, Reason: "PostgreSQL refuses it: " + fmt.Sprintf(format, args...), Remedy: obstacleRemedies[check]}
	}
	fills := slices.ContainsFunc(m.target.change.InPlace, func(alter shadow.InPlace) bool { return alter.Fills })
	switch {
	case typed != nil && m.target.change.Reshapes:
		return refuse("typed table", "the columns of %s are those of type %s", m.target.table, *typed), nil
	case column != nil && fills:
		return refuse("row type user", "%s has the row type of %s", *column, m.target.table), nil
	default:
		return nil, nil
	}
}

func (m *Migration) tryInPlace(ctx context.Context, tx pgx.Tx, heard *hearer) (found judgement, err error) {
	names := shadow.Names{RunID: newRunID(), Table: m.target.table.Name}
	confined := m.confined(names)
	if _, err := m.create(ctx, tx, names, confined); err != nil {
		return found, err
	}
	if err := m.tryAsLeaf(ctx, tx, names); err != nil {
		return found, err
	}
	before, err := m.relations(ctx, tx, names)
	if err != nil {
		return found, err
	}
	trial := shadow.NewTrial(m.target.table, names)
	statements := trial.Open()
	for _, rider := range trial.Riders() {
		statements = append(statements, rider.Statements...)
	}
	if err := execAll(ctx, tx, confined, statements); err != nil {
		return found, err
	}
	for _, alter := range m.target.change.InPlace {
		verdict, err := m.tryOne(ctx, tx, names, alter, heard)
		if err != nil {
			return found, inReal(trial, err)
		}
		found.verdict, found.lock = max(found.verdict, verdict), shadow.Stronger(found.lock, alter.Lock)
	}
	after, err := m.relations(ctx, tx, names)
	found.creates = after > before
	return found, err
}

// tryAsLeaf has PostgreSQL say what a partition may not change by itself, where the copy
// can be made one.
func (m *Migration) tryAsLeaf(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	if m.target.table.Leaf == nil {
		return nil
	}
	role, err := m.attacher(ctx, m.target.table)
	if err != nil || role == "" {
		return err
	}
	var texts []string
	for _, alter := range m.target.change.InPlace {
		if alter.Trial != "" {
			texts = append(texts, alter.Trial)
		}
	}
	return m.tryAlters(ctx, tx, names, texts)
}

// relations counts what there is in the copy's schema.
func (m *Migration) relations(ctx context.Context, tx pgx.Tx, names shadow.Names) (n int, err error) {
	if err := m.confined(names).Leave(ctx, tx); err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1", names.ShadowSchema()).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting what the copy has: %w", err)
	}
	return n, nil
}

func (m *Migration) tryOne(ctx context.Context, tx pgx.Tx, names shadow.Names, alter shadow.InPlace, heard *hearer) (shadow.Verdict, error) {
	verdict := shadow.Instant
	if alter.ValidatesKey {
		verdict = shadow.Scan
	}
	if alter.Trial == "" {
		return verdict, nil
	}
	traces, err := m.trace(ctx, tx, names, heard, func() error { return m.alter(ctx, tx, names, alter.Trial) })
	return max(verdict, traces.Verdict()), err
}

// trace watches what some work does to the copy.
func (m *Migration) trace(ctx context.Context, tx pgx.Tx, names shadow.Names, heard *hearer, work func() error) (traces shadow.Traces, err error) {
	copied, err := m.loadShadow(ctx, tx, names)
	if err != nil {
		return traces, err
	}
	if traces.Before, err = files(ctx, tx, copied.OID); err != nil {
		return traces, err
	}
	if _, err := tx.Exec(ctx, "SET LOCAL client_min_messages = debug1"); err != nil {
		return traces, fmt.Errorf("asking for the server's messages: %w", err)
	}
	heard.take()
	if err := work(); err != nil {
		return traces, err
	}
	traces.Messages = heard.take()
	if err := m.confined(names).Leave(ctx, tx); err != nil {
		return traces, err
	}
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.current_setting('client_min_messages') <> 'debug1'").Scan(&traces.Muted); err != nil {
		return traces, fmt.Errorf("asking whether the server's messages have come: %w", err)
	}
	if _, err := tx.Exec(ctx, "SET LOCAL client_min_messages = warning"); err != nil {
		return traces, fmt.Errorf("asking for the server's messages no more: %w", err)
	}
	traces.After, err = files(ctx, tx, copied.OID)
	return traces, err
}

func files(ctx context.Context, tx pgx.Tx, oid uint32) (found shadow.Files, err error) {
	err = tx.QueryRow(ctx, `SELECT pg_catalog.pg_relation_filenode($1), ARRAY(SELECT pg_catalog.pg_relation_filenode(indexrelid) FROM pg_catalog.pg_index WHERE indrelid = $1)`,
		oid).Scan(&found.Table, &found.Indexes)
	if err != nil {
		return found, fmt.Errorf("reading the files of the copy: %w", err)
	}
	return found, nil
}
