package migration

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/replication"
)

// blockerPoll is how often a long wait says who holds it up.
const blockerPoll = 5 * time.Second

// prepare builds the shadow and the publication, with their record, in one
// transaction: either all of it is there and recorded, or nothing is. Then it
// creates the slot, whose name follows from the record.
func (m *Migration) prepare(ctx context.Context) error {
	names := shadow.Names{RunID: newRunID(), Table: m.target.table.Name}
	store := checkpoint.NewStore(names.RunID)
	var plan *shadow.Plan
	confined := names.Confined(m.target.table.Owner, m.sessionPath())
	err := confined.InTx(ctx, m.control, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := m.record(ctx, tx, names); err != nil {
			return err
		}
		var err error
		if plan, err = m.build(ctx, tx, names); err != nil {
			return m.refuseRights(err)
		}
		if err := m.refuseLosses(plan.Losses); err != nil {
			return err
		}
		if err := replication.CreatePublication(ctx, tx, m.publisher(), names.Publication(), plan.Original.Quoted(), m.publishesGenerated()); err != nil {
			return err
		}
		return store.SetPlan(ctx, tx, plan)
	})
	if err != nil {
		return err
	}
	m.run = run{store: store, names: names, plan: plan}
	m.report.RunID = names.RunID
	m.config.Observer.Observe(RunStarted{RunID: names.RunID, Table: m.report.Table, Rehearsal: m.rehearsal != nil})
	return m.createSlot(ctx)
}

// publisher creates the publication: the login role, which may create in the
// database, or the owner where the login role does not inherit the ownership.
func (m *Migration) publisher() string {
	if m.target.server.Rights.InheritsOwner {
		return ""
	}
	return m.target.table.Owner
}

func newRunID() string { return strings.ToLower(rand.Text()[:10]) }

func (m *Migration) record(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	if err := checkpoint.Init(ctx, tx); err != nil {
		return err
	}
	change, err := json.Marshal(recordedChange{Change: *m.target.change, Given: m.config.Set, Rehearsal: m.rehearsal != nil})
	if err != nil {
		return fmt.Errorf("encoding the change: %w", err)
	}
	return checkpoint.Create(ctx, tx, checkpoint.Run{ID: names.RunID, TableOID: m.target.table.OID, Table: m.report.Table,
		TableName: names.Table, Change: change, Phase: Prepare.String(), Owner: m.owner(),
		History: checkpoint.History{Method: m.report.Method, Fingerprint: m.target.table.Fingerprint()}})
}

// build creates the shadow complete, runs the user's ALTERs on it, and takes off
// again what is to be built after the copy.
func (m *Migration) build(ctx context.Context, tx pgx.Tx, names shadow.Names) (*shadow.Plan, error) {
	confined := m.confined(names)
	if _, err := m.create(ctx, tx, names, confined); err != nil {
		return nil, err
	}
	if err := m.tryAlters(ctx, tx, names, m.target.change.Alters); err != nil {
		return nil, err
	}
	attached, err := m.alterAll(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	changed, err := m.loadShadow(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	if err := m.refuseVolatileCasts(ctx, tx, changed); err != nil {
		return nil, err
	}
	plan, err := m.newPlan(ctx, tx, names, changed, attached)
	if err != nil {
		return nil, err
	}
	if err := m.refuseTakenNames(ctx, tx, names); err != nil {
		return nil, err
	}
	if err := m.refuseUnchecked(ctx, tx, changed); err != nil {
		return nil, err
	}
	if err := execAll(ctx, tx, confined, slices.Concat(plan.Strip, shadow.Seal(m.target.table, names))); err != nil {
		return nil, err
	}
	if err := confined.Leave(ctx, tx); err != nil {
		return nil, err
	}
	return plan, m.refuseUnidentified(ctx, tx, names)
}

// newPlan makes the plan of the shadow as the user's ALTERs left it.
func (m *Migration) newPlan(ctx context.Context, tx pgx.Tx, names shadow.Names, changed *schema.Table, attached schema.Attached) (*shadow.Plan, error) {
	var err error
	inputs := shadow.Inputs{Names: names, Change: m.target.change, Original: m.target.table, Shadow: changed, SearchPath: m.sessionPath(), Attached: attached,
		Others: m.otherOwners(), Forced: m.forced(), Superuser: m.target.server.Superuser}
	if inputs.Membership, err = m.membership(ctx, tx, names); err != nil {
		return nil, err
	}
	if inputs.Conversions, err = conversions(ctx, tx, slices.Concat(m.target.table.Columns, changed.Columns)); err != nil {
		return nil, err
	}
	if m.target.server.Rights.OwnerCreateOnSchema {
		inputs.SwapRole = m.target.table.Owner
	}
	return shadow.NewPlan(inputs)
}

// create makes the shadow as the original is, and first what confines the code
// that this could run already. It returns the statements of the former.
func (m *Migration) create(ctx context.Context, tx pgx.Tx, names shadow.Names, confined pg.Confined) ([]shadow.Statement, error) {
	if err := m.confine(ctx, tx, names); err != nil {
		return nil, err
	}
	all := shadow.Create(m.target.table, names)
	if err := execAll(ctx, tx, confined, all); err != nil {
		return nil, refuseUncopied(m.target.table, err)
	}
	created, err := m.loadShadow(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	grants := shadow.Grants(m.target.table, created, names)
	if err := execAll(ctx, tx, confined, grants); err != nil {
		return nil, err
	}
	all = append(all, grants...)
	labels := shadow.Labels(m.target.table, names, m.target.server.Superuser)
	for _, label := range labels {
		all = append(all, label.Statements...)
	}
	return all, m.label(ctx, tx, confined, labels)
}

// refuseUncopied makes a refusal of what PostgreSQL has no copy of: a CHECK or a generated
// column that speaks of the whole row.
func refuseUncopied(table *schema.Table, err error) error {
	said := pg.Judged(err)
	if said == nil || said.Code != pg.NotSupported {
		return err
	}
	return &shadow.Refusal{Check: "table", Reason: fmt.Sprintf("no copy of %s can be made: %s", table, strings.TrimSpace(said.Message+" "+said.Detail)),
		Remedy: "drop what the message names before the change, and add it again after"}
}

// sessionPath is the search_path of every session that evaluates the user's
// expressions and the owner's code: the login role's, then the schemas that the
// operators of the table's types may live in; temporary objects come last.
func (m *Migration) sessionPath() string {
	path := m.target.searchPath
	for _, name := range m.target.server.TypeSchemas {
		if path != "" {
			path += ", "
		}
		path += pg.Ident(name)
	}
	if path != "" {
		path += ", "
	}
	return path + "pg_temp"
}

// loadShadow reads the facts of the shadow as the owner's statements have left it.
func (m *Migration) loadShadow(ctx context.Context, tx pgx.Tx, names shadow.Names) (*schema.Table, error) {
	if err := names.Confined(m.target.table.Owner, m.sessionPath()).Leave(ctx, tx); err != nil {
		return nil, err
	}
	oid, err := schema.Resolve(ctx, tx, names.ShadowSchema(), names.Table)
	if err != nil {
		return nil, fmt.Errorf("finding the shadow table: %w", err)
	}
	return schema.Load(ctx, tx, oid)
}

func execAll(ctx context.Context, tx pgx.Tx, confined pg.Confined, statements []shadow.Statement) error {
	for _, statement := range statements {
		if err := confined.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
			return fmt.Errorf("building the shadow, %s (%s): %w", statement.Why, statement.SQL, err)
		}
	}
	return nil
}

// alter runs one of the user's ALTERs on the shadow, as the owner, under the
// login role's search_path.
func (m *Migration) alter(ctx context.Context, tx pgx.Tx, names shadow.Names, text string) error {
	head := "ALTER TABLE " + names.Shadow() + " "
	err := pg.ParseOne(ctx, tx.Conn(), head+text)
	if err == nil {
		_, err = names.Confined(m.target.table.Owner, m.sessionPath()).Exec(ctx, tx, head+text)
	}
	switch {
	case err == nil:
		return nil
	case pg.Is(err, pg.InsufficientRights):
		return fmt.Errorf("PostgreSQL refuses %q: %w", text, err)
	default:
		return refuseAlter(err, text, head)
	}
}

// refuseAlter turns the server's refusal of an ALTER on the empty shadow into
// one with the position in the user's own text.
func refuseAlter(err error, text, head string) error {
	pgErr := pg.Server(err)
	if pgErr == nil {
		return fmt.Errorf("altering the shadow: %w", err)
	}
	position := pgErr.Position
	if pgErr.InternalQuery == head+text { // it ran within a function
		position = pgErr.InternalPosition
	}
	if position := int(position) - len([]rune(head)); position > 0 {
		return &shadow.SyntaxError{Message: pgErr.Message, Text: text, Position: position}
	}
	remedy := pgErr.Hint
	if remedy == "" {
		remedy = "correct the text of --alter"
	}
	return &shadow.Refusal{Check: "alter", Reason: strings.TrimSpace(fmt.Sprintf("PostgreSQL refuses %q: %s %s", text, pgErr.Message, pgErr.Detail)), Remedy: remedy}
}

// refuseTakenNames finds objects of the shadow whose names are taken, in the
// original's schema, by something that does not move out of the way.
func (m *Migration) refuseTakenNames(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	var taken *string
	err := tx.QueryRow(ctx, `SELECT pg_catalog.min(s.relname)
		FROM pg_catalog.pg_class s
		JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace AND sn.nspname = $1
		JOIN pg_catalog.pg_class t ON t.relname = s.relname
		JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace AND tn.nspname = $2
		WHERE t.oid <> $3
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = t.oid AND i.indrelid = $3)
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = t.oid
		                  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $3 AND d.deptype = 'i')`,
		names.ShadowSchema(), m.target.table.Schema, m.target.table.OID).Scan(&taken)
	if err != nil {
		return fmt.Errorf("looking for names that are taken: %w", err)
	}
	if taken != nil {
		return &shadow.Refusal{Check: "name", Reason: fmt.Sprintf("the changed table has an object named %q, a name that another object of schema %s has", *taken, m.target.table.Schema),
			Remedy: "give the new constraint, index or sequence another name"}
	}
	return nil
}

// createSlot creates the slot on a session that has written nothing. The server
// waits for every transaction that is running; the observer hears for which.
func (m *Migration) createSlot(ctx context.Context) (err error) {
	// The server waits for transactions here, not for a lock that others queue
	// behind: the wait is bounded by the operator, who is told for whom it is.
	conn, err := m.db.With(map[string]string{"lock_timeout": "0"}).Connect(ctx, m.run.names.RunID+" slot")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	return m.whileSteered(ctx, func(ctx context.Context) error {
		err := m.whileNamed(ctx, m.nameBlockers, func() error {
			_, err := replication.CreateSlot(ctx, conn, m.run.names.Slot())
			return err
		})
		if err != nil {
			return err
		}
		server, err := replication.Identify(ctx, m.db)
		if err != nil {
			return err
		}
		return m.run.store.SetServer(ctx, m.control, server)
	})
}

// nameBlockers tells, while the slot is being created, which transactions the server
// waits for.
func (m *Migration) nameBlockers(ctx context.Context) error {
	blockers, err := replication.SlotBlockers(ctx, m.control)
	for _, blocker := range blockers {
		m.waits("transactions to end before the slot can start", fmt.Sprintf("%s in database %s, open for %s", blocker.What, blocker.Database, blocker.Age))
	}
	return err
}
