package migration

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// refuseVolatile refuses an expression whose value changes from call to call:
// copy, replay and verification must all compute the same.
func (m *Migration) refuseVolatile(ctx context.Context) error {
	var names []string
	for _, expressions := range []map[string]shadow.Expression{m.target.change.Using, m.target.change.Set} {
		for _, expression := range expressions {
			names = append(names, expression.Functions...)
		}
	}
	if len(names) == 0 {
		return nil
	}
	var volatile *string
	// By the name alone the overload is not known: of a system function some may be
	// volatile, as that of timezone for a time of day is before PostgreSQL 15.
	err := m.control.QueryRow(ctx, `SELECT pg_catalog.min(name) FROM (SELECT proname AS name FROM pg_catalog.pg_proc WHERE proname = ANY ($1)
		GROUP BY proname, pronamespace HAVING pg_catalog.bool_and(provolatile = 'v') OR pronamespace <> 'pg_catalog'::pg_catalog.regnamespace AND pg_catalog.bool_or(provolatile = 'v')) AS volatile`, names).Scan(&volatile)
	if err != nil {
		return fmt.Errorf("looking up the functions of the expressions: %w", err)
	}
	if volatile != nil {
		return &shadow.Refusal{Check: "expression", Reason: fmt.Sprintf("function %s is volatile, so a row would not convert to the same value twice", *volatile),
			Remedy: "use an immutable or stable function; declare yours so if it is"}
	}
	return nil
}

// refuseVolatileCasts refuses a change of type whose conversion is a volatile function of the
// user's, which no expression names.
func (m *Migration) refuseVolatileCasts(ctx context.Context, tx pgx.Tx, changed *schema.Table) error {
	var from, to []uint32
	for _, column := range changed.Columns {
		i := slices.IndexFunc(m.target.table.Columns, func(was schema.Column) bool { return was.Attnum == column.Attnum && was.TypeOID != column.TypeOID })
		if i < 0 {
			continue
		}
		was := m.target.table.Columns[i]
		from = append(from, was.TypeOID, was.TypeOID, was.BaseOID, was.BaseOID)
		to = append(to, column.TypeOID, column.BaseOID, column.TypeOID, column.BaseOID)
	}
	var function *string
	err := tx.QueryRow(ctx, `SELECT pg_catalog.min(p.oid::pg_catalog.regprocedure::pg_catalog.text) FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.oid[])) AS pair(a, b)
		JOIN pg_catalog.pg_cast c ON c.castsource = a AND c.casttarget = b JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc WHERE p.provolatile = 'v'`, from, to).Scan(&function)
	if err != nil {
		return fmt.Errorf("looking up the conversions between types: %w", err)
	}
	if function == nil {
		return nil
	}
	return &shadow.Refusal{Check: "expression", Reason: fmt.Sprintf("function %s, by which a type is cast to another, is volatile, so a row would not convert to the same value twice", *function),
		Remedy: "use an immutable or stable function; declare yours so if it is"}
}
