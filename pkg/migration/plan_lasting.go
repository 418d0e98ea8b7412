package migration

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// harmless are the volatile functions of PostgreSQL's own that leave nothing behind when
// their transaction is rolled back, and in whose values nobody else takes part.
var harmless = []string{"random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "clock_timestamp", "timeofday", "currval", "lastval",
	"txid_current", "txid_current_if_assigned", "pg_current_xact_id", "pg_current_xact_id_if_assigned"}

// typePartsSQL goes on, in a recursive query types(oid), with what types are made of: that
// of a domain, the elements of an array or a range, the fields of a composite.
const typePartsSQL = `SELECT part.oid FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid, LATERAL (
		SELECT t.typbasetype UNION SELECT t.typelem UNION SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
		UNION SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS part(oid) WHERE part.oid <> 0`

// lastingSQL finds the code that writing a row into the shadow runs, in $1 and $2, and that
// may do what no ROLLBACK takes back: a default of a column that is not among $3, a CHECK of
// the table or of a domain that calls a volatile function, but for those of $4, for
// extensions that only make random values, and for the shadow's own sequences. Its
// functions are in the trees of expressions: the catalog lists no dependency on
// PostgreSQL's own.
const lastingSQL = `WITH RECURSIVE shadow AS (
	SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
), types(oid) AS (
	SELECT a.atttypid FROM pg_catalog.pg_attribute a JOIN shadow ON a.attrelid = shadow.oid WHERE a.attnum > 0 AND NOT a.attisdropped
	UNION ` + typePartsSQL + `
), code AS (
	SELECT pg_catalog.format('the default of column %I', a.attname) AS what, d.adbin::pg_catalog.text AS tree, EXISTS (SELECT FROM pg_catalog.pg_depend o
			WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refclassid = o.classid AND o.refobjid = a.attrelid AND o.deptype = 'a'
			AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) = pg_catalog.format('nextval(%L::regclass)', o.objid::pg_catalog.regclass)) AS own
		FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum JOIN shadow ON shadow.oid = d.adrelid
		WHERE NOT a.attname = ANY ($3)
	UNION ALL
	SELECT pg_catalog.format('constraint %I', c.conname), c.conbin::pg_catalog.text, false FROM pg_catalog.pg_constraint c
		WHERE c.contype = 'c' AND (c.conrelid IN (TABLE shadow) OR c.contypid IN (TABLE types))
)
SELECT DISTINCT code.what || ' calls ' || p.proname FROM code, pg_catalog.regexp_matches(code.tree, ':(?:op)?funcid (\d+)', 'g') AS called(oid)
	JOIN pg_catalog.pg_proc p ON p.oid = called.oid[1]::pg_catalog.oid
	WHERE NOT code.own AND p.provolatile = 'v' AND NOT (p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND p.proname = ANY ($4))
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
		AND d.objid = p.oid AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' AND e.extname IN ('uuid-ossp', 'pgcrypto'))
	ORDER BY 1`

// lasting lists what keeps rows from being tried: a plan leaves nothing.
func (p *planner) lasting(ctx context.Context, tx pgx.Tx, plan *shadow.Plan) ([]string, error) {
	if err := plan.Confined().Leave(ctx, tx); err != nil {
		return nil, err
	}
	given := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		given[i] = column.Name
	}
	rows, err := tx.Query(ctx, lastingSQL, plan.Names.ShadowSchema(), plan.Names.Table, given, harmless)
	if err != nil {
		return nil, fmt.Errorf("looking for what lasts beyond a rollback: %w", err)
	}
	calls, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("looking for what lasts beyond a rollback: %w", err)
	}
	return calls, nil
}
