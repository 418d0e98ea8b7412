package shadow

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Recipe leads PostgreSQL itself through a change, step by step, such that none reads
// rows under a lock that keeps writers out. What is done of it is part of it, and is
// recorded with the commit of each step.
type Recipe struct {
	Names   Names   `json:"-"`       // of the run that it is for
	Verdict Verdict `json:"verdict"` // of the change as it is written
	Steps   []Step  `json:"steps"`
	// Done is how many steps are committed.
	Done int `json:"done,omitempty"`
	// Made is what they have made and what would have to be taken back, by what nobody
	// else's object can be taken for.
	Made []Made `json:"made,omitempty"`
	// Undoing tells that the recipe is being taken back: it is not gone on with.
	Undoing bool `json:"undoing,omitempty"`
	// Others are tables that the steps lock, or may lock, besides.
	Others []Locked `json:"others,omitempty"`
}

// Locked is a table by its OID, and its quoted name.
type Locked struct {
	OID  uint32 `json:"oid"`
	Name string `json:"name"`
}

// Step is committed before the next one begins.
type Step struct {
	// Lock is the strongest that it takes on the table.
	Lock string `json:"lock"`
	// Statements run in one transaction, but for those of an Alone step.
	Statements []Statement `json:"statements"`
	// Reads tells that it reads the table, under a lock that lets others write.
	Reads bool `json:"reads,omitempty"`
	// Makes is what the recipe has no more use for when a later step fails.
	Makes []Object `json:"makes,omitempty"`
	// Index is for a step that builds one, which no transaction can hold: its name, which
	// has the run's id in it.
	Index string `json:"index,omitempty"`
}

// ObjectKind says what an Object is.
type ObjectKind string

// The kinds.
const (
	MadeColumn     ObjectKind = "column"
	MadeConstraint ObjectKind = "constraint"
)

// Object is a part of the table.
type Object struct {
	Kind ObjectKind `json:"kind"`
	Name string     `json:"name"`
}

// Made is an object that a step has made.
type Made struct {
	Object
	ID uint32 `json:"id"` // the column's attnum, or the constraint's OID
}

// After is the recipe when one more step is committed, which has made some objects.
func (r Recipe) After(made []Made) *Recipe {
	r.Done++
	r.Made = append(slices.Clone(r.Made), made...)
	return &r
}

// Without is the recipe when an object is taken back.
func (r Recipe) Without(gone Made) *Recipe {
	r.Made = slices.DeleteFunc(slices.Clone(r.Made), func(m Made) bool { return m == gone })
	return &r
}

// Back is the recipe when it is being taken back.
func (r Recipe) Back() *Recipe {
	r.Undoing = true
	return &r
}

// Indexes are those that the steps may have left.
func (r *Recipe) Indexes() []string {
	var names []string
	for _, step := range r.Steps {
		if step.Index != "" {
			names = append(names, step.Index)
		}
	}
	return names
}

// Undo lists what takes the whole recipe back by hand, each by itself: what holds
// writers up comes first.
func (r *Recipe) Undo(table *schema.Table) []Statement {
	var constraints, indexes, columns []Statement
	drop := func(lock, sql string, args ...any) Statement {
		return Statement{Role: table.Owner, Lock: lockOn(lock, table.Quoted()), Why: "as before", SQL: fmt.Sprintf(sql, args...)}
	}
	for _, object := range r.Steps[0].Makes {
		if object.Kind == MadeConstraint {
			constraints = append(constraints, drop(AccessExclusive, "ALTER TABLE %s DROP CONSTRAINT IF EXISTS %s", table.Quoted(), pg.Ident(object.Name)))
		} else {
			columns = append(columns, drop(AccessExclusive, "ALTER TABLE %s DROP COLUMN IF EXISTS %s", table.Quoted(), pg.Ident(object.Name)))
		}
	}
	for _, name := range r.Indexes() {
		indexes = append(indexes, drop(ShareUpdateExclusive, "DROP INDEX CONCURRENTLY IF EXISTS %s", pg.Ident(table.Schema, name)))
	}
	return slices.Concat(constraints, indexes, columns)
}

// AtOnce is the recipe of a change that is made as it is written, in one transaction.
func AtOnce(names Names, table *schema.Table, change *Change) *Recipe {
	var step Step
	for i, text := range change.Alters {
		step.Lock = Stronger(step.Lock, change.InPlace[i].Lock)
		step.Statements = append(step.Statements, Statement{Role: table.Owner, SQL: fmt.Sprintf("ALTER TABLE %s %s", table.Quoted(), text),
			Lock: lockOn(change.InPlace[i].Lock, table.Quoted()), Why: "it changes the catalog, and no rows"})
	}
	return &Recipe{Names: names, Steps: []Step{step}}
}

func lockOn(mode, name string) string { return mode + " on " + name }

// Taken are names in the table's schema.
type Taken struct {
	Relations, Constraints []string
}

// NewRecipe finds the recipe of a change that reads rows or builds indexes; nil when
// it has none.
func NewRecipe(names Names, table *schema.Table, change *Change, taken Taken) (*Recipe, error) {
	w := &recipeWriter{names: names, table: table, name: table.Quoted(), taken: taken, first: Step{Lock: ShareRowExclusive}, last: Step{Lock: AccessExclusive}}
	var all []Piece
	for _, alter := range change.InPlace {
		if alter.Pieces == nil {
			return nil, nil //nolint:nilnil // no recipe is an answer
		}
		all = append(all, alter.Pieces...)
	}
	w.columnsFirst = needColumns(all)
	for _, column := range table.Columns {
		w.columns = append(w.columns, column.Name)
	}
	for _, piece := range all {
		if piece.Kind == AddsColumn {
			w.columns = append(w.columns, piece.Columns...)
		}
	}
	for _, piece := range all {
		if err := w.add(piece); err != nil {
			return nil, err
		}
	}
	recipe := &Recipe{Names: names}
	if len(w.first.Statements) > 0 {
		recipe.Steps = append(recipe.Steps, w.first)
	}
	recipe.Steps = append(recipe.Steps, w.reading...)
	if len(w.last.Statements) > 0 {
		recipe.Steps = append(recipe.Steps, w.last)
	}
	return recipe, nil
}

// needColumns tells whether a constraint speaks of a new column.
func needColumns(pieces []Piece) bool {
	var added []string
	for _, piece := range pieces {
		if piece.Kind == AddsColumn {
			added = append(added, piece.Columns...)
		} else if slices.ContainsFunc(piece.Uses, func(name string) bool { return slices.Contains(added, name) }) {
			return true
		}
	}
	return false
}

// recipeWriter gathers the steps: first, under a short lock, what reads no rows; then
// what reads them and lets others write; and last what then needs to read no more.
type recipeWriter struct {
	names       Names
	table       *schema.Table
	name        string // quoted
	taken       Taken
	first, last Step
	reading     []Step
	keys        int      // so far
	columns     []string // of the changed table
	proven      []string // those that are shown to hold no null
	// columnsFirst tells that columns cannot be added last, which would be better: what
	// is made last is never taken back, and others may write to a column.
	columnsFirst bool
}

func (w *recipeWriter) statement(lock, why, sql string, args ...any) Statement {
	return Statement{Role: w.table.Owner, Lock: lockOn(lock, w.name), Why: why, SQL: fmt.Sprintf(sql, args...)}
}

func (w *recipeWriter) add(piece Piece) error {
	name, err := w.nameOf(piece)
	if err != nil {
		return err
	}
	switch piece.Kind {
	case AddsColumn:
		w.column(piece)
	case AddsConstraint:
		sql := piece.SQL
		if piece.Name == "" {
			sql = "ADD CONSTRAINT " + pg.Ident(name) + sql[len("ADD"):]
		}
		w.late(name, piece, sql)
		if !piece.Late {
			w.validate(name)
		}
	case Validates:
		w.validate(name)
	case AddsNotNull:
		w.notNull(piece.Columns)
	case AddsKey:
		w.notNull(piece.Columns)
		w.key(name, piece)
	}
	return nil
}

// nameOf is the name of a piece's constraint, which PostgreSQL would choose where none is given.
func (w *recipeWriter) nameOf(piece Piece) (string, error) {
	switch {
	case piece.Label == "":
		return piece.Name, nil
	case piece.Name != "":
		return piece.Name, w.take(piece.Name, piece.Kind == AddsKey)
	}
	after := piece.NamedAfter
	if piece.Kind == AddsConstraint { // a check may speak of the whole row, by the table's name
		after = slices.DeleteFunc(slices.Clone(after), func(name string) bool { return !slices.Contains(w.columns, name) })
	}
	return w.choose(strings.Join(after, "_"), piece.Label, piece.Kind == AddsKey), nil
}

// take keeps a name that the user gave, which must be free before anything is made.
func (w *recipeWriter) take(name string, isKey bool) error {
	if slices.Contains(w.taken.Constraints, name) && slices.ContainsFunc(w.table.Constraints, func(c schema.Constraint) bool { return c.Name == name }) {
		return &Refusal{Check: "alter", Reason: fmt.Sprintf("%s has a constraint %q already", w.table, name), Remedy: "give the new one another name"}
	}
	if isKey && slices.Contains(w.taken.Relations, name) {
		return &Refusal{Check: "alter", Reason: fmt.Sprintf("there is a table, index or sequence %q in schema %q already", name, w.table.Schema), Remedy: "give the new constraint another name"}
	}
	w.taken.Constraints = append(w.taken.Constraints, name)
	if isKey {
		w.taken.Relations = append(w.taken.Relations, name)
	}
	return nil
}

func (w *recipeWriter) column(piece Piece) {
	statement := w.statement(AccessExclusive, "the column, which changes no row", "ALTER TABLE %s %s", w.name, piece.SQL)
	if !w.columnsFirst {
		w.last.Statements = append(w.last.Statements, statement)
		return
	}
	w.first.Lock = AccessExclusive
	w.first.Statements = append(w.first.Statements, statement)
	w.first.Makes = append(w.first.Makes, Object{MadeColumn, piece.Columns[0]})
}

// late adds a constraint that holds for what is written from now on.
func (w *recipeWriter) late(name string, piece Piece, sql string) {
	lock := AccessExclusive
	why := "it holds for what is written from now on; rows are read later"
	if piece.Label == "fkey" {
		lock = ShareRowExclusive
		why += "; it takes the same lock on the referenced table"
	}
	if piece.Late {
		why = "it holds for what is written from now on; that rows are not read is what NOT VALID asks for"
	}
	w.first.Lock = Stronger(w.first.Lock, lock)
	w.first.Statements = append(w.first.Statements, w.statement(lock, why, "ALTER TABLE %s %s", w.name, sql))
	w.first.Makes = append(w.first.Makes, Object{MadeConstraint, name})
}

func (w *recipeWriter) validate(name string) {
	w.reading = append(w.reading, Step{Lock: ShareUpdateExclusive, Reads: true, Statements: []Statement{
		w.statement(ShareUpdateExclusive, "every row is read, beside readers and writers", "ALTER TABLE %s VALIDATE CONSTRAINT %s", w.name, pg.Ident(name))}})
}

// notNull has a CHECK prove that no value is null, so that SET NOT NULL reads nothing.
// Beside a constraint that says so already, of rows to come (PostgreSQL 18), the server
// would not take the proof: that one is validated.
func (w *recipeWriter) notNull(columns []string) {
	for _, name := range columns {
		i := slices.IndexFunc(w.table.Columns, func(c schema.Column) bool { return c.Name == name })
		if i >= 0 && w.table.Columns[i].NotNull || slices.Contains(w.proven, name) {
			continue
		}
		w.proven = append(w.proven, name)
		if late := w.lateNotNull(name); late != "" {
			w.validate(late)
			continue
		}
		check := w.chooseFor(Prefix, name, "not_null", false)
		w.late(check, Piece{}, fmt.Sprintf("ADD CONSTRAINT %s CHECK (%s IS NOT NULL) NOT VALID", pg.Ident(check), pg.Ident(name)))
		w.validate(check)
		w.last.Statements = append(w.last.Statements, w.statement(AccessExclusive, "the check proves it: no row is read", "ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", w.name, pg.Ident(name)),
			w.statement(AccessExclusive, "it has done its work", "ALTER TABLE %s DROP CONSTRAINT %s", w.name, pg.Ident(check)))
	}
}

// lateNotNull is the name of a column's NOT NULL constraint that is not validated.
func (w *recipeWriter) lateNotNull(column string) string {
	for _, constraint := range w.table.Constraints {
		definition := strings.TrimPrefix(constraint.Definition, "NOT NULL ")
		if constraint.Type == "n" && !constraint.Valid && (strings.HasPrefix(definition, column+" ") || strings.HasPrefix(definition, pg.Ident(column)+" ")) {
			return constraint.Name
		}
	}
	return ""
}

// key builds the index under a name with the run's id in it, so that none of
// anybody else's is taken for it. It gets the constraint's name with the constraint.
func (w *recipeWriter) key(name string, piece Piece) {
	w.keys++
	index := fmt.Sprintf("%s_%s_key%d", Prefix, w.names.RunID, w.keys)
	w.reading = append(w.reading, Step{Lock: ShareUpdateExclusive, Reads: true, Index: index,
		Statements: []Statement{w.statement(ShareUpdateExclusive, "the index is built beside readers and writers", "CREATE UNIQUE INDEX CONCURRENTLY %s ON %s %s", pg.Ident(index), w.name, piece.SQL)}})
	w.last.Statements = append(w.last.Statements, w.statement(AccessExclusive, "the index is there, and gets the constraint's name", "ALTER TABLE %s ADD CONSTRAINT %s %s USING INDEX %s%s",
		w.name, pg.Ident(name), piece.Constraint, pg.Ident(index), piece.Deferral))
}

// nameLimit is how many bytes a name has at most (PostgreSQL manual section 4.1.1).
const nameLimit = 63

// choose makes a name the way PostgreSQL does: table_columns_label, cut short to fit,
// with a number where a constraint has it, or, of a key, a relation.
func (w *recipeWriter) choose(columns, label string, isKey bool) string {
	return w.chooseFor(w.table.Name, columns, label, isKey)
}

func (w *recipeWriter) chooseFor(table, columns, label string, isKey bool) string {
	for n := 0; ; n++ {
		suffix := label
		if n > 0 {
			suffix += fmt.Sprint(n)
		}
		name := objectName(table, columns, suffix)
		if slices.Contains(w.taken.Constraints, name) || isKey && slices.Contains(w.taken.Relations, name) {
			continue
		}
		w.taken.Constraints = append(w.taken.Constraints, name)
		if isKey {
			w.taken.Relations = append(w.taken.Relations, name)
		}
		return name
	}
}

func objectName(table, columns, label string) string {
	room := nameLimit - len(label) - 1
	if columns != "" {
		room--
	}
	a, b := len(table), len(columns)
	for a+b > room {
		if a > b {
			a--
		} else {
			b--
		}
	}
	name := cut(table, a) + "_"
	if columns != "" {
		name += cut(columns, b) + "_"
	}
	return name + label
}

// cut leaves at most so many bytes, and no half character.
func cut(text string, bytes int) string {
	for bytes < len(text) && bytes > 0 && !utf8.RuneStart(text[bytes]) {
		bytes--
	}
	return text[:bytes]
}
