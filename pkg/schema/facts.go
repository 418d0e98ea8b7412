// Package schema reads catalog facts as plain values: what a table is made of,
// what hangs on it, and what the server and the session may do. Its queries are
// the embedded .sql files. It decides nothing.
package schema

import (
	"slices"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Table is everything of a table that a shadow must carry, as the catalog had it
// at one moment. It is a value: nothing in it changes after Load.
type Table struct {
	OID         uint32       `json:"oid"`
	Schema      string       `json:"schema"`
	Name        string       `json:"name"`
	Owner       string       `json:"owner"`
	Comment     *string      `json:"comment"`
	Labels      []Label      `json:"labels,omitempty"`
	Grants      []Grant      `json:"grants"`
	Storage     Storage      `json:"storage"`
	Columns     []Column     `json:"columns"`
	Indexes     []Index      `json:"indexes"`
	Constraints []Constraint `json:"constraints"`
	Statistics  []Statistic  `json:"statistics"`
	Sequences   []Sequence   `json:"sequences"`
	Attached    Attached     `json:"attached"`
	Leaf        *Leaf        `json:"leaf,omitempty"` // nil: no partition
}

// Storage says how the table is kept. Kind, Persistence and ReplicaIdentity are
// the letters of pg_class (PostgreSQL manual section 53.11).
type Storage struct {
	Kind            string   `json:"kind"`
	Persistence     string   `json:"persistence"`
	AccessMethod    string   `json:"access_method"`
	Tablespace      string   `json:"tablespace"` // empty: the database's default
	Options         []string `json:"options"`
	ToastOptions    []string `json:"toast_options"`
	ReplicaIdentity string   `json:"replica_identity"`
}

// Grant is one privilege as aclexplode shows it; an empty grantee is PUBLIC.
type Grant struct {
	Grantor   string `json:"grantor"`
	Grantee   string `json:"grantee"`
	Privilege string `json:"privilege"`
	Grantable bool   `json:"grantable"`
}

// Label is a security label, of an object or of its row type.
type Label struct {
	Provider string `json:"provider"`
	Text     string `json:"text"`
	RowType  bool   `json:"row_type,omitempty"`
}

// Column is one live column. Type is spelled with its modifier, BaseType without.
type Column struct {
	Attnum     int           `json:"attnum"`
	Name       string        `json:"name"`
	Type       string        `json:"type"`
	BaseType   string        `json:"base_type"`
	TypeOID    uint32        `json:"type_oid"`
	BaseOID    uint32        `json:"base_oid"` // of a domain the type under it, else TypeOID
	Typmod     int32         `json:"typmod"`
	Collation  string        `json:"collation"` // quoted; empty for the database's own
	NotNull    bool          `json:"not_null"`
	Default    *string       `json:"default"`
	Expression *string       `json:"expression"` // of a generated column
	Identity   string        `json:"identity"`   // "", "a" always, "d" by default
	Generated  string        `json:"generated"`  // "", "s" stored, "v" virtual
	Details    ColumnDetails `json:"details"`
	Grants     []Grant       `json:"grants"`
}

// ColumnDetails are the parts of a column that no value depends on.
type ColumnDetails struct {
	Storage     string   `json:"storage"`
	Compression string   `json:"compression"`
	Statistics  int      `json:"statistics"` // -1: the default target
	Options     []string `json:"options"`
	Comment     *string  `json:"comment"`
	Labels      []Label  `json:"labels,omitempty"`
}

// Index is one index. Definition is what follows the table's name in CREATE INDEX,
// from USING on. Key lists the key columns' attnums, 0 for an expression.
// Plain says: no expression, no predicate, every column ascending with its
// type's default operator class and its own collation.
type Index struct {
	OID        uint32       `json:"oid"`
	Name       string       `json:"name"`
	Definition string       `json:"definition"`
	Method     string       `json:"method"`
	Unique     bool         `json:"unique"`
	Primary    bool         `json:"primary"`
	Immediate  bool         `json:"immediate"`
	Usable     bool         `json:"usable"`
	Plain      bool         `json:"plain"`
	Key        []int        `json:"key"`
	Marks      IndexMarks   `json:"marks"`
	Details    IndexDetails `json:"details"`
}

// IndexMarks are the flags that point a table at one of its indexes.
type IndexMarks struct {
	Clustered       bool `json:"clustered"`
	ReplicaIdentity bool `json:"replica_identity"`
}

// IndexDetails are the parts of an index that its definition does not spell.
type IndexDetails struct {
	Tablespace string         `json:"tablespace"`
	Comment    *string        `json:"comment"`
	Options    []string       `json:"options"`
	Statistics map[string]int `json:"statistics"` // by column number of the index
}

// Constraint is a primary key (p), unique (u), exclusion (x), check (c) or, from
// PostgreSQL 18 on, not-null (n) constraint.
type Constraint struct {
	Name       string  `json:"name"`
	Type       string  `json:"type"`
	Definition string  `json:"definition"`
	Valid      bool    `json:"valid"`
	IndexOID   uint32  `json:"index_oid"`
	Deferrable bool    `json:"deferrable"`
	Deferred   bool    `json:"deferred"`
	Comment    *string `json:"comment"`
}

// Late tells that rows from before the constraint need not satisfy it: it is not
// validated, or not enforced.
func (c Constraint) Late() bool { return (c.Type == "c" || c.Type == "n") && !c.Valid }

// Statistic is an extended statistics object. Definition is what stands between
// the object's name and FROM in CREATE STATISTICS.
type Statistic struct {
	Schema     string  `json:"schema"`
	Name       string  `json:"name"`
	Definition string  `json:"definition"`
	Target     int     `json:"target"`
	Comment    *string `json:"comment"`
}

// Sequence is one that a column owns: of an identity column, or of a serial one.
type Sequence struct {
	Schema    string  `json:"schema"`
	Name      string  `json:"name"`
	Attnum    int     `json:"attnum"`
	Identity  bool    `json:"identity"`
	Type      string  `json:"type"`
	Start     int64   `json:"start"`
	Increment int64   `json:"increment"`
	Max       int64   `json:"max"`
	Min       int64   `json:"min"`
	Cache     int64   `json:"cache"`
	Cycle     bool    `json:"cycle"`
	Comment   *string `json:"comment"`
	Labels    []Label `json:"labels,omitempty"`
	Grants    []Grant `json:"grants"`
}

// Server is what the server and the session allow.
type Server struct {
	Version     int      `json:"version"` // server_version_num
	VersionText string   `json:"version_text"`
	Database    string   `json:"database"`
	InRecovery  bool     `json:"in_recovery"`
	Role        string   `json:"role"`
	Superuser   bool     `json:"superuser"`
	WALLevel    string   `json:"wal_level"`
	FreeSlots   int      `json:"free_slots"`
	FreeSenders int      `json:"free_senders"`
	Rights      Rights   `json:"rights"`
	TypeSchemas []string `json:"search_path"` // schemas of the columns' types

	RowSecurity RowSecurity `json:"row_security"`
}

// RowSecurity is who may read every row of a table.
type RowSecurity struct {
	Forced        bool `json:"forced"`         // on, and for the owner too
	OwnerBypasses bool `json:"owner_bypasses"` // superuser or BYPASSRLS
	RoleBypasses  bool `json:"role_bypasses"`
	RoleReads     bool `json:"role_reads"` // SELECT on the table, by its own or inherited rights
}

// Rights are what the session's role may do.
type Rights struct {
	Replication           bool `json:"replication"`
	CreateOnDatabase      bool `json:"create_on_database"`
	MemberOfOwner         bool `json:"member_of_owner"`
	SetOwner              bool `json:"set_owner"`      // may SET ROLE to the owner
	InheritsOwner         bool `json:"inherits_owner"` // has the owner's rights without SET ROLE
	OwnerCreateOnDatabase bool `json:"owner_create_on_database"`
	OwnerCreateOnSchema   bool `json:"owner_create_on_schema"`
	RoleCreateOnSchema    bool `json:"role_create_on_schema"`
	// OwnerLacks are rights that the owner would need to make its own table again,
	// as GRANT spells them: USAGE ON SCHEMA s.
	OwnerLacks []string `json:"owner_lacks"`
}

// Obstacle is an object that hangs on a table and keeps it from being replaced.
type Obstacle struct {
	Check  string
	Object string
}

// Size is what a table takes on disk, in bytes, and the planner's row estimate: 0 for
// a table that was never analyzed.
type Size struct {
	TableBytes    int64 // with TOAST
	IndexBytes    int64
	ToastBytes    int64
	EstimatedRows int64
	GuessedRows   int64 // from the size and the columns' types
}

// String is the table's name for people; it reads back as the same name.
func (t *Table) String() string { return pg.Readable(t.Schema, t.Name) }

// Quoted is the table's name for SQL.
func (t *Table) Quoted() string { return pg.Ident(t.Schema, t.Name) }

// HasGenerated tells whether a column is generated in that way: "s" stored, "v"
// virtual.
func (t *Table) HasGenerated(how string) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Generated == how })
}

// Column returns the live column with that attnum.
func (t *Table) Column(attnum int) (Column, bool) {
	for _, column := range t.Columns {
		if column.Attnum == attnum {
			return column, true
		}
	}
	return Column{}, false
}

// ConstraintOf returns the constraint that an index belongs to.
func (t *Table) ConstraintOf(index Index) (Constraint, bool) {
	for _, constraint := range t.Constraints {
		if constraint.IndexOID == index.OID && constraint.IndexOID != 0 {
			return constraint, true
		}
	}
	return Constraint{}, false
}
