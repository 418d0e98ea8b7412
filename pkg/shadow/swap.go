package shadow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// swap lists what runs under the lock, in order: nothing of it reads or writes
// rows. What would go on acting on the retired table, or bind to it, is taken off
// it first. A sequence that a column owns must be in the schema of its table, so
// it is let go before the tables move and taken up after.
func (p *Plan) swap(in Inputs, m mapping, hasKey bool) []Statement {
	b := &builder{owner: p.Owner, table: in.Names.Shadow()}
	if !hasKey {
		b.add("the run's own key index", "DROP INDEX %s", pg.Ident(in.Names.ShadowSchema(), in.Names.KeyIndex()))
	}
	for _, column := range alwaysIdentities(m.shadow) {
		b.add("identity", "ALTER TABLE %s ALTER COLUMN %s SET GENERATED ALWAYS", b.table, pg.Ident(column))
	}
	for _, constraint := range notValid(m.shadow) {
		b.late(constraint)
	}
	p.detach(b)
	p.leave(b, in)
	identities, serials := p.sequences(b, m)
	p.move(b, in, m, identities)
	for _, sequence := range serials {
		b.add("the sequence belongs to the new table's column", "ALTER SEQUENCE %s OWNED BY %s", sequence.name, sequence.owner)
		b.takes("SHARE ROW EXCLUSIVE on %s", sequence.name)
	}
	p.join(b, in)
	p.attach(b, in.Attached)
	p.label(b, in)
	return b.statements
}

// serial is a sequence and the column of the new table that it is to belong to.
type serial struct{ name, owner string }

// sequences lets serial sequences go, and returns those, to be taken up again. It
// also returns the statements that carry identity values over, to be run when
// the original's sequences have moved, and so are locked.
func (p *Plan) sequences(b *builder, m mapping) (identities []Statement, serials []serial) {
	for _, sequence := range m.original.Sequences {
		partner, kept := m.partner[sequence.Attnum]
		if !kept {
			continue // its column is dropped: it retires with the original
		}
		name := pg.Ident(sequence.Schema, sequence.Name)
		if !sequence.Identity {
			b.add("the sequence stays where it is", "ALTER SEQUENCE %s OWNED BY NONE", name)
			b.takes("SHARE ROW EXCLUSIVE on %s", name)
			serials = append(serials, serial{name, pg.Ident(m.original.Schema, m.original.Name, partner.Name)})
			continue
		}
		for _, own := range m.shadow.Sequences {
			if own.Identity && own.Attnum == partner.Attnum {
				from, to := pg.Ident(p.Names.RetiredSchema(), sequence.Name), pg.Ident(own.Schema, own.Name)
				identities = append(identities, Statement{Role: b.owner, Why: "identity value", Lock: fmt.Sprintf("ACCESS SHARE on %s, ROW EXCLUSIVE on %s", from, to),
					SQL: fmt.Sprintf("SELECT pg_catalog.setval(%s::pg_catalog.regclass, s.last_value, s.is_called) FROM %s s", pg.Literal(to), from)})
			}
		}
	}
	return identities, serials
}

func (p *Plan) move(b *builder, in Inputs, m mapping, identities []Statement) {
	original, schemaName := pg.Ident(m.original.Schema, m.original.Name), pg.Ident(m.original.Schema)
	retired := pg.Ident(in.Names.RetiredSchema())
	as := func(role, why, sql string, args ...any) {
		b.add(why, sql, args...)
		b.statements[len(b.statements)-1].Role = role
	}
	for _, statistic := range m.original.Statistics {
		as(in.SwapRole, "extended statistics", "ALTER STATISTICS %s SET SCHEMA %s", pg.Ident(statistic.Schema, statistic.Name), retired)
		b.takes(noLock)
	}
	as(in.SwapRole, "the original retires", "ALTER TABLE %s SET SCHEMA %s", original, retired)
	b.takes("ACCESS EXCLUSIVE on %s and its sequences", original)
	b.statements = append(b.statements, identities...)
	as(in.SwapRole, "the shadow takes its place", "ALTER TABLE %s SET SCHEMA %s", in.Names.Shadow(), schemaName)
	for _, statistic := range m.shadow.Statistics {
		target := m.original.Schema
		for _, before := range m.original.Statistics {
			if before.Name == statistic.Name {
				target = before.Schema
			}
		}
		as(in.SwapRole, "extended statistics", "ALTER STATISTICS %s SET SCHEMA %s", pg.Ident(statistic.Schema, statistic.Name), pg.Ident(target))
		b.takes(noLock)
	}
}

// detach takes off what would bind to the retired table: policies and rules of other
// tables, views, foreign keys in both directions, and publications (hazard H50).
func (p *Plan) detach(b *builder) {
	a, table := p.Original.Attached, p.Original.Quoted()
	as := func(role, why, sql string, args ...any) {
		b.add(why, sql, args...)
		b.statements[len(b.statements)-1].Role = role
	}
	for _, other := range a.Others { // which may speak of the views
		b.statements = append(b.statements, dropOther(other)...)
	}
	for _, views := range byOwner(a.Views) {
		names := make([]string, len(views))
		for i, view := range views {
			names[i] = view.Quoted()
		}
		as(views[0].Owner, "views are made again on the new table", "DROP %s %s", views[0].Kind(), strings.Join(names, ", "))
		b.takes("ACCESS EXCLUSIVE on %s", strings.Join(names, ", "))
	}
	for _, key := range a.ReferencedBy {
		as(key.Table.Owner, "a foreign key to the original", "ALTER TABLE %s DROP CONSTRAINT %s", key.Table.Quoted(), pg.Ident(key.Name))
		b.takes("ACCESS EXCLUSIVE on %s and %s", key.Table.Quoted(), table)
	}
	for _, key := range a.References {
		as(p.Owner, "a foreign key of the original", "ALTER TABLE %s DROP CONSTRAINT %s", table, pg.Ident(key.Name))
		b.takes("ACCESS EXCLUSIVE on %s and %s", table, key.Table.Quoted())
	}
	for _, publication := range a.Publications {
		as(publication.Owner, "a publication of the original", "ALTER PUBLICATION %s DROP TABLE ONLY %s", pg.Ident(publication.Name), table)
		b.takes("SHARE UPDATE EXCLUSIVE on %s", table)
	}
}

// byOwner cuts the views, those first that depend on others, into runs of one
// owner and kind, each to be dropped in one statement.
func byOwner(views []schema.View) [][]schema.View {
	var runs [][]schema.View
	for _, view := range slices.Backward(views) {
		if last := len(runs) - 1; last >= 0 && runs[last][0].Owner == view.Owner && runs[last][0].Kind() == view.Kind() {
			runs[last] = append(runs[last], view)
		} else {
			runs = append(runs, []schema.View{view})
		}
	}
	return runs
}

// attach makes everything that is attached to the original anew on the table that
// has taken its place.
func (p *Plan) attach(b *builder, a schema.Attached) {
	table := p.Original.Quoted()
	for _, rider := range riders(table, p.Owner, a) {
		b.statements = append(b.statements, rider.Statements...)
	}
	for _, other := range a.Others {
		for _, rider := range otherRiders(other, other.Table) {
			b.statements = append(b.statements, rider.Statements...)
		}
	}
	if a.RowSecurity {
		b.add("row security", "ALTER TABLE %s ENABLE ROW LEVEL SECURITY", table)
		b.takes("ACCESS EXCLUSIVE on %s", table)
	}
	if a.Forced {
		b.add("row security", "ALTER TABLE %s FORCE ROW LEVEL SECURITY", table)
		b.takes("ACCESS EXCLUSIVE on %s", table)
	}
	for _, key := range a.References {
		c := &builder{owner: p.Owner, table: table}
		c.foreignKey(key, unread(key))
		b.statements = append(b.statements, c.statements...)
	}
	for _, key := range a.ReferencedBy {
		c := &builder{owner: key.Table.Owner, table: key.Table.Quoted()}
		c.foreignKey(key, unread(key))
		b.statements = append(b.statements, c.statements...)
	}
	for _, publication := range a.Publications {
		c := &builder{table: table} // the session's own role, where the two owners differ
		if publication.Owner == p.Owner {
			c.owner = p.Owner
		}
		c.add("publication", "ALTER PUBLICATION %s ADD TABLE ONLY %s%s", pg.Ident(publication.Name), table, publicationClauses(publication))
		c.takes("SHARE UPDATE EXCLUSIVE on %s", table)
		b.statements = append(b.statements, c.statements...)
	}
}

// unread is a foreign key's definition such that adding it reads no rows.
func unread(key schema.ForeignKey) string {
	if key.Valid && key.Enforced {
		return key.Definition + " NOT VALID"
	}
	return key.Definition
}

func publicationClauses(publication schema.Publication) string {
	clauses := ""
	if publication.Columns != nil {
		clauses += " (" + pg.Idents(publication.Columns) + ")"
	}
	if publication.Filter != nil {
		clauses += " WHERE (" + *publication.Filter + ")"
	}
	return clauses
}

// Completion is what the swap has left to do, since it reads rows. Done is a query
// that tells whether it is done already; it gives no row when the object is gone.
type Completion struct {
	What      string    `json:"what"` // as in: validating foreign key x on t
	Left      string    `json:"left"` // how things are until then
	Done      string    `json:"done"`
	Statement Statement `json:"statement"`
}

// asUsual is what an owner's own session would have: row_security off would be an
// error where row security is forced on the owner of a table that is read.
var asUsual = map[string]string{"row_security": "on"}

func (p *Plan) completions(a schema.Attached) []Completion {
	var all []Completion
	validate := func(key schema.ForeignKey, owner string, table schema.Relation) {
		if !key.Valid || !key.Enforced {
			return
		}
		all = append(all, Completion{What: fmt.Sprintf("validating foreign key %s on %s", pg.Readable(key.Name), table),
			Left: "it is enforced, and not validated for older rows",
			Done: fmt.Sprintf("SELECT convalidated FROM pg_catalog.pg_constraint WHERE conrelid = %s AND conname = %s AND contype = 'f'", oidOf(table), pg.Literal(key.Name)),
			Statement: Statement{Role: owner, Settings: asUsual, Why: "the swap has added it without reading rows", Lock: "SHARE UPDATE EXCLUSIVE on " + table.Quoted(),
				SQL: fmt.Sprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", table.Quoted(), pg.Ident(key.Name))}})
	}
	for _, view := range a.Views {
		if view.Stored == nil || !view.Stored.Populated {
			continue
		}
		all = append(all, Completion{What: "refreshing materialized view " + view.String(), Left: "it is empty, and PostgreSQL refuses to read it",
			Done: "SELECT relispopulated FROM pg_catalog.pg_class WHERE oid = " + oidOf(schema.Relation{Schema: view.Schema, Name: view.Name}),
			Statement: Statement{Role: view.Owner, Settings: asUsual, Why: "the swap has made it without its rows", Lock: "ACCESS EXCLUSIVE on " + view.Quoted(),
				SQL: "REFRESH MATERIALIZED VIEW " + view.Quoted()}})
	}
	for _, key := range a.References {
		validate(key, p.Owner, schema.Relation{Schema: p.Original.Schema, Name: p.Original.Name})
	}
	for _, key := range a.ReferencedBy {
		validate(key, key.Table.Owner, key.Table)
	}
	return all
}

// oidOf is a subquery for a relation's OID, for roles that may not look into its
// schema too.
func oidOf(table schema.Relation) string {
	return fmt.Sprintf("(SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s)",
		pg.Literal(table.Schema), pg.Literal(table.Name))
}

// Lock takes one relation exclusively, before the swap.
type Lock struct {
	OID       uint32    `json:"oid"` // 0: the shadow
	Kind      LockKind  `json:"kind"`
	Statement Statement `json:"statement"`
}

// LockKind says how a relation that the swap locks hangs on the original.
type LockKind string

// The kinds of locks.
const (
	LockView        LockKind = "view"        // a view of it
	LockReferencing LockKind = "referencing" // has a foreign key to it, or policies or rules that speak of it
	LockTree        LockKind = "tree"        // the partitioned tables it is in, and the default partition beside it
	LockItself      LockKind = "itself"      // it, and the shadow
	LockReferenced  LockKind = "referenced"  // it has a foreign key to that one
)

// locks lists what the swap locks, in the order in which statements of the
// application do: a view before what it is made of, a referencing table before the
// referenced one, a table before what its policies and rules speak of. LOCK TABLE on
// a view would lock all that it is made of; a change of its owner to its owner locks
// it alone.
func (p *Plan) locks(a schema.Attached) []Lock {
	var all []Lock
	add := func(kind LockKind, oid uint32, role, sql, name string) {
		all = append(all, Lock{OID: oid, Kind: kind, Statement: Statement{SQL: sql, Role: role, Lock: "ACCESS EXCLUSIVE on " + name, Why: "everything that the swap changes is locked up front"}})
	}
	view := func(kind LockKind, oid uint32, owner, command, name string) {
		add(kind, oid, owner, fmt.Sprintf("ALTER %s %s OWNER TO %s", command, name, pg.Ident(owner)), name)
	}
	referencing := append(slices.Clone(p.Original.Attached.ReferencedBy), a.ReferencedBy...)
	referenced := append(slices.Clone(p.Original.Attached.References), a.References...)
	keyed := ends(p.Original.OID, append(slices.Clone(referencing), referenced...))
	tables := func(kind LockKind, tables []schema.Relation) {
		for _, table := range tables {
			switch {
			case slices.ContainsFunc(all, func(l Lock) bool { return l.OID == table.OID }):
			case table.Kind == "v":
				view(kind, table.OID, table.Owner, "VIEW", table.Quoted())
			default:
				only := "ONLY "
				if table.Kind == "p" && slices.Contains(keyed, table) { // a foreign key is of its partitions too
					only = ""
				}
				add(kind, table.OID, table.Owner, fmt.Sprintf("LOCK TABLE %s%s IN ACCESS EXCLUSIVE MODE", only, table.Quoted()), table.Quoted())
			}
		}
	}
	ofViews, others := speakingOfViews(p.Original.Attached)
	tables(LockReferencing, ofViews)
	for _, v := range slices.Backward(p.Original.Attached.Views) {
		view(LockView, v.OID, v.Owner, v.Kind(), v.Quoted())
	}
	tables(LockReferencing, inLockOrder(append(others, ends(p.Original.OID, referencing)...)))
	below := p.lockTree(func(kind LockKind, table schema.Relation, mode string) {
		add(kind, table.OID, table.Owner, fmt.Sprintf("LOCK TABLE ONLY %s IN %s MODE", table.Quoted(), mode), table.Quoted())
		all[len(all)-1].Statement.Lock = mode + " on " + table.Quoted()
	})
	itself := fmt.Sprintf("LOCK TABLE ONLY %s, ONLY %s IN ACCESS EXCLUSIVE MODE", p.Original.Quoted(), p.Names.Shadow())
	add(LockItself, p.Original.OID, p.Owner, itself, p.Original.Quoted())
	below()
	tables(LockReferenced, ends(p.Original.OID, referenced))
	return all
}

// ends are the tables at the other ends of foreign keys, by OID, without repeats.
func ends(oid uint32, keys []schema.ForeignKey) []schema.Relation {
	var all []schema.Relation
	for _, key := range keys {
		if key.Table.OID != oid && !slices.Contains(all, key.Table) {
			all = append(all, key.Table)
		}
	}
	slices.SortFunc(all, func(a, b schema.Relation) int { return cmp.Compare(a.OID, b.OID) })
	return all
}
