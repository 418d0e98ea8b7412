package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/throttle"
)

// rightsRefusals name each right that is missing, with the statement that gives it.
func rightsRefusals(server *schema.Server, table *schema.Table) []*shadow.Refusal {
	var all []*shadow.Refusal
	refuse := func(wrong bool, reason, remedy string) {
		if wrong {
			all = append(all, &shadow.Refusal{Check: "rights", Reason: reason, Remedy: remedy})
		}
	}
	role := pg.Ident(server.Role)
	refuse(!server.Rights.Replication, "role "+server.Role+" may not use replication", "ALTER ROLE "+role+" REPLICATION (on RDS: GRANT rds_replication TO "+role+")")
	refuse(!server.Rights.CreateOnDatabase, "role "+server.Role+" may not create schemas in database "+server.Database,
		"GRANT CREATE ON DATABASE "+pg.Ident(server.Database)+" TO "+role)
	member := "GRANT " + pg.Ident(table.Owner) + " TO " + role
	refuse(!server.Rights.MemberOfOwner, "role "+server.Role+" is not a member of "+table.Owner+", the owner of the table", member)
	// From PostgreSQL 16 on each membership has options of its own.
	refuse(server.Rights.MemberOfOwner && !server.Rights.SetOwner, "role "+server.Role+" may not SET ROLE to "+table.Owner+", the owner of the table",
		member+" WITH SET TRUE")
	return append(all, ownerRefusals(server, table)...)
}

// ownerRefusals are about rights of the table's owner, as whom everything on the
// shadow is done. A login role that does not inherit them cannot stand in for it.
func ownerRefusals(server *schema.Server, table *schema.Table) []*shadow.Refusal {
	var all []*shadow.Refusal
	owner := pg.Ident(table.Owner)
	refuse := func(reason, remedy string) {
		all = append(all, &shadow.Refusal{Check: "rights", Reason: reason, Remedy: remedy})
	}
	rights := server.Rights
	if !rights.InheritsOwner && !rights.OwnerCreateOnDatabase {
		refuse(fmt.Sprintf("role %s does not inherit the rights of %s, which may not create the publication in database %s", server.Role, table.Owner, server.Database),
			"GRANT CREATE ON DATABASE "+pg.Ident(server.Database)+" TO "+owner)
	}
	if !rights.OwnerCreateOnSchema && (!rights.RoleCreateOnSchema || !rights.InheritsOwner) {
		reason := fmt.Sprintf("neither %s nor %s may create in schema %s", table.Owner, server.Role, table.Schema)
		if rights.RoleCreateOnSchema {
			reason = fmt.Sprintf("%s may not create in schema %s, and %s does not inherit its rights", table.Owner, table.Schema, server.Role)
		}
		refuse(reason, "GRANT CREATE ON SCHEMA "+pg.Ident(table.Schema)+" TO "+owner)
	}
	for _, right := range rights.OwnerLacks {
		refuse(fmt.Sprintf("%s, the owner of the table, lacks %s", table.Owner, right), "GRANT "+right+" TO "+owner)
	}
	return all
}

// refuseStats finds in what measuring the throttle's sources came to that the role
// does not see the sessions of others, and returns nil when it does.
func refuseStats(measured error) *shadow.Refusal {
	var rights *throttle.RightsError
	if !errors.As(measured, &rights) {
		return nil
	}
	return &shadow.Refusal{Check: "throttle", Reason: measured.Error(), Remedy: rights.Remedy()}
}

// refuseClosedSchemas finds schemas that the change names, and that the owner, as
// whom it is made, may not look into.
func (m *Migration) refuseClosedSchemas(ctx context.Context) error {
	rows, err := m.control.Query(ctx, `SELECT nspname FROM pg_catalog.pg_namespace
		WHERE nspname = ANY ($1) AND NOT pg_catalog.has_schema_privilege($2::pg_catalog.name, oid, 'USAGE') ORDER BY 1`, m.target.change.Schemas, m.target.table.Owner)
	if err != nil {
		return fmt.Errorf("looking up the schemas that the change names: %w", err)
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking up the schemas that the change names: %w", err)
	}
	var all []*shadow.Refusal
	for _, name := range closed {
		right := "USAGE ON SCHEMA " + pg.Ident(name)
		all = append(all, &shadow.Refusal{Check: "rights", Reason: fmt.Sprintf("%s, the owner of the table, lacks %s, which the change names", m.target.table.Owner, right),
			Remedy: "GRANT " + right + " TO " + pg.Ident(m.target.table.Owner)})
	}
	return refuseAll(all)
}

// refuseRights makes a refusal of the server's no to a right in building the shadow;
// nothing is left of it then. PostgreSQL names the object, and not the right.
func (m *Migration) refuseRights(err error) error {
	if !pg.Is(err, pg.InsufficientRights) {
		return err
	}
	return &shadow.Refusal{Check: "rights", Reason: err.Error(),
		Remedy: fmt.Sprintf("grant what it names to %s, the owner of the table, as whom everything on the shadow is done: USAGE ON SCHEMA, USAGE ON TYPE, EXECUTE ON FUNCTION", m.target.table.Owner)}
}

// refuseUnchecked refuses deferrable constraints where the login role has
// session_replication_role = replica, which it may not be able to change: what checks
// them when a transaction ends would not run in its sessions.
func (m *Migration) refuseUnchecked(ctx context.Context, tx pgx.Tx, changed *schema.Table) error {
	i := slices.IndexFunc(changed.Constraints, func(c schema.Constraint) bool { return c.Deferrable })
	if i < 0 {
		return nil
	}
	var mode string
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.current_setting('session_replication_role')").Scan(&mode); err != nil {
		return fmt.Errorf("reading session_replication_role: %w", err)
	}
	if mode != "replica" {
		return nil
	}
	return &shadow.Refusal{Check: "session_replication_role", Reason: fmt.Sprintf("the changed table has a deferrable constraint %q, which the sessions of %s would not check: their session_replication_role is replica",
		changed.Constraints[i].Name, m.target.server.Role), Remedy: "ALTER ROLE " + pg.Ident(m.target.server.Role) + " SET session_replication_role = 'origin'"}
}
