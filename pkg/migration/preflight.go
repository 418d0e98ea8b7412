package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/throttle"
	"github.com/pgshadow/pgshadow/replication"
)

const (
	// minVersion is the oldest server that pgshadow knows.
	minVersion = 140000
	// testedMajor is the newest major version that it has been tested with.
	testedMajor = 18
)

// connect opens the control session.
func (m *Migration) connect(ctx context.Context) (err error) {
	if m.db, err = pg.Open(m.config.DSN); err != nil {
		return err
	}
	m.control, err = m.db.Connect(ctx, "control")
	return refusePooler(err)
}

// lockTable finds the table, and takes its advisory lock, so that no two processes
// work on one table.
func (m *Migration) lockTable(ctx context.Context) (err error) {
	defer func() { err = refusePooler(err) }()
	oid := m.recovery.table // its name may have changed meanwhile
	if oid == 0 {
		if oid, err = m.resolve(ctx); err != nil {
			return err
		}
	}
	held, holder, err := pg.TryLock(ctx, m.control, oid)
	if err != nil {
		return err
	}
	if !held {
		return m.refuseSecond(ctx, oid, holder)
	}
	if m.recovery.control, err = pg.LoadBackend(ctx, m.control, holder); err != nil {
		return err
	}
	m.target.table, err = schema.Load(ctx, m.control, oid)
	if m.recovery.again && errors.Is(err, schema.ErrNoTable) {
		return replication.Changed(m.report.Table, []string{"the table was dropped"})
	}
	if errors.Is(err, schema.ErrNotUTF8) {
		return &shadow.Refusal{Check: "encoding", Reason: err.Error(), Remedy: "rename what is so called, and write such a value in an expression as convert_from('\\xFC', 'SQL_ASCII')"}
	}
	if err != nil {
		return err
	}
	m.report.Table = m.target.table.String()
	return m.findRun(ctx, oid)
}

// findRun looks for the table's unfinished run. Whoever has the table's lock may
// end the sessions that an earlier process of the run has left: none of them may
// still commit anything.
func (m *Migration) findRun(ctx context.Context, oid uint32) error {
	exists, err := m.stateExists(ctx)
	if err != nil || !exists {
		return err
	}
	if m.target.found, err = checkpoint.OpenRun(ctx, m.control, oid); err != nil || m.target.found != nil {
		if err == nil {
			m.report.RunID = m.target.found.ID
			err = m.endStale(ctx, m.target.found.ID)
		}
		return err
	}
	m.target.found, err = checkpoint.UntidyRun(ctx, m.control, oid, Ended.String())
	return err
}

// stateExists tells whether there are state tables, and refuses those of a role
// whose code must not run with this session's rights.
func (m *Migration) stateExists(ctx context.Context) (bool, error) {
	exists, err := checkpoint.Exists(ctx, m.control)
	var owner *checkpoint.OwnerError
	if errors.As(err, &owner) {
		return false, &shadow.Refusal{Check: "state tables", Reason: owner.Error(),
			Remedy: fmt.Sprintf("log in as %s, which has run pgshadow in this database before; or drop schema pgshadow, when none of its runs is open and no retired table is kept", owner.Owner)}
	}
	return exists, err
}

// endStale ends the sessions of a run that this process does not have. The server
// may not have noticed that their client is gone.
func (m *Migration) endStale(ctx context.Context, runID string) error {
	var unsure []int32 // not ended in time, or gone before they could be told to
	err := m.control.QueryRow(ctx, `SELECT coalesce(pg_catalog.array_agg(pid) FILTER (WHERE NOT pg_catalog.pg_terminate_backend(pid, 10000)), '{}')
		FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles me ON me.rolname = session_user
		WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(application_name, $1)
		  AND (usesysid = me.oid OR me.rolsuper)`,
		pg.ApplicationName(runID+" ")).Scan(&unsure)
	var left *string
	if err == nil && len(unsure) > 0 {
		err = m.control.QueryRow(ctx, `SELECT pg_catalog.string_agg(pg_catalog.format('pid %s (%s)', pid, application_name), ', ')
			FROM pg_catalog.pg_stat_activity WHERE pid = ANY ($1) AND pg_catalog.starts_with(application_name, $2)`,
			unsure, pg.ApplicationName(runID+" ")).Scan(&left)
	}
	if err != nil {
		return fmt.Errorf("ending what an earlier process has left of the sessions of run %s: %w", runID, err)
	}
	if left != nil {
		return fmt.Errorf("ending what an earlier process has left of the sessions of run %s: %s did not end within 10 s; try again when they have", runID, *left)
	}
	return nil
}

// refusePooler makes a refusal of the error that a connection pooler gives rise to.
// Advisory locks, the settings of sessions and replication all need sessions of the
// server itself.
func refusePooler(err error) error {
	var pooler *pg.PoolerError
	if !errors.As(err, &pooler) {
		return err
	}
	return &shadow.Refusal{Check: "pooler", Reason: pooler.Error(),
		Remedy: "give a connection string that leads to the server itself: its own host and port, not those of the pooler"}
}

// resolve finds the table as the login role's own search_path does, and keeps
// that path: expressions of the user's are read under it.
func (m *Migration) resolve(ctx context.Context) (oid uint32, err error) {
	conn, err := m.db.ConnectAsLogin(ctx, "resolve")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	var parts, path []string
	err = conn.QueryRow(ctx, "SELECT pg_catalog.parse_ident($1), pg_catalog.current_schemas(false)::pg_catalog.text[]", m.config.Table).Scan(&parts, &path)
	if err != nil && !pg.IsData(err) {
		return 0, fmt.Errorf("reading the name of the table: %w", err)
	}
	if err != nil || len(parts) > 2 {
		return 0, &shadow.Refusal{Check: "table", Reason: fmt.Sprintf("--table %s is not a table's name", m.config.Table),
			Remedy: `write [schema.]name, with double quotes around names that need them: 'public."Order Items"'`}
	}
	// The system's own names win, also where the path says otherwise: pgshadow's
	// statements would be made of whatever stands before them.
	path = slices.DeleteFunc(path, func(name string) bool { return name == "pg_catalog" })
	m.target.searchPath = searchPath(path)
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', $1, false)", m.target.searchPath); err != nil {
		return 0, fmt.Errorf("setting the search_path: %w", err)
	}
	schemaName := ""
	if len(parts) == 2 {
		schemaName = parts[0]
	}
	oid, err = schema.Resolve(ctx, conn, schemaName, parts[len(parts)-1])
	if errors.Is(err, schema.ErrNoTable) {
		return 0, &shadow.Refusal{Check: "table", Reason: fmt.Sprintf("there is no table %s in database %s", m.config.Table, m.db.Target()),
			Remedy: "check the database and the schema; the search_path of the role is " + strings.Join(path, ", ")}
	}
	return oid, err
}

func searchPath(schemas []string) string { return pg.Idents(schemas) }

func (m *Migration) refuseSecond(ctx context.Context, oid uint32, holder int32) error {
	if now, err := pg.LoadBackend(ctx, m.control, holder); err == nil && now == m.recovery.lost && now.Since != "" {
		// The server still has this process's own session, which was lost.
		if _, err := m.control.Exec(ctx, "SELECT pg_catalog.pg_terminate_backend($1, 5000)", holder); err != nil {
			return fmt.Errorf("ending the control session that was lost: %w", err)
		}
	}
	who := fmt.Sprintf("backend %d", holder)
	if exists, err := m.stateExists(ctx); err == nil && exists {
		if open, err := checkpoint.OpenRun(ctx, m.control, oid); err == nil && open != nil {
			who = fmt.Sprintf("run %s on host %s, process %d, since %s", open.ID, open.Owner.Host, open.Owner.PID, open.CreatedAt.Format("2006-01-02 15:04:05 MST"))
		}
	}
	return &shadow.Refusal{Check: "second run", Reason: fmt.Sprintf("another pgshadow works on this table: %s", who),
		Remedy: "wait for it, or stop it: pgshadow abort --table, or SIGTERM there, which leaves a run that resumes"}
}

// preflight refuses, by name and with a remedy, what cannot be carried through.
// It creates nothing.
func (m *Migration) preflight(ctx context.Context) error {
	var err error
	table := m.target.table
	if m.target.server, err = schema.LoadServer(ctx, m.control, table.OID); err != nil {
		return err
	}
	if err := m.countOwnSlot(ctx); err != nil {
		return err
	}
	if err := m.db.ProbePooler(ctx); err != nil {
		return refusePooler(err)
	}
	if m.target.change == nil { // else it was parsed before the connection was lost
		if m.target.change, err = m.config.Parse(ctx, table.Name, m.config.Alters, m.config.Set); err != nil {
			return err
		}
	}
	if err := m.makeThrottle(); err != nil {
		return err
	}
	if err := m.refuseOtherPlan(); err != nil {
		return err
	}
	if err := m.chooseMethod(ctx); err != nil {
		return err
	}
	if err := m.refuseUnexpected(); err != nil || m.target.recipe != nil {
		return err
	}
	return m.preflightShadow(ctx)
}

// countOwnSlot takes the slot of the table's open run for free: it is there for this one.
func (m *Migration) countOwnSlot(ctx context.Context) error {
	if m.target.found == nil {
		return nil
	}
	slot, err := replication.LoadSlot(ctx, m.control, shadow.Names{RunID: m.target.found.ID}.Slot())
	if err == nil && slot.Exists {
		m.target.server.FreeSlots++
	}
	return err
}

// preflightShadow is the part of preflight that is about a shadow.
func (m *Migration) preflightShadow(ctx context.Context) error {
	table := m.target.table
	measured := m.throttle.Probe(ctx)
	if err := m.refusals(ctx, measured); err != nil {
		return err
	}
	if refusal := m.target.change.NoShadow; refusal != nil {
		return refusal
	}
	if err := cmp.Or(m.note(ctx), m.refuseVolatile(ctx), m.refuseClosedSchemas(ctx)); err != nil {
		return err
	}
	size, err := schema.LoadSize(ctx, m.control, table.OID)
	if err != nil {
		return err
	}
	m.progress.estimate(size.EstimatedRows)
	return refuseThrottle(ctx, measured)
}

func (m *Migration) makeThrottle() (err error) {
	config := m.config.Throttle
	config.OnChange = func(reason string) { m.config.Observer.Observe(Throttled{Reason: reason}) }
	config.OnNote = func(note string) { m.config.Observer.Observe(Noted{Note: note}) }
	m.throttle, err = throttle.New(m.db, config)
	return err
}

// refuseThrottle makes a refusal of what measuring every source once came to: one
// that cannot be measured would hold the run back for ever.
func refuseThrottle(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || pg.IsConnection(err) {
		return err
	}
	if missing := refuseStats(err); missing != nil {
		return missing
	}
	return &shadow.Refusal{Check: "throttle", Reason: err.Error(), Remedy: "correct the throttle flags"}
}

// refusals gathers every reason to say no, so that a DBA meets them all at once.
// measured is what measuring the throttle's sources came to.
func (m *Migration) refusals(ctx context.Context, measured error) error {
	table := m.target.table
	all := append(kindRefusals(table), serverRefusals(m.target.server, table)...)
	m.rehearsal.remedies(all)
	if table.Storage.Kind == "r" {
		if _, err := shadow.ChooseKey(table); err != nil {
			var refusal *shadow.Refusal
			if !errors.As(err, &refusal) {
				return err
			}
			all = append(all, refusal)
		}
		all = append(all, identityRefusals(table)...)
		attached, err := schema.LoadObstacles(ctx, m.control, table.OID)
		if err != nil {
			return err
		}
		all = append(all, obstacleRefusals(m.inTheWay(attached))...)
		missing, err := m.attachedRefusals(ctx, table)
		if err != nil {
			return err
		}
		all = append(all, missing...)
		if missing, err = m.leafRefusals(ctx, table); err != nil {
			return err
		}
		all = append(all, missing...)
	}
	if missing := refuseStats(measured); missing != nil {
		all = append(all, missing)
	}
	return refuseAll(all)
}

func refuseAll(all []*shadow.Refusal) error {
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	default:
		return Refusals(all)
	}
}
