package shadow

import (
	"fmt"
	"slices"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// Plan is everything that copy, replay, verification and cutover need to know of
// one run. It is made once, when the shadow has been built, and kept in the
// checkpoint: a resumed run works from the very same text.
type Plan struct {
	Names    Names          `json:"names"`
	Original *schema.Table  `json:"original"` // its facts when the plan was made
	Owner    string         `json:"owner"`
	Others   []string       `json:"others,omitempty"` // OtherOwners when the plan was made
	Forced   bool           `json:"forced,omitempty"` // row security is forced on the owner: see Source
	Key      keyset.Columns `json:"key"`              // the original's columns by which rows are followed
	Columns  []Column       `json:"columns"`
	// ShadowKey gives, for each key column, where it went.
	ShadowKey []KeyColumn `json:"shadow_key"`
	// SearchPath is pinned for every session that runs the owner's code.
	SearchPath string       `json:"search_path"`
	Strip      []Statement  `json:"strip"`  // before the copy: what is built again or comes later
	Builds     []IndexBuild `json:"builds"` // after the copy
	Marks      []Statement  `json:"marks"`  // after the builds
	Locks      []Lock       `json:"locks"`  // that the swap begins with
	Swap       []Statement  `json:"swap"`   // under the locks
	// Completions are for after the swap.
	Completions []Completion `json:"completions"`
	// Losses are the columns whose values may not come back as they were.
	Losses []Loss `json:"losses,omitempty"`
	// Recipe is set where PostgreSQL itself is led through the change: then there is no
	// shadow, and of the rest only what says whose table it is.
	Recipe *Recipe `json:"recipe,omitempty"`
}

// Column is one column of the shadow that takes a value from the original.
// Value is assigned by INSERT, Compare is the same value as the column stores
// it; both speak of the original's row as o.
type Column struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Compare string `json:"compare"`
}

// KeyColumn is one column of the shadow's side of the key. Value is computed
// from the original's key columns alone. Type is spelled as the casts that lead
// from the original key's text to it.
type KeyColumn struct {
	keyset.Column
	Value string `json:"value"`
}

// ShadowKeyColumns is the shadow's side of the key, for ranges whose bounds are
// keys of the original.
func (p *Plan) ShadowKeyColumns() keyset.Columns {
	columns := make(keyset.Columns, len(p.ShadowKey))
	for i, key := range p.ShadowKey {
		columns[i] = key.Column
	}
	return columns
}

// Inputs are what a Plan is made of. Shadow are the facts of the shadow as the
// user's ALTERs left it.
type Inputs struct {
	Names      Names
	Change     *Change
	Original   *schema.Table
	Shadow     *schema.Table
	SearchPath string
	Others     []string // OtherOwners
	Forced     bool     // row security is forced on the owner
	// SwapRole moves the tables between schemas: the owner, or empty for the
	// session's own role where the owner may not create in the schema.
	SwapRole string
	// Superuser tells whether the session's own role is one.
	Superuser bool
	// Attached is what the new table gets at the swap; the column lists of its
	// publications speak of the original's columns.
	Attached schema.Attached
	// Membership is of a leaf partition.
	Membership  Membership
	Conversions Conversions
}

// NewPlan maps the original's columns to the shadow's and lists every statement
// that is left to run. It returns a *Refusal for a change that it cannot follow.
func NewPlan(in Inputs) (*Plan, error) {
	index, err := ChooseKey(in.Original)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Names: in.Names, Original: in.Original, Owner: in.Original.Owner, Others: in.Others, Forced: in.Forced, SearchPath: in.SearchPath}
	m := newMapping(in.Original, in.Shadow)
	if err := plan.mapColumns(in.Change, m); err != nil {
		return nil, err
	}
	plan.Losses = losses(in.Change, m, in.Conversions)
	if err := plan.mapKey(in.Change, m, index); err != nil {
		return nil, err
	}
	if err := plan.refuseArbiter(m); err != nil {
		return nil, err
	}
	if in.Attached.Publications, err = mapPublications(in.Attached.Publications, m); err != nil {
		return nil, err
	}
	plan.layOut(in, m)
	return plan, nil
}

// mapping pairs columns by attnum: the shadow was created with the original's
// live columns in order, so the i-th has attnum i+1, whatever its name is now.
type mapping struct {
	original *schema.Table
	shadow   *schema.Table
	partner  map[int]schema.Column // by the original's attnum
	source   map[int]schema.Column // by the shadow's attnum
}

func newMapping(original, shadowTable *schema.Table) mapping {
	m := mapping{original: original, shadow: shadowTable, partner: map[int]schema.Column{}, source: map[int]schema.Column{}}
	for i, column := range original.Columns {
		if partner, ok := shadowTable.Column(i + 1); ok {
			m.partner[column.Attnum] = partner
			m.source[partner.Attnum] = column
		}
	}
	return m
}

func (p *Plan) mapColumns(change *Change, m mapping) error {
	if err := checkSet(change, m); err != nil {
		return err
	}
	for _, column := range m.shadow.Columns {
		source, mapped := m.source[column.Attnum]
		given, isSet := change.Set[column.Name]
		switch {
		case isSet:
			p.Columns = append(p.Columns, Column{Name: column.Name, Value: given.SQL, Compare: storedAs(given.SQL, column)})
		case mapped && column.Generated == "":
			value := valueOf(change, source)
			compare := value
			if changesValue(change, source, column) {
				compare = storedAs(value, column)
			}
			p.Columns = append(p.Columns, Column{Name: column.Name, Value: value, Compare: compare})
		default: // generated, or new: the server fills it in
		}
	}
	return nil
}

// checkSet refuses a --set that is not of a new plain column.
func checkSet(change *Change, m mapping) error {
	for name, expression := range change.Set {
		i := slices.IndexFunc(m.shadow.Columns, func(c schema.Column) bool { return c.Name == name })
		if i < 0 {
			return &Refusal{Check: "set", Reason: fmt.Sprintf("--set %s: the changed table has no such column", name), Remedy: "add the column in --alter"}
		}
		if _, mapped := m.source[m.shadow.Columns[i].Attnum]; mapped || m.shadow.Columns[i].Generated != "" {
			return &Refusal{Check: "set", Reason: fmt.Sprintf("--set %s: it is not a new plain column", name),
				Remedy: "use USING in ALTER COLUMN TYPE for a column that exists already"}
		}
		if err := checkColumns(m.original, expression, "--set "+name); err != nil {
			return err
		}
	}
	return nil
}

func checkColumns(original *schema.Table, expression Expression, where string) error {
	for _, name := range expression.Columns {
		if !slices.ContainsFunc(original.Columns, func(c schema.Column) bool { return c.Name == name }) {
			return &Refusal{Check: "expression", Reason: fmt.Sprintf("%s uses %q, which is no column of the original", where, name),
				Remedy: "use the original's columns"}
		}
	}
	return nil
}

// mapPublications gives column lists the columns' new names.
func mapPublications(publications []schema.Publication, m mapping) ([]schema.Publication, error) {
	publications = slices.Clone(publications)
	for i, publication := range publications {
		names := slices.Clone(publication.Columns)
		for j, name := range names {
			source := slices.IndexFunc(m.original.Columns, func(c schema.Column) bool { return c.Name == name })
			partner, kept := m.partner[m.original.Columns[source].Attnum]
			if !kept {
				return nil, &Refusal{Check: "publication", Reason: fmt.Sprintf("the change drops column %q, which is in the column list of publication %q", name, publication.Name),
					Remedy: "take the column out of the publication first"}
			}
			names[j] = partner.Name
		}
		publications[i].Columns = names
	}
	return publications, nil
}

func valueOf(change *Change, source schema.Column) string {
	if using, ok := change.Using[source.Name]; ok {
		return using.SQL
	}
	return pg.Ident(RowAlias, source.Name)
}

func changesValue(change *Change, source, column schema.Column) bool {
	_, using := change.Using[source.Name]
	return using || source.TypeOID != column.TypeOID || source.Typmod != column.Typmod
}

// storedAs casts an expression to a column's type as an assignment would: where
// an explicit cast would cut a value short, the uncut value is kept, so that it
// differs from anything the column can hold.
func storedAs(expression string, column schema.Column) string {
	if !column.TruncatesOnCast() {
		return fmt.Sprintf("(%s)::%s", expression, column.Type)
	}
	fits := `pg_catalog.rtrim((%[1]s)::%[2]s::pg_catalog.text) = pg_catalog.rtrim((%[1]s)::pg_catalog.text) COLLATE pg_catalog."C"`
	if column.TypeOID == schema.OIDBit || column.TypeOID == schema.OIDVarbit {
		fits = "(%[1]s)::%[2]s::%[3]s = (%[1]s)::%[3]s"
	}
	return fmt.Sprintf("CASE WHEN "+fits+" THEN (%[1]s)::%[2]s ELSE (%[1]s)::%[3]s END", expression, column.Type, column.CastType())
}

func (p *Plan) mapKey(change *Change, m mapping, index schema.Index) error {
	for _, attnum := range index.Key {
		column, _ := m.original.Column(attnum)
		p.Key = append(p.Key, keyset.Column{Name: column.Name, Type: column.CastType(), Collation: column.Collation})
	}
	for _, attnum := range index.Key {
		column, _ := m.original.Column(attnum)
		partner, kept := m.partner[attnum]
		if !kept {
			return &Refusal{Check: "key", Reason: fmt.Sprintf("the change drops %q, a column of the key %s by which rows are followed", column.Name, index.Name),
				Remedy: "follow rows by another unique not-null index: ALTER TABLE ... REPLICA IDENTITY USING INDEX"}
		}
		if err := p.checkKeyExpression(change, column, partner); err != nil {
			return err
		}
		value := valueOf(change, column)
		if changesValue(change, column, partner) {
			value = fmt.Sprintf("(%s)::%s", value, partner.StoredType())
		}
		p.ShadowKey = append(p.ShadowKey, KeyColumn{Value: value, Column: keyset.Column{
			Name: partner.Name, Type: column.CastType() + "::" + partner.StoredType(), Collation: partner.Collation}})
	}
	return nil
}

func (p *Plan) checkKeyExpression(change *Change, column, partner schema.Column) error {
	using, has := change.Using[column.Name]
	if has {
		for _, name := range using.Columns {
			if !slices.Contains(p.Key.Names(), name) {
				return &Refusal{Check: "key", Reason: fmt.Sprintf("USING of key column %q reads %q, which is not part of the key", column.Name, name),
					Remedy: "compute key columns from key columns only"}
			}
		}
	}
	if (has && !using.PlainCast) || !schema.SameOrder(column, partner) {
		return &Refusal{Check: "key", Reason: fmt.Sprintf("the change from %s to %s does not keep the order of key column %q, so chunks of the two tables cannot be compared",
			column.Type, partner.Type, column.Name),
			Remedy: "follow rows by another unique not-null index: ALTER TABLE ... REPLICA IDENTITY USING INDEX"}
	}
	return nil
}

// ChooseKey picks the index by whose columns rows are followed: the stream must
// carry them (replica identity), and chunks are cut along it.
func ChooseKey(original *schema.Table) (schema.Index, error) {
	var candidates []schema.Index
	for _, index := range original.Indexes {
		if usableKey(original, index) {
			candidates = append(candidates, index)
		}
	}
	prefer := func(matches func(schema.Index) bool) (schema.Index, bool) {
		i := slices.IndexFunc(candidates, matches)
		if i < 0 {
			return schema.Index{}, false
		}
		return candidates[i], true
	}
	primary := func(index schema.Index) bool { return index.Primary }
	switch original.Storage.ReplicaIdentity {
	case "i":
		if index, ok := prefer(func(index schema.Index) bool { return index.Marks.ReplicaIdentity }); ok {
			return index, nil
		}
	case "f":
		if index, ok := prefer(primary); ok {
			return index, nil
		}
		if index, ok := prefer(func(schema.Index) bool { return true }); ok {
			return index, nil
		}
	case "d":
		if index, ok := prefer(primary); ok {
			return index, nil
		}
	default:
		return schema.Index{}, &Refusal{Check: "replica identity", Reason: fmt.Sprintf("%s has REPLICA IDENTITY NOTHING, so updates and deletes are not in the stream", original),
			Remedy: "ALTER TABLE ... REPLICA IDENTITY DEFAULT (with a primary key) or USING INDEX"}
	}
	return schema.Index{}, &Refusal{Check: "key", Reason: fmt.Sprintf("%s has no usable key: a valid primary key that is not deferrable, or a unique not-null index set as its replica identity", original),
		Remedy: "add a primary key, or CREATE UNIQUE INDEX CONCURRENTLY on not-null columns and ALTER TABLE ... REPLICA IDENTITY USING INDEX"}
}

func usableKey(original *schema.Table, index schema.Index) bool {
	if !index.Unique || !index.Immediate || !index.Usable || !index.Plain || index.Method != "btree" {
		return false
	}
	for _, attnum := range index.Key {
		column, ok := original.Column(attnum)
		if !ok || !column.NotNull || column.Generated != "" { // the stream carries no generated column
			return false
		}
	}
	return true
}
