package migration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// attachedRefusals name what the roles lack that what is attached to the table
// belongs to: the swap makes each object as its owner, each grant as its grantor.
func (m *Migration) attachedRefusals(ctx context.Context, table *schema.Table) ([]*shadow.Refusal, error) {
	var all []*shadow.Refusal
	refuse := func(reason, remedy string) {
		all = append(all, &shadow.Refusal{Check: "rights", Reason: reason, Remedy: remedy})
	}
	closed, err := m.closedRoles(ctx, rolesOf(table))
	if err != nil {
		return nil, err
	}
	for _, role := range closed {
		refuse(fmt.Sprintf("role %s may not SET ROLE to %s, which owns, or has granted, something that is attached to the table", m.target.server.Role, role),
			"GRANT "+pg.Ident(role)+" TO "+pg.Ident(m.target.server.Role))
	}
	for _, view := range table.Attached.Views {
		may, err := m.allows(ctx, "SELECT pg_catalog.has_schema_privilege($1::pg_catalog.name, $2, 'CREATE')", view.Owner, view.Schema)
		if err != nil {
			return nil, err
		}
		if !may {
			refuse(fmt.Sprintf("%s, the owner of view %s, may not create it again in schema %s", view.Owner, view, view.Schema),
				"GRANT CREATE ON SCHEMA "+pg.Ident(view.Schema)+" TO "+pg.Ident(view.Owner))
		}
	}
	for _, key := range table.Attached.References {
		may, err := m.allows(ctx, "SELECT pg_catalog.has_any_column_privilege($1::pg_catalog.name, $2::pg_catalog.oid, 'REFERENCES')", table.Owner, key.Table.OID)
		if err != nil {
			return nil, err
		}
		if !may {
			refuse(fmt.Sprintf("%s, the owner of the table, may not make foreign key %s to %s again", table.Owner, pg.Readable(key.Name), key.Table),
				"GRANT REFERENCES ON "+key.Table.Quoted()+" TO "+pg.Ident(table.Owner))
		}
	}
	for _, missing := range []func(context.Context, *schema.Table) ([]*shadow.Refusal, error){m.usageRefusals, m.otherRefusals, m.publicationRefusals} {
		more, err := missing(ctx, table)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// usageRefusals are about the schemas that whoever makes something again must be able
// to look into.
func (m *Migration) usageRefusals(ctx context.Context, table *schema.Table) ([]*shadow.Refusal, error) {
	type need struct{ role, schema string }
	made := map[need][]string{}
	makes := func(what, role string, schemas ...string) {
		for _, name := range schemas {
			made[need{role, name}] = append(made[need{role, name}], what)
		}
	}
	for _, view := range table.Attached.Views {
		makes("view "+view.String(), view.Owner, view.Schemas...)
	}
	for _, key := range table.Attached.References {
		makes("foreign key "+pg.Readable(key.Name), table.Owner, key.Table.Schema)
	}
	for _, key := range table.Attached.ReferencedBy {
		makes(fmt.Sprintf("foreign key %s on %s", pg.Readable(key.Name), key.Table), key.Table.Owner, table.Schema)
	}
	for _, other := range table.Attached.Others {
		makes(fmt.Sprintf("the policies and rules of %s that speak of the table", other.Table), other.Table.Owner, append(slices.Clone(other.Schemas), other.Table.Schema)...)
	}
	delete(made, need{table.Owner, table.Schema}) // without it there is no shadow either: see rightsRefusals
	byName := func(a, b need) int { return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.schema, b.schema)) }
	var all []*shadow.Refusal
	for _, n := range slices.SortedFunc(maps.Keys(made), byName) {
		may, err := m.allows(ctx, "SELECT pg_catalog.has_schema_privilege($1::pg_catalog.name, $2, 'USAGE')", n.role, n.schema)
		if err != nil {
			return nil, err
		}
		if !may {
			right := "USAGE ON SCHEMA " + pg.Ident(n.schema)
			all = append(all, &shadow.Refusal{Check: "rights", Reason: fmt.Sprintf("%s lacks %s, to make again %s", n.role, right, strings.Join(slices.Compact(made[n]), ", ")),
				Remedy: "GRANT " + right + " TO " + pg.Ident(n.role)})
		}
	}
	return all, nil
}

// otherRefusals are about other tables whose policies or rules speak of the table:
// each owner makes its own again, and tries it first on a table like its own.
func (m *Migration) otherRefusals(ctx context.Context, table *schema.Table) ([]*shadow.Refusal, error) {
	var all []*shadow.Refusal
	for _, other := range table.Attached.Others {
		may, err := m.allows(ctx, "SELECT pg_catalog.has_table_privilege($1::pg_catalog.name, $2::pg_catalog.oid, 'SELECT')", other.Table.Owner, other.Table.OID)
		if err != nil {
			return nil, err
		}
		if !may {
			right := "SELECT ON " + other.Table.Quoted()
			all = append(all, &shadow.Refusal{Check: "rights", Reason: fmt.Sprintf("%s, the owner of %s, lacks %s, to try its policies and rules again that speak of the table", other.Table.Owner, other.Table, right),
				Remedy: "GRANT " + right + " TO " + pg.Ident(other.Table.Owner)})
		}
	}
	return all, nil
}

// publicationRefusals: whoever adds a table to a publication must own both.
func (m *Migration) publicationRefusals(ctx context.Context, table *schema.Table) ([]*shadow.Refusal, error) {
	var all []*shadow.Refusal
	for _, publication := range table.Attached.Publications {
		if publication.Owner == table.Owner {
			continue
		}
		may, err := m.allows(ctx, "SELECT pg_catalog.pg_has_role(session_user, $1::pg_catalog.name, 'USAGE') AND pg_catalog.pg_has_role(session_user, $2::pg_catalog.name, 'USAGE')", publication.Owner, table.Owner)
		if err != nil {
			return nil, err
		}
		if !may {
			all = append(all, &shadow.Refusal{Check: "rights",
				Reason: fmt.Sprintf("publication %s belongs to %s, and the table to %s: only who has the rights of both may add the new table", pg.Readable(publication.Name), publication.Owner, table.Owner),
				Remedy: "log in as a role that inherits the rights of both, or ALTER PUBLICATION ... OWNER TO the owner of the table"})
		}
	}
	return all, nil
}

// rolesOf lists, without repeats, in whose names the swap makes something, beside
// the owner of the table.
func rolesOf(table *schema.Table) []string {
	a := table.Attached
	grants := slices.Clone(table.Grants)
	for _, column := range table.Columns {
		grants = append(grants, column.Grants...)
	}
	for _, sequence := range table.Sequences {
		if sequence.Identity {
			grants = append(grants, sequence.Grants...)
		}
	}
	roles := shadow.OtherOwners(table, "")
	for _, view := range a.Views {
		grants = append(grants, view.Grants...)
		for _, column := range view.Columns {
			grants = append(grants, column.Grants...)
		}
	}
	for _, grant := range grants {
		roles = append(roles, grant.Grantor)
	}
	for _, publication := range a.Publications {
		roles = append(roles, publication.Owner)
	}
	if leaf := table.Leaf; leaf != nil {
		for _, ancestor := range leaf.Ancestors {
			roles = append(roles, ancestor.Table.Owner)
		}
		if leaf.Beside != nil {
			roles = append(roles, leaf.Beside.Table.Owner)
		}
	}
	slices.Sort(roles)
	return slices.DeleteFunc(slices.Compact(roles), func(role string) bool { return role == table.Owner })
}

// closedRoles finds those to which the session may not SET ROLE.
func (m *Migration) closedRoles(ctx context.Context, roles []string) ([]string, error) {
	rows, err := m.control.Query(ctx, `SELECT r FROM pg_catalog.unnest($1::pg_catalog.text[]) AS r WHERE NOT pg_catalog.pg_has_role(session_user, r::pg_catalog.name,
		CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000 THEN 'SET' ELSE 'MEMBER' END) ORDER BY 1`, roles)
	if err != nil {
		return nil, fmt.Errorf("looking up the roles of what is attached: %w", err)
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("looking up the roles of what is attached: %w", err)
	}
	return closed, nil
}

func (m *Migration) allows(ctx context.Context, sql string, args ...any) (may bool, err error) {
	if err := m.control.QueryRow(ctx, sql, args...).Scan(&may); err != nil {
		return false, fmt.Errorf("looking up the rights on what is attached: %w", err)
	}
	return may, nil
}
