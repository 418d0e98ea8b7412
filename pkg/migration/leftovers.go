package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// Leftover is what one run has left in the database.
type Leftover struct {
	RunID     string   `json:"run_id"`
	Table     string   `json:"table,omitempty"` // unknown when the state row is gone
	Artifacts []string `json:"artifacts"`       // as DROP would name them
	State     string   `json:"state"`           // live, unfinished, retired or orphaned
	Removed   bool     `json:"removed"`
	Kept      []string `json:"kept,omitempty"` // of what was removed: what others use now

	oid uint32
}

// The states of a leftover. Cleanup removes unfinished and orphaned ones.
const (
	working    = "live"       // a process works on it
	unfinished = "unfinished" // stopped; the same alter would resume it
	retired    = "retired"    // done; the retired table is kept until pgshadow finish
	orphaned   = "orphaned"   // of a run that has ended or left no record
)

// artifactsSQL lists artifacts by the name that every one of them has.
const artifactsSQL = `SELECT pg_catalog.substring(name, '^pgshadow_([a-z0-9]{10})'), kind || ' ' || pg_catalog.quote_ident(name) FROM (
	SELECT 'schema' AS kind, nspname::text AS name FROM pg_catalog.pg_namespace
	UNION ALL SELECT 'publication', pubname::text FROM pg_catalog.pg_publication
	UNION ALL SELECT 'replication slot', slot_name::text FROM pg_catalog.pg_replication_slots WHERE database = pg_catalog.current_database()
	UNION ALL SELECT 'index', relname::text FROM pg_catalog.pg_class WHERE relkind = 'i' AND relname ~ '^pgshadow_[a-z0-9]{10}_(key|written)[0-9]+$') AS all_names
	WHERE name ~ '^pgshadow_[a-z0-9]{10}(_retired|_code|_source|_key[0-9]+|_written[0-9]+)?$' ORDER BY 1, 2`

// Cleanup lists what runs have left in the database, and removes what belongs
// to no live run and is no retired table of a change that is done. With dryRun
// it only lists.
func Cleanup(ctx context.Context, dsn string, dryRun bool) (leftovers []Leftover, err error) {
	m, err := connectControl(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, m.control)) }()
	if leftovers, err = m.leftovers(ctx); err != nil {
		return nil, err
	}
	for i := range leftovers {
		removable := leftovers[i].State == unfinished || leftovers[i].State == orphaned
		if dryRun || !removable {
			continue
		}
		m.kept = nil
		if failed := m.removeLeftover(ctx, leftovers[i], "cleaned up by the operator"); failed != nil {
			err = errors.Join(err, failed) // and the others are removed all the same
			continue
		}
		leftovers[i].Removed, leftovers[i].Kept = len(m.kept) == 0 || len(m.kept) < len(leftovers[i].Artifacts), m.kept
	}
	return leftovers, err
}

// Finish drops the retired table of the change that was made to a table.
func Finish(ctx context.Context, dsn, table string) (removed []Leftover, err error) {
	m, err := connectControl(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, m.control)) }()
	m.config.Table = table
	oid, err := m.resolve(ctx)
	if err != nil {
		return nil, err
	}
	facts, err := schema.Load(ctx, m.control, oid)
	if err != nil {
		return nil, err
	}
	leftovers, err := m.leftovers(ctx)
	if err != nil {
		return nil, err
	}
	name := facts.String()
	for _, leftover := range leftovers {
		if leftover.State != retired || leftover.Table != name {
			continue
		}
		if err := m.removeLeftover(ctx, leftover, ""); err != nil {
			return removed, err
		}
		leftover.Removed = true
		removed = append(removed, leftover)
	}
	if removed == nil {
		return nil, &shadow.Refusal{Check: "retired table", Reason: fmt.Sprintf("no retired table of %s is kept", name), Remedy: "see pgshadow cleanup --dry-run for what there is"}
	}
	return removed, nil
}

func connectControl(ctx context.Context, dsn string) (*Migration, error) {
	m := &Migration{config: Config{DSN: dsn}.withDefaults(), steering: newSteering()}
	var err error
	if m.db, err = pg.Open(dsn); err != nil {
		return nil, err
	}
	m.control, err = m.db.Connect(ctx, "control")
	return m, refusePooler(err)
}

func (m *Migration) leftovers(ctx context.Context) ([]Leftover, error) {
	rows, err := m.control.Query(ctx, artifactsSQL)
	if err != nil {
		return nil, fmt.Errorf("listing artifacts: %w", err)
	}
	artifacts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ RunID, Name string }])
	if err != nil {
		return nil, fmt.Errorf("listing artifacts: %w", err)
	}
	var found []Leftover
	for _, artifact := range artifacts {
		if len(found) == 0 || found[len(found)-1].RunID != artifact.RunID {
			found = append(found, Leftover{RunID: artifact.RunID, State: orphaned})
		}
		last := &found[len(found)-1]
		last.Artifacts = append(last.Artifacts, artifact.Name)
	}
	return m.classify(ctx, found)
}

// leftOf tells whether any artifact of a run is there.
func (m *Migration) leftOf(ctx context.Context, runID string) (bool, error) {
	all, err := m.leftovers(ctx)
	return slices.ContainsFunc(all, func(l Leftover) bool { return l.RunID == runID }), err
}

// classify says of each leftover whose it is.
func (m *Migration) classify(ctx context.Context, found []Leftover) ([]Leftover, error) {
	exists, err := m.stateExists(ctx)
	if err != nil || !exists {
		return found, err
	}
	runs, err := checkpoint.Runs(ctx, m.control, false)
	if err != nil {
		return found, err
	}
	for _, run := range runs { // one that is open may have nothing that its name shows
		if run.EndedAt == nil && !slices.ContainsFunc(found, func(l Leftover) bool { return l.RunID == run.ID }) {
			found = append(found, Leftover{RunID: run.ID, Artifacts: []string{}})
		}
	}
	for i := range found {
		for _, run := range runs {
			if run.ID != found[i].RunID {
				continue
			}
			found[i].Table, found[i].oid = run.Table, run.TableOID
			if found[i].State, err = m.stateOf(ctx, run, found[i]); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

func (m *Migration) stateOf(ctx context.Context, run checkpoint.Run, leftover Leftover) (string, error) {
	held, err := pg.Locked(ctx, m.control, run.TableOID)
	switch {
	case err != nil:
		return "", err
	case held:
		return working, nil
	case run.EndedAt == nil:
		return unfinished, nil
	case run.Outcome == string(Done) && onlyRetired(leftover):
		return retired, nil
	default:
		return orphaned, nil
	}
}

func onlyRetired(leftover Leftover) bool {
	return len(leftover.Artifacts) == 1 && strings.HasSuffix(leftover.Artifacts[0], "_retired")
}

// removeLeftover takes the table's lock first, so that no run begins meanwhile.
// After a change that is done, the retired table stays: only what else is left goes.
func (m *Migration) removeLeftover(ctx context.Context, leftover Leftover, detail string) error {
	if leftover.oid != 0 {
		taken, holder, err := pg.TryLock(ctx, m.control, leftover.oid)
		if err != nil {
			return err
		}
		if !taken {
			return fmt.Errorf("removing run %s: backend %d has taken it up meanwhile", leftover.RunID, holder)
		}
	}
	names := shadow.Names{RunID: leftover.RunID}
	done, err := m.isDone(ctx, leftover.RunID)
	if err != nil {
		return err
	}
	tidied := func(err error) error {
		if err != nil {
			return err
		}
		return checkpoint.NewStore(leftover.RunID).SetPhase(ctx, m.control, Ended.String(), m.owner())
	}
	switch {
	case leftover.State == unfinished:
		return m.remove(ctx, names, string(Aborted), detail)
	case leftover.State == retired:
		return tidied(errors.Join(m.dropRetired(ctx, names), m.dropCode(ctx, names)))
	case done:
		return tidied(errors.Join(m.dropReplication(ctx, names), m.dropSource(ctx, names), m.dropCode(ctx, names), m.dropSchema(ctx, names.ShadowSchema(), "RESTRICT")))
	default:
		// No record says what this is: a schema that holds a table may hold the
		// only copy of what was the original, and stays.
		kept := m.keepUsed(m.dropSchema(ctx, names.RetiredSchema(), "RESTRICT"), "schema "+names.RetiredSchema())
		if err := errors.Join(m.dropReplication(ctx, names), m.dropSource(ctx, names), m.dropCode(ctx, names), m.dropIndexes(ctx, names), kept); err != nil {
			return err
		}
		return m.dropSchema(ctx, names.ShadowSchema(), "CASCADE")
	}
}

// keepUsed takes it for an answer that something else depends on what was to be dropped.
func (m *Migration) keepUsed(err error, what string) error {
	if !pg.Is(err, pg.DependentObjects) {
		return err
	}
	m.kept = append(m.kept, fmt.Sprintf("%s is kept: %s", what, oneLine(pg.Server(err).Detail)))
	return nil
}

// dropIndexes drops indexes that a native run of which there is no record has left.
func (m *Migration) dropIndexes(ctx context.Context, names shadow.Names) error {
	rows, err := m.control.Query(ctx, `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'i' AND c.relname ~ ('^pgshadow_' || $1::pg_catalog.text || '_(key|written)[0-9]+$')`, names.RunID)
	if err != nil {
		return fmt.Errorf("looking for indexes of run %s: %w", names.RunID, err)
	}
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Owner string }])
	if err != nil {
		return fmt.Errorf("looking for indexes of run %s: %w", names.RunID, err)
	}
	for _, index := range indexes {
		err := pg.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error { return pg.ExecAs(ctx, tx, index.Owner, nil, "DROP INDEX "+index.Name) })
		if err := m.keepUsed(err, "index "+index.Name); err != nil {
			return fmt.Errorf("dropping index %s: %w", index.Name, err)
		}
	}
	return nil
}

// dropRetired drops the retired table, unless something outside its schema
// depends on it.
func (m *Migration) dropRetired(ctx context.Context, names shadow.Names) error {
	var dependent *string
	err := m.control.QueryRow(ctx, `SELECT pg_catalog.min(pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid))
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.deptype = 'n'
		WHERE n.nspname = $1 AND d.classid <> 'pg_catalog.pg_publication_rel'::regclass
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class t WHERE t.relnamespace = n.oid AND t.oid IN ( -- its own, which go with it
		                  SELECT adrelid FROM pg_catalog.pg_attrdef WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND oid = d.objid
		                  UNION ALL SELECT tgrelid FROM pg_catalog.pg_trigger WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND oid = d.objid
		                  UNION ALL SELECT ev_class FROM pg_catalog.pg_rewrite WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND oid = d.objid
		                  UNION ALL SELECT polrelid FROM pg_catalog.pg_policy WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND oid = d.objid))
		  -- Policies and rules of another retired table speak of the tables that were there with it.
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace o ON o.oid = t.relnamespace AND o.nspname ~ '^pgshadow_[a-z0-9]{10}_retired$' WHERE t.oid IN (
		                  SELECT ev_class FROM pg_catalog.pg_rewrite WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND oid = d.objid AND rulename <> '_RETURN'
		                  UNION ALL SELECT polrelid FROM pg_catalog.pg_policy WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND oid = d.objid))
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
		                  WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid AND k.connamespace = n.oid)`,
		names.RetiredSchema()).Scan(&dependent)
	if err != nil {
		return fmt.Errorf("looking for what depends on the retired table: %w", err)
	}
	if dependent != nil {
		return &shadow.Refusal{Check: "retired table", Reason: fmt.Sprintf("%s depends on the retired table in schema %s", *dependent, names.RetiredSchema()),
			Remedy: "drop it, or point it at the new table, and finish again"}
	}
	return m.dropSchema(ctx, names.RetiredSchema(), "CASCADE")
}

// isDone tells whether the run's swap is committed: then the retired schema holds
// what was the original.
func (m *Migration) isDone(ctx context.Context, runID string) (bool, error) {
	exists, err := m.stateExists(ctx)
	if err != nil || !exists {
		return false, err
	}
	var done bool
	err = m.control.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pgshadow.run WHERE run_id = $1 AND outcome = $2)", runID, string(Done)).Scan(&done)
	if err != nil {
		return false, fmt.Errorf("reading the outcome of run %s: %w", runID, err)
	}
	return done, nil
}
