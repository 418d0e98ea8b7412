package shadow

import (
	"fmt"
	"slices"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
)

// grant adds one GRANT, by the role that made it. column is empty for the whole object.
func (b *builder) grant(grant schema.Grant, object, column string) {
	option := ""
	if grant.Grantable {
		option = " WITH GRANT OPTION"
	}
	b.add("grants", "GRANT %s%s ON %s TO %s%s", grant.Privilege, column, object, grantee(grant), option)
	b.statements[len(b.statements)-1].Role = grant.Grantor
}

func grantee(grant schema.Grant) string {
	if grant.Grantee == "" {
		return "PUBLIC"
	}
	return pg.Ident(grant.Grantee)
}

// Grants lists the statements that give the freshly created shadow the
// original's privileges, no more (default privileges may have added some) and no
// less (the owner may have revoked from itself).
func Grants(original, created *schema.Table, names Names) []Statement {
	b := &builder{owner: original.Owner, table: names.Shadow()}
	if !slices.Equal(original.Grants, created.Grants) {
		b.regrant(original.Grants, created.Grants)
	}
	for _, column := range original.Columns {
		for _, grant := range inChain(column.Grants, original.Owner) {
			b.grant(grant, b.table, fmt.Sprintf(" (%s)", pg.Ident(column.Name)))
		}
	}
	return b.statements
}

// regrant takes back what was given and gives what is wanted in its order, in
// which the catalog keeps it.
func (b *builder) regrant(want, have []schema.Grant) {
	for _, grant := range have { // all of them the owner's
		if grant.Grantee != b.owner || !slices.Contains(want, grant) {
			b.add("grants", "REVOKE %s ON %s FROM %s", grant.Privilege, b.table, grantee(grant))
		}
	}
	for _, grant := range inChain(want, b.owner) {
		if grant.Grantee != b.owner || !slices.Contains(have, grant) {
			b.grant(grant, b.table, "")
		}
	}
}
