package cutover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Victim is a table that is locked against everybody, and that has rows, or whose
// partitions have.
type Victim struct {
	OID         uint32
	Name, Owner string // the name is quoted
}

// victims are the original, the shadow and, of a leaf partition, its parent and the
// default partition beside it.
func (c *Cutover) victims() []Victim {
	all := []Victim{{c.tables[0], c.plan.Original.Quoted(), c.plan.Owner}, {c.tables[1], c.plan.Names.Shadow(), c.plan.Owner}}
	if leaf := c.plan.Original.Leaf; leaf != nil {
		all = append(all, Victim{leaf.Parent().OID, leaf.Parent().Quoted(), leaf.Parent().Owner})
		if leaf.Beside != nil {
			all = append(all, Victim{leaf.Beside.Table.OID, leaf.Beside.Table.Quoted(), leaf.Beside.Table.Owner})
		}
	}
	return all
}

func (c *Cutover) victimOIDs() []uint32 {
	var oids []uint32
	for _, table := range c.victims() {
		oids = append(oids, table.OID)
	}
	return oids
}

// refuseOldSnapshots holds an attempt back while there is a prepared transaction
// on the table, whose lock nobody can wait out, or a transaction whose snapshot
// is older than the shadow's rows: it would not see them (hazard H34). A
// snapshot's xmin is as old as the oldest transaction that writes anywhere, so
// the transaction's own beginning counts too; a role without pg_read_all_stats
// does not see that of others, and takes them for old.
func (c *Cutover) refuseOldSnapshots(ctx context.Context, conn *pgx.Conn) error {
	var blockers []string
	rows, err := conn.Query(ctx, `
		SELECT name || ' holds a lock on it' FROM (`+preparedSQL+`) AS prepared(name, waits)
		UNION ALL
		SELECT pg_catalog.format('pid %s (%s, %s) has had a snapshot since %s', pid, application_name, coalesce(state, 'its state is hidden'),
				coalesce(xact_start::pg_catalog.text, 'a time that is hidden from this role, without pg_read_all_stats'))
		  FROM pg_catalog.pg_stat_activity
		 WHERE backend_xmin IS NOT NULL AND datname = pg_catalog.current_database()
		   AND coalesce(backend_type, 'client backend') = 'client backend' AND pid NOT IN (SELECT r.pid FROM pg_catalog.pg_stat_replication r)
		   AND pid <> pg_catalog.pg_backend_pid() AND coalesce(application_name, '') NOT LIKE 'pgshadow%'
		   AND (xact_start IS NULL OR xact_start < $3)
		   AND pg_catalog.age(backend_xmin) > pg_catalog.age($2::pg_catalog.text::pg_catalog.xid)`, c.victimOIDs(), c.horizon.xid(), c.horizon.At)
	if err != nil {
		return fmt.Errorf("looking for old snapshots: %w", err)
	}
	blockers, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking for old snapshots: %w", err)
	}
	if len(blockers) > 0 {
		return &notYetError{fmt.Sprintf("%s cannot be swapped yet: %s", c.plan.Original, strings.Join(blockers, "; "))}
	}
	return nil
}

// ShooAutovacuum makes an ordinary autovacuum of some tables give way, which it
// does for a waiter only after deadlock_timeout, longer than a short
// lock_timeout (hazard H49). The lock blocks no reader or writer.
func ShooAutovacuum(ctx context.Context, conn *pgx.Conn, tables []Victim) error {
	oids := make([]uint32, len(tables))
	for i, table := range tables {
		oids[i] = table.OID
	}
	rows, err := conn.Query(ctx, `SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
		WHERE l.relation = ANY ($1) AND l.granted AND (a.backend_type = 'autovacuum worker'
		  OR a.backend_type IS NULL AND a.usesysid IS NULL AND l.mode = 'ShareUpdateExclusiveLock')`, oids)
	if err != nil {
		return fmt.Errorf("looking for an autovacuum of %s: %w", tables[0].Name, err)
	}
	busy, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return fmt.Errorf("looking for an autovacuum of %s: %w", tables[0].Name, err)
	}
	for _, table := range tables {
		if !slices.Contains(busy, table.OID) {
			continue
		}
		if err := shoo(ctx, conn, table); err != nil {
			return err
		}
	}
	return nil
}

func shoo(ctx context.Context, conn *pgx.Conn, table Victim) error {
	return pg.InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"SET LOCAL lock_timeout = " + pg.Milliseconds(3*time.Second),
			"SET LOCAL ROLE " + pg.Ident(table.Owner),
			"LOCK TABLE ONLY " + table.Name + " IN SHARE UPDATE EXCLUSIVE MODE",
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("waiting for an autovacuum of %s to give way: %w", table.Name, err)
			}
		}
		return nil
	})
}

// locked names what the swap locks, for the message of an attempt that did not
// get all of it.
func (c *Cutover) locked() string {
	others := len(c.plan.Locks) - 1
	switch others {
	case 0:
		return c.plan.Original.String()
	case 1:
		return c.plan.Original.String() + " and what is attached to it"
	default:
		return fmt.Sprintf("%s and the %d tables and views attached to it", c.plan.Original, others)
	}
}

// holders names who holds locks that the swap needs, for the message of an
// attempt that did not get them.
func (c *Cutover) holders(ctx context.Context, conn *pgx.Conn) string {
	oids := make([]uint32, len(c.plan.Locks))
	for i, lock := range c.plan.Locks {
		oids[i] = lock.OID
	}
	return Holders(ctx, conn, oids)
}

// preparedSQL names the prepared transactions with a lock on the tables $1, which no
// session has; none of them waits for anything.
const preparedSQL = `SELECT pg_catalog.format('prepared transaction %L', x.gid), false
	FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = l.transactionid
	WHERE EXISTS (SELECT FROM pg_catalog.pg_locks t WHERE t.virtualtransaction = l.virtualtransaction
	              AND t.relation = ANY ($1) AND t.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))`

// Holders names who else holds locks on some tables, as the end of a message; it is
// empty when nobody is found.
func Holders(ctx context.Context, conn *pgx.Conn, oids []uint32) string {
	return named(ctx, conn, "; it is locked by ", `SELECT DISTINCT pg_catalog.format('pid %s (%s, %s, %s%s, transaction open for %s)', a.pid, a.usename, a.application_name, a.state,
			`+pg.CommitWaits("a")+`, pg_catalog.date_trunc('milliseconds', pg_catalog.clock_timestamp() - a.xact_start)), coalesce(a.wait_event = 'SyncRep', false)
		FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
		WHERE l.relation = ANY ($1) AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
		  AND l.granted AND a.pid <> pg_catalog.pg_backend_pid()
		UNION ALL `+preparedSQL+` LIMIT 5`, oids)
}

// hanging names the sessions whose commits wait for a synchronous standby, for
// the message of an attempt for which replay did not catch up: it replays nothing
// that is not visible yet.
func (c *Cutover) hanging(ctx context.Context, conn *pgx.Conn) string {
	return named(ctx, conn, "; ", `SELECT pg_catalog.format('pid %s (%s, %s, %s%s)', a.pid, a.usename, a.application_name, a.state, `+pg.CommitWaits("a")+`), true
		FROM pg_catalog.pg_stat_activity a
		WHERE a.wait_event = 'SyncRep' AND a.datname = pg_catalog.current_database() ORDER BY a.query_start LIMIT 5`)
}

// named joins what a query of sessions gives, and whether a session's commit
// waits for a standby. What cannot be had is left out of the message.
func named(ctx context.Context, conn *pgx.Conn, before, sql string, args ...any) string {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return ""
	}
	sessions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		Name  string
		Waits bool
	}])
	if err != nil || len(sessions) == 0 {
		return ""
	}
	names, anyWaits := make([]string, len(sessions)), false
	for i, session := range sessions {
		names[i] = session.Name
		anyWaits = anyWaits || session.Waits
	}
	text := before + strings.Join(names, ", ")
	if standbys, err := pg.SynchronousStandbys(ctx, conn); anyWaits && err == nil && standbys != "" {
		text += "; " + standbys
	}
	return text
}
