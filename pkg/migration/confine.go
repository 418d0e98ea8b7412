package migration

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// confine makes what the owner's code runs within (INV-6). It comes before
// everything that could run such code.
func (m *Migration) confine(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	statements := shadow.Confine(m.target.table, names, m.target.server.Role)
	if m.forced() {
		statements = append(statements, shadow.ConfineSource(m.target.table, names)...)
	}
	for _, statement := range statements {
		if err := pg.ExecAs(ctx, tx, statement.Role, statement.Settings, statement.SQL); err != nil {
			return fmt.Errorf("confining the owner's code, %s (%s): %w", statement.Why, statement.SQL, err)
		}
	}
	for _, owner := range append(m.otherOwners(), m.target.table.Owner) {
		if err := m.refuseOpenCode(ctx, tx, names, owner); err != nil {
			return err
		}
	}
	return nil
}

func (m *Migration) otherOwners() []string {
	return shadow.OtherOwners(m.target.table, m.target.server.Role)
}

// refuseOpenCode refuses default privileges that open the functions' schema to an
// owner of theirs by way of another role: it could alter them.
func (m *Migration) refuseOpenCode(ctx context.Context, tx pgx.Tx, names shadow.Names, owner string) error {
	return refuseOpenCodeOf(ctx, tx, names, owner, m.target.server.Role)
}

func refuseOpenCodeOf(ctx context.Context, tx pgx.Tx, names shadow.Names, owner, role string) error {
	var open bool
	err := tx.QueryRow(ctx, `SELECT pg_catalog.has_schema_privilege($1::pg_catalog.name, $2::pg_catalog.text, 'USAGE')
		AND NOT pg_catalog.pg_has_role($1::pg_catalog.name, $3::pg_catalog.name, 'MEMBER')`, owner, names.CodeSchema(), role).Scan(&open)
	if err != nil {
		return fmt.Errorf("asking who may use schema %s: %w", names.CodeSchema(), err)
	}
	if !open {
		return nil
	}
	return &shadow.Refusal{Check: "rights", Reason: fmt.Sprintf("by default, schemas of %s are open to %s, which could change there how its own code is run", role, owner),
		Remedy: "ALTER DEFAULT PRIVILEGES FOR ROLE " + pg.Ident(role) + " REVOKE ALL ON SCHEMAS FROM the role that lets " + pg.Ident(owner) + " in, at least for the change"}
}

// forced tells whether row security hides rows of the table from its owner.
func (m *Migration) forced() bool {
	security := m.target.server.RowSecurity
	return security.Forced && !security.OwnerBypasses
}

// rowSecurityRefusals are about reading every row of a table whose row security is
// forced on its owner.
func rowSecurityRefusals(server *schema.Server, table *schema.Table) []*shadow.Refusal {
	security, role := server.RowSecurity, pg.Ident(server.Role)
	switch {
	case !security.Forced || security.OwnerBypasses:
		return nil
	case !security.RoleBypasses:
		return []*shadow.Refusal{{Check: "row security", Reason: fmt.Sprintf("row security is forced on %s, the owner of %s, and role %s does not bypass it either", table.Owner, table, server.Role),
			Remedy: "log in as a role that does (ALTER ROLE " + role + " BYPASSRLS), or ALTER TABLE " + table.Quoted() + " NO FORCE ROW LEVEL SECURITY for the change"}}
	case !security.RoleReads:
		return []*shadow.Refusal{{Check: "row security", Reason: fmt.Sprintf("row security is forced on %s, the owner of %s, and role %s, which bypasses it, may not read the table", table.Owner, table, server.Role),
			Remedy: "GRANT SELECT ON " + table.Quoted() + " TO " + role}}
	default:
		return nil
	}
}

// dropSource removes the view by which the original was read.
func (m *Migration) dropSource(ctx context.Context, names shadow.Names) error {
	return m.dropSchema(ctx, names.SourceSchema(), "CASCADE")
}

// dropCode removes the functions within which the owner's code ran.
func (m *Migration) dropCode(ctx context.Context, names shadow.Names) error {
	return m.dropSchema(ctx, names.CodeSchema(), "CASCADE")
}

// confined runs statements that name everything by its schema as their owner.
func (m *Migration) confined(names shadow.Names) pg.Confined {
	confined := names.Confined(m.target.table.Owner, "")
	confined.Others = m.otherOwners()
	return confined
}
