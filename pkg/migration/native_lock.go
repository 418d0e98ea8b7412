package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
)

// lockedWork is done under a lock. It says hurry before each of its statements, which
// bounds the statement by what is left of the time for which the lock may be held.
type lockedWork func(ctx context.Context, tx pgx.Tx, hurry func() error) error

// underLock does work in one transaction that begins with a lock of the table, and
// makes more attempts when the lock is not had, or held for too long.
func (n *nativeRun) underLock(ctx context.Context, lock string, reads bool, work lockedWork) (err error) {
	m := n.m
	conn, err := m.db.With(plansServe).Connect(ctx, n.plan.Names.RunID+" native")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	attempts := func() int { return m.current().Cutover.Attempts }
	observe := func(event cutover.Event) {
		if event.Reason != "" {
			m.config.Observer.Observe(AttemptFailed(event))
		}
	}
	return cutover.Retry(ctx, attempts, observe, func(attempt int) error {
		if !n.undoing {
			if err := m.awaitGo(ctx); err != nil {
				return err
			}
		}
		m.report.Cutover.Attempts = max(m.report.Cutover.Attempts, attempt)
		return n.attempt(ctx, conn, lock, reads, work)
	})
}

// attempt asks for the lock first: others queue behind it no longer than its timeout.
func (n *nativeRun) attempt(ctx context.Context, conn *pgx.Conn, lock string, reads bool, work lockedWork) error {
	m, tuned := n.m, n.m.current().Cutover
	if err := n.before(ctx, conn); err != nil {
		return err
	}
	table := n.plan.Original
	if err := cutover.ShooAutovacuum(ctx, conn, []cutover.Victim{{OID: table.OID, Name: table.Quoted(), Owner: table.Owner}}); err != nil {
		return err
	}
	var asked, locked time.Time
	err := n.plan.Confined().InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := set(ctx, tx, "lock_timeout", tuned.LockTimeout); err != nil {
			return err
		}
		asked = time.Now()
		if err := pg.ExecAs(ctx, tx, n.plan.Owner, nil, lockSQL(table, lock)); err != nil {
			return fmt.Errorf("taking %s on %s: %w", lock, table, err)
		}
		locked = time.Now()
		if err := n.stillThere(ctx, tx); err != nil {
			return err
		}
		return work(ctx, tx, func() error {
			if reads {
				return set(ctx, tx, "statement_timeout", 0) // it takes as long as it does
			}
			return set(ctx, tx, "statement_timeout", max(time.Until(locked.Add(tuned.MaxLockHold)), time.Millisecond))
		})
	})
	if err != nil && !errors.Is(err, errTried) { // which is rolled back for a rehearsal
		return n.failed(ctx, conn, tuned, reads, err)
	}
	if !reads {
		m.report.Cutover.LockWaitMS = max(m.report.Cutover.LockWaitMS, milliseconds(locked.Sub(asked)))
		m.report.Cutover.LockHoldMS = max(m.report.Cutover.LockHoldMS, milliseconds(time.Since(locked)))
	}
	return nil
}

// failed says of an attempt that did not succeed why, and whether another is worth it.
func (n *nativeRun) failed(ctx context.Context, conn *pgx.Conn, tuned CutoverConfig, reads bool, err error) error {
	switch {
	case pg.IsLockFailure(err):
		return cutover.Later(fmt.Sprintf("no lock on %s within %s%s", n.locked(), tuned.LockTimeout, cutover.Holders(ctx, conn, n.lockedOIDs())))
	case pg.Is(err, pg.QueryCanceled) && !reads && ctx.Err() == nil:
		return n.overrun(tuned.MaxLockHold)
	default:
		return err
	}
}

func set(ctx context.Context, tx pgx.Tx, name string, d time.Duration) error {
	if _, err := tx.Exec(ctx, "SET LOCAL "+name+" = "+pg.Milliseconds(d)); err != nil {
		return fmt.Errorf("setting %s: %w", name, err)
	}
	return nil
}

// errGone says that the table was dropped, and with it all that the run has made.
var errGone = errors.New("the table was dropped")

// locate makes sure that the table's name still leads to it, before anything is done by
// that name. What takes a change back goes by the name, and the owner, that it has now. A
// change that nothing is made of yet is made of the table that was judged, or not at all.
func (n *nativeRun) locate(ctx context.Context, conn schema.Querier) error {
	original := n.plan.Original
	if n.untouched() {
		return sameFacts(ctx, conn, original)
	}
	now := *original
	err := conn.QueryRow(ctx, `SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`, original.OID).Scan(&now.Schema, &now.Name, &now.Owner)
	switch {
	case errors.Is(err, pgx.ErrNoRows) && n.undoing:
		return errGone
	case errors.Is(err, pgx.ErrNoRows):
		return replication.Changed(original.String(), []string{errGone.Error()})
	case err != nil:
		return fmt.Errorf("looking for %s: %w", original, err)
	case n.undoing:
		plan := *n.plan
		plan.Original, plan.Owner, plan.Others = &now, now.Owner, nil
		n.plan = &plan
		return nil
	case now.Quoted() != original.Quoted() || now.Owner != original.Owner:
		return replication.Changed(original.String(), []string{fmt.Sprintf("it is %s of %s now", now.String(), now.Owner)})
	default:
		return nil
	}
}

// lockSQL is how a step begins.
func lockSQL(table *schema.Table, lock string) string {
	return fmt.Sprintf("LOCK TABLE ONLY %s IN %s MODE", table.Quoted(), lock)
}

// stillThere makes sure, under the lock, that it is on the table, and that whoever it was
// waited for has not changed what was judged.
func (n *nativeRun) stillThere(ctx context.Context, tx pgx.Tx) error {
	table := n.plan.Original
	if oid, err := oidNow(ctx, tx, table); err != nil || oid != table.OID {
		return cmp.Or(err, cutover.Later(fmt.Sprintf("%s was given another name while its lock was waited for", table)))
	}
	if n.untouched() {
		return n.asJudged(ctx, tx)
	}
	return nil
}

// before is what is looked at ahead of the lock. Where it is looked at again under the lock,
// the session has the plans of the queries by then: planning takes longer than they do.
func (n *nativeRun) before(ctx context.Context, conn *pgx.Conn) error {
	if n.untouched() {
		return pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error { return n.asJudged(ctx, tx) })
	}
	return n.locate(ctx, conn)
}

// asJudged makes sure that the table is the one that was judged.
func (n *nativeRun) asJudged(ctx context.Context, tx pgx.Tx) error {
	kept, err := pg.Keep(ctx, tx)
	if err != nil {
		return err
	}
	return sameFacts(ctx, kept, n.plan.Original)
}

// untouched tells that nothing is made yet of a change that is to be made.
func (n *nativeRun) untouched() bool { return n.plan.Recipe.Done == 0 && !n.undoing }

// oidNow is the OID of the table that has a table's name.
func oidNow(ctx context.Context, tx pgx.Tx, table *schema.Table) (oid uint32, err error) {
	err = tx.QueryRow(ctx, `SELECT coalesce((SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2), 0)`,
		table.Schema, table.Name).Scan(&oid)
	if err != nil {
		return 0, fmt.Errorf("looking for %s: %w", table, err)
	}
	return oid, nil
}

// overrun is what becomes of an attempt that held its lock for too long.
func (n *nativeRun) overrun(limit time.Duration) error {
	table := n.plan.Original
	if n.overruns++; n.overruns < maxOverruns {
		return cutover.Later(fmt.Sprintf("the step would have held its lock on %s for longer than %s, and was rolled back", table, limit))
	}
	return fmt.Errorf("changing %s: the step would hold its lock for longer than %s, as it did %d times; give it more with --max-lock-hold, or leave it to a copy with --native never", table, limit, n.overruns)
}

// locked names what the steps lock.
func (n *nativeRun) locked() string {
	text := n.plan.Original.String()
	for _, other := range n.plan.Recipe.Others {
		text += " or " + other.Name
	}
	return text
}

func (n *nativeRun) lockedOIDs() []uint32 {
	oids := []uint32{n.plan.Original.OID}
	for _, other := range n.plan.Recipe.Others {
		oids = append(oids, other.OID)
	}
	return oids
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// buildIndex builds the index of a step. One that an earlier process has left unfinished
// is dropped first; one that it has finished is taken as it is.
func (n *nativeRun) buildIndex(ctx context.Context, step shadow.Step) error {
	err := n.retried(ctx, func() error {
		if err := n.locate(ctx, n.m.control); err != nil {
			return err
		}
		index, err := n.findIndex(ctx, step.Index)
		if err != nil || index.valid {
			return err
		}
		if err := n.dropIndex(ctx, step.Index); err != nil {
			return err
		}
		return n.alone(ctx, step.Statements[0].SQL)
	})
	if err != nil {
		return err
	}
	return n.advance(ctx, n.plan.Recipe.After(nil))
}

// advance records a recipe, in a transaction of its own.
func (n *nativeRun) advance(ctx context.Context, recipe *shadow.Recipe) error {
	err := pg.InTx(ctx, n.m.control, pgx.TxOptions{}, func(tx pgx.Tx) error { return n.keep(ctx, tx, recipe) })
	if err == nil {
		n.plan.Recipe = recipe
	}
	return err
}

// retried does once more what has met with a deadlock.
func (n *nativeRun) retried(ctx context.Context, work func() error) error {
	return cutover.Retry(ctx, func() int { return n.m.current().Cutover.Attempts }, func(event cutover.Event) {
		if event.Reason != "" {
			n.m.config.Observer.Observe(AttemptFailed(event))
		}
	}, func(int) error { return work() })
}

// foundIndex is an index of the table's that a run has built.
type foundIndex struct {
	quoted string // its name with its schema; empty: there is none
	valid  bool
}

func (n *nativeRun) findIndex(ctx context.Context, name string) (index foundIndex, err error) {
	err = n.m.control.QueryRow(ctx, `SELECT pg_catalog.format('%I.%I', s.nspname, c.relname), i.indisvalid
		FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
		WHERE i.indrelid = $1 AND c.relname = $2`, n.plan.Original.OID, name).Scan(&index.quoted, &index.valid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return index, fmt.Errorf("looking for index %s: %w", name, err)
	}
	return index, nil
}

// dropIndex drops an index of the run's, if it is there.
func (n *nativeRun) dropIndex(ctx context.Context, name string) error {
	return n.retried(ctx, func() error {
		index, err := n.findIndex(ctx, name)
		if err != nil || index.quoted == "" {
			return err
		}
		return n.alone(ctx, "DROP INDEX CONCURRENTLY IF EXISTS "+index.quoted)
	})
}

// alone runs a statement that no transaction can hold. The server waits in it for
// transactions, not for a lock that others queue behind: the wait is bounded by the
// operator, who is told for whom it is.
func (n *nativeRun) alone(ctx context.Context, sql string) (err error) {
	m := n.m
	conn, err := m.db.With(map[string]string{"lock_timeout": "0"}).Connect(ctx, n.plan.Names.RunID+" native")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	for _, sql := range []string{"SET search_path = " + n.plan.SearchPath, "SET ROLE " + pg.Ident(n.plan.Owner)} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("taking the role of owner %s: %w", n.plan.Owner, err)
		}
	}
	var backend int32
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&backend); err != nil {
		return fmt.Errorf("asking for a session's backend: %w", err)
	}
	return m.whileNamed(ctx, func(ctx context.Context) error { return m.nameLockers(ctx, backend) }, func() error {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("changing the table, %s: %w", sql, err)
		}
		return nil
	})
}

// nameLockers tells for whom a backend waits.
func (m *Migration) nameLockers(ctx context.Context, backend int32) error {
	var who *string
	if err := m.control.QueryRow(ctx, lockersSQL, backend).Scan(&who); err != nil {
		return fmt.Errorf("looking for whom the server waits: %w", err)
	}
	if who == nil {
		m.waited()
		return nil
	}
	m.waits("transactions to end", *who)
	return nil
}

// lockersSQL names the sessions that a backend waits for, and the prepared transaction,
// which has none.
const lockersSQL = `SELECT pg_catalog.string_agg(who, ', ') FROM (
	SELECT pg_catalog.format('pid %s (%s, %s, transaction open for %s)', a.pid, a.usename, a.application_name,
		pg_catalog.date_trunc('milliseconds', pg_catalog.clock_timestamp() - a.xact_start)) AS who
	FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b(pid) JOIN pg_catalog.pg_stat_activity a USING (pid)
	UNION ALL SELECT DISTINCT pg_catalog.format('prepared transaction %L, since %s', x.gid, pg_catalog.date_trunc('second', x.prepared))
	FROM pg_catalog.pg_locks w JOIN pg_catalog.pg_locks h USING (locktype) JOIN pg_catalog.pg_locks own ON own.virtualtransaction = h.virtualtransaction
		JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid
	WHERE w.pid = $1 AND NOT w.granted AND h.pid IS NULL AND h.granted AND own.pid IS NULL
	  AND (w.locktype = 'relation' AND h.relation = w.relation AND h.database = w.database OR w.locktype = 'transactionid' AND h.transactionid = w.transactionid)) AS all_of_them`
