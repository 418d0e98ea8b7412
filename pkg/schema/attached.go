package schema

import "github.com/pgshadow/pgshadow/pkg/pg"

// Attached is what hangs on a table, fires on it or is enforced on it: it comes to
// the new table at the swap. Definitions are whole commands, with every name
// qualified.
type Attached struct {
	RowSecurity  bool          `json:"row_security"`
	Forced       bool          `json:"forced"` // FORCE ROW LEVEL SECURITY
	Triggers     []Trigger     `json:"triggers"`
	Rules        []Rule        `json:"rules"`
	Policies     []Policy      `json:"policies"`
	References   []ForeignKey  `json:"references"`    // of the table, also to itself
	ReferencedBy []ForeignKey  `json:"referenced_by"` // of other tables
	Views        []View        `json:"views"`         // each after all that it is made of
	Publications []Publication `json:"publications"`  // that list the table; not pgshadow's own
	Others       []Other       `json:"others,omitempty"`
}

// Trigger is one that a user made. Enabled is the letter of pg_trigger.tgenabled.
type Trigger struct {
	Name       string  `json:"name"`
	Definition string  `json:"definition"`
	Enabled    string  `json:"enabled"`
	Comment    *string `json:"comment"`
}

// Rule is a rewrite rule; Enabled is the letter of pg_rewrite.ev_enabled.
type Rule Trigger

// Policy is a row security policy. Command is the letter of pg_policy.polcmd; of
// Roles the empty one is PUBLIC.
type Policy struct {
	Name       string   `json:"name"`
	Permissive bool     `json:"permissive"`
	Command    string   `json:"command"`
	Roles      []string `json:"roles"`
	Using      *string  `json:"using"`
	Check      *string  `json:"check"`
	Comment    *string  `json:"comment"`
}

// Other is another table, or a view that is none of the table's, with those of its
// policies and rules that speak of the table, of its identity sequences, or of one
// of its views. Schemas are those of what they speak of.
type Other struct {
	Table    Relation `json:"table"`
	Schemas  []string `json:"schemas"`
	Policies []Policy `json:"policies"`
	Rules    []Rule   `json:"rules"`
}

// ForeignKey is a foreign key between the table and Table, the one at its other
// end. Definition is what follows CONSTRAINT name.
type ForeignKey struct {
	Name       string   `json:"name"`
	Definition string   `json:"definition"`
	Valid      bool     `json:"valid"`
	Enforced   bool     `json:"enforced"`
	Comment    *string  `json:"comment"`
	Table      Relation `json:"table"`
}

// Relation names a table that is not the one being changed. Kind is the letter of
// pg_class.relkind.
type Relation struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Owner  string `json:"owner"`
}

// View is a view of the table, or of such a view. Definition is its query; Stored
// is of a materialized one alone.
type View struct {
	OID        uint32   `json:"oid"`
	Schema     string   `json:"schema"`
	Name       string   `json:"name"`
	Owner      string   `json:"owner"`
	Stored     *Stored  `json:"stored"`
	Schemas    []string `json:"schemas"` // of what it speaks of: the table, and others of these views
	Definition string   `json:"definition"`
	Options    []string `json:"options"`
	Comment    *string  `json:"comment"`
	Labels     []Label  `json:"labels,omitempty"`
	Granted    bool     `json:"granted"` // privileges were given or taken
	Grants     []Grant  `json:"grants"`
	// DefaultGrantees are the roles to whom the default privileges of the owner give
	// something on its new views; the empty one is PUBLIC.
	DefaultGrantees []string     `json:"default_grantees"`
	Columns         []ViewColumn `json:"columns"`
	Triggers        []Trigger    `json:"triggers"`
	Rules           []Rule       `json:"rules"`
}

// ViewColumn is what a column of a view has beside its query. Statistics, Options,
// Compression and Storage (empty: that of its type) are those of a materialized one.
type ViewColumn struct {
	Name        string   `json:"name"`
	Default     *string  `json:"default"`
	Comment     *string  `json:"comment"`
	Labels      []Label  `json:"labels,omitempty"`
	Grants      []Grant  `json:"grants"`
	Statistics  int      `json:"statistics"` // -1: the default target
	Options     []string `json:"options"`
	Compression string   `json:"compression"`
	Storage     string   `json:"storage"`
}

// Stored is how a materialized view is kept.
type Stored struct {
	Populated    bool        `json:"populated"`
	AccessMethod string      `json:"access_method"`
	Tablespace   string      `json:"tablespace"`
	ToastOptions []string    `json:"toast_options"`
	Indexes      []ViewIndex `json:"indexes"`
}

// ViewIndex is an index of a materialized view. Definition is the whole command.
type ViewIndex struct {
	Schema     string         `json:"schema"`
	Name       string         `json:"name"`
	Definition string         `json:"definition"`
	Clustered  bool           `json:"clustered"`
	Tablespace string         `json:"tablespace"`
	Comment    *string        `json:"comment"`
	Statistics map[string]int `json:"statistics"` // by column number of the index
}

// Publication lists the table, with a column list (nil: every column) and a row
// filter, which PostgreSQL has from 15 on.
type Publication struct {
	Name    string   `json:"name"`
	Owner   string   `json:"owner"`
	Columns []string `json:"columns"`
	Filter  *string  `json:"filter"`
}

// Quoted is the relation's name for SQL.
func (r Relation) Quoted() string { return pg.Ident(r.Schema, r.Name) }

// String is the relation's name for people.
func (r Relation) String() string { return pg.Readable(r.Schema, r.Name) }

// Kind is how SQL calls it.
func (v View) Kind() string {
	if v.Stored != nil {
		return "MATERIALIZED VIEW"
	}
	return "VIEW"
}

// Quoted is the view's name for SQL.
func (v View) Quoted() string { return pg.Ident(v.Schema, v.Name) }

// String is the view's name for people.
func (v View) String() string { return pg.Readable(v.Schema, v.Name) }
