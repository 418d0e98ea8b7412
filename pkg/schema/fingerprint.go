package schema

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Fingerprint is a digest of the facts: it differs when any definition, grant,
// comment or option of the table does, and Differences says which. An index that
// is rebuilt concurrently has another OID, and a twin that is not valid yet:
// neither counts. Nor does the order of grants and of options.
func (t *Table) Fingerprint() string {
	sum := sha256.Sum256(encode(t.compared(t.Owner)))
	return hex.EncodeToString(sum[:16])
}

// encode is the form in which facts are compared.
func encode(facts any) []byte {
	document, err := json.Marshal(facts)
	if err != nil {
		panic(fmt.Sprintf("encoding table facts: %v", err)) // plain values always encode
	}
	return document
}

// compared is a copy of the facts without what does not count. In its grants
// owner stands for the table's own owner, as after ALTER TABLE ... OWNER TO.
func (t *Table) compared(owner string) *Table {
	facts := *t
	inOrder := func(grants []Grant) []Grant {
		grants = slices.Clone(grants)
		for i := range grants {
			grants[i] = grants[i].passed(t.Owner, owner)
		}
		slices.SortFunc(grants, func(a, b Grant) int {
			return cmp.Or(cmp.Compare(a.Grantee, b.Grantee), cmp.Compare(a.Privilege, b.Privilege), cmp.Compare(a.Grantor, b.Grantor))
		})
		return grants
	}
	sorted := func(options []string) []string {
		options = slices.Clone(options)
		slices.Sort(options)
		return options
	}
	facts.Grants = inOrder(t.Grants)
	facts.Storage.Options, facts.Storage.ToastOptions = sorted(t.Storage.Options), sorted(t.Storage.ToastOptions)
	facts.Columns = slices.Clone(t.Columns)
	for i := range facts.Columns {
		column := &facts.Columns[i]
		column.Grants, column.Details.Options = inOrder(column.Grants), sorted(column.Details.Options)
	}
	facts.Indexes = nil
	for _, index := range t.Indexes {
		if index.Usable {
			index.OID, index.Details.Options = 0, sorted(index.Details.Options)
			facts.Indexes = append(facts.Indexes, index)
		}
	}
	facts.Constraints = slices.Clone(t.Constraints)
	for i := range facts.Constraints {
		facts.Constraints[i].IndexOID = 0
	}
	facts.Sequences = slices.Clone(t.Sequences)
	for i := range facts.Sequences {
		facts.Sequences[i].Grants = inOrder(facts.Sequences[i].Grants)
	}
	facts.Attached = t.Attached.compared(inOrder, sorted)
	facts.Leaf = t.Leaf.compared()
	return &facts
}

// compared is a copy without what does not count.
func (a Attached) compared(inOrder func([]Grant) []Grant, sorted func([]string) []string) Attached {
	a.Views = slices.Clone(a.Views)
	for i := range a.Views {
		view := &a.Views[i]
		view.OID, view.Grants, view.Options = 0, inOrder(view.Grants), sorted(view.Options)
		view.Columns = slices.Clone(view.Columns)
		for j := range view.Columns {
			view.Columns[j].Grants = inOrder(view.Columns[j].Grants)
		}
	}
	keys := func(keys []ForeignKey) []ForeignKey {
		keys = slices.Clone(keys)
		for i := range keys {
			keys[i].Table.OID = 0
		}
		return keys
	}
	a.References, a.ReferencedBy = keys(a.References), keys(a.ReferencedBy)
	a.Others = slices.Clone(a.Others)
	for i := range a.Others {
		a.Others[i].Table.OID = 0
	}
	return a
}

// passed is the grant after the owner's rights have gone to another role.
func (g Grant) passed(from, to string) Grant {
	if g.Grantor == from {
		g.Grantor = to
	}
	if g.Grantee == from {
		g.Grantee = to
	}
	return g
}
