package fault

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// attempts is how often a run may have to be started again.
const attempts = 3

func (c *combination) tableOID() (oid uint32) {
	c.t.Helper()
	c.must(c.conn.QueryRow(c.ctx, "SELECT $1::regclass::oid", table).Scan(&oid))
	return oid
}

// swapped tells whether the changed table is in place; it is all there, or nothing of it (INV-7).
func (c *combination) swapped() bool {
	c.t.Helper()
	if c.point.native {
		return c.changedNatively()
	}
	var place string
	c.must(c.conn.QueryRow(c.ctx, `SELECT CASE WHEN $2::regclass = $1 THEN 'original ' ELSE 'changed ' END ||
		string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attname) FROM pg_attribute
		WHERE attrelid = $2::regclass AND attname IN ('id', 'added')`, c.oid, table).Scan(&place))
	done := c.recordedDone()
	switch {
	case place == "changed added integer, id bigint" && done == 1:
		return true
	case place == "original id integer" && done == 0:
		return false
	}
	c.t.Fatalf("%s: the table in place is %s, and %d runs are recorded as done", c.pair, place, done)
	return false
}

// changedNatively tells whether all of a change without a copy is there. A part may be, while the run is open.
func (c *combination) changedNatively() bool {
	c.t.Helper()
	var made string
	c.must(c.conn.QueryRow(c.ctx, `SELECT coalesce(string_agg(format('%s %s', contype, convalidated), ', ' ORDER BY contype), '') FROM pg_constraint
		WHERE conrelid = $1::regclass AND conname IN ('orders_added', 'orders_added_check')`, table).Scan(&made))
	whole := made == "c t, u t"
	if done := c.recordedDone(); whole != (done == 1) || c.tableOID() != c.oid {
		c.t.Fatalf("%s: the constraints are %q, and %d runs are recorded as done", c.pair, made, done)
	}
	return whole
}

func (c *combination) recordedDone() (done int) {
	c.t.Helper()
	var recorded string
	c.must(c.conn.QueryRow(c.ctx, "SELECT coalesce(to_regclass('pgshadow.run')::text, '')").Scan(&recorded))
	if recorded != "" {
		c.must(c.conn.QueryRow(c.ctx, "SELECT count(*) FROM pgshadow.run WHERE outcome = 'done'").Scan(&done))
	}
	return done
}

// judge holds what the process said of its end against what is.
func (c *combination) judge() {
	c.t.Helper()
	c.gone()
	report := c.child.report
	switch {
	case report == nil && c.fault.ends == killed:
		tally.end("killed")
		return
	case report == nil:
		c.t.Fatalf("%s: the process ended without a report", c.pair)
	}
	c.t.Logf("the process ended %s", report.Outcome)
	tally.end(string(report.Outcome))
	if code := c.child.cmd.ProcessState.ExitCode(); code != report.ExitCode || code != report.Outcome.ExitCode() {
		c.t.Errorf("%s: exit code %d, reported %d for %s", c.pair, code, report.ExitCode, report.Outcome)
	}
	if !c.may(report.Outcome) {
		c.t.Errorf("%s: the run is told to be %s", c.pair, report.Outcome)
	}
	c.truthful(*report)
}

// truthful fails unless what a report says of the table is so.
func (c *combination) truthful(report migration.Report) {
	c.t.Helper()
	if told, is := report.Outcome == migration.Done, c.swapped(); told != is && report.Outcome != migration.Unknown {
		c.t.Errorf("%s: the run is told to be %s, and that the swap is committed is %t", c.pair, report.Outcome, is)
	}
	if report.Outcome == migration.Aborted || report.Outcome == migration.Refused {
		if left := c.left(); left != "" {
			c.t.Errorf("%s: the run is told to be %s, and left %s", c.pair, report.Outcome, left)
		}
	}
}

// gone returns when the server has noticed that the process has.
func (c *combination) gone() {
	c.t.Helper()
	var left string
	c.must(c.poll("the run's sessions to end", func(ctx context.Context) (bool, error) {
		err := c.conn.QueryRow(ctx, `SELECT coalesce(string_agg(application_name || ' ' || coalesce(state, '') || ' ' || coalesce(query, ''), ', '), '') FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'pgshadow %'`).Scan(&left)
		return left == "", err
	}))
}

// left lists the artifacts of runs.
func (c *combination) left() (artifacts string) {
	c.t.Helper()
	c.must(c.conn.QueryRow(c.ctx, `SELECT coalesce(string_agg(x, ', '), '') FROM (
		SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'pgshadow\_%'
		UNION ALL SELECT relname::text FROM pg_class WHERE relname LIKE 'pgshadow\_%'
		UNION ALL SELECT pubname::text FROM pg_publication
		UNION ALL SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()) AS s(x)`).Scan(&artifacts))
	return artifacts
}

// tidied tells whether the change is done to its end. What a process says that is done without a warning, is.
func (c *combination) tidied() bool {
	c.t.Helper()
	var phase string
	c.must(c.conn.QueryRow(c.ctx, "SELECT phase FROM pgshadow.run WHERE outcome = 'done'").Scan(&phase))
	tidied := phase == migration.Ended.String()
	if report := c.child.report; !tidied && report != nil && report.Outcome == migration.Done && len(report.Warnings) == 0 {
		c.t.Errorf("%s: the run is told to be done, and stands in phase %s", c.pair, phase)
	}
	return tidied
}

// conclude brings the run to its end, or away with it, and holds the rows against the oracle.
func (c *combination) conclude(before string) {
	c.t.Helper()
	changed := c.swapped()
	switch {
	case changed && c.tidied():
	case c.cleanup:
		c.cleanUp()
	default: // not changed yet, or changed and something is left behind: the same command does the rest
		c.resume()
		changed = true
	}
	c.written() // the table takes writes
	_, err := c.w.Stop(c.ctx)
	c.must(err)
	c.must(workload.Check(c.ctx, c.conn, c.spec, nil))
	if c.swapped() != changed {
		c.t.Errorf("%s: the table in place is not the right one", c.pair)
	}
	if changed {
		c.onlyRetired()
		c.healed()
		return
	}
	if left := c.left(); left != "" {
		c.t.Errorf("%s: cleanup left %s", c.pair, left)
	}
	if after := pgtest.Dump(c.t, c.db); after != before {
		c.t.Errorf("%s: the database is not as before:\n%s\nbefore:\n%s", c.pair, after, before)
	}
}

func (c *combination) onlyRetired() {
	c.t.Helper()
	if left := c.left(); c.point.native && left != "" {
		c.t.Errorf("%s: left are %q", c.pair, left)
	} else if !c.point.native && (!strings.HasSuffix(left, "_retired") || strings.Contains(left, ", ")) {
		c.t.Errorf("%s: left are %q, want the retired table's schema alone", c.pair, left)
	}
}

func (c *combination) cleanUp() {
	c.t.Helper()
	leftovers, err := migration.Cleanup(c.ctx, c.db.DSN, false)
	c.note(fmt.Sprintf("cleanup: %+v", leftovers))
	c.must(err)
	c.gone()
}

// resume runs the same change again until it is done.
func (c *combination) resume() {
	c.t.Helper()
	for attempt := 1; ; attempt++ {
		config := c.task.config()
		config.DSN = c.db.DSN
		config.Observer = migration.ObserverFunc(func(event migration.Event) {
			c.note(fmt.Sprintf("again, %s: %+v", eventName(event), event))
		})
		report, err := migration.Run(c.ctx, config)
		c.note(fmt.Sprintf("again: %s, %v", report.Outcome, err))
		c.gone()
		c.truthful(report)
		if report.Outcome == migration.Done {
			break
		}
		if attempt == attempts {
			c.t.Fatalf("%s: the run was not done when started %d times more: %v", c.pair, attempts, err)
		}
	}
}

// healed fails unless the loss of a slot that had something to bring was seen, and made up for.
func (c *combination) healed() {
	c.t.Helper()
	if c.fault.name != slotDropped || c.point.has&copied == 0 || c.point.has&swapped != 0 {
		return
	}
	c.mu.Lock()
	all := strings.Join(c.notes, "\n") + c.child.story()
	c.mu.Unlock()
	if !strings.Contains(all, "the full comparison found") {
		c.t.Errorf("%s: nothing compared what the lost slot had missed", c.pair)
	}
}
