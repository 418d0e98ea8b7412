package migration

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// refuseLosses refuses a change that may lose something of values, unless that is
// allowed.
func (m *Migration) refuseLosses(losses []shadow.Loss) error {
	if len(losses) == 0 || m.config.AllowLossy {
		return nil
	}
	reasons := make([]string, len(losses))
	for i, loss := range losses {
		reasons[i] = fmt.Sprintf("column %q: %s", loss.Column, loss.Reason)
	}
	return &shadow.Refusal{Check: "lossy", Reason: "the change may lose something: " + strings.Join(reasons, "; "),
		Remedy: "give --allow-lossy if that is meant; pgshadow plan says how many rows lose something"}
}

const (
	coercibleSQL = "SELECT castsource, casttarget FROM pg_catalog.pg_cast WHERE castmethod = 'b'"
	// elementsSQL finds those of the arrays among the types $1, but for arrays of domains and
	// of rows, of which it is not known what they hold.
	elementsSQL = "SELECT typarray, oid FROM pg_catalog.pg_type WHERE typarray = ANY ($1) AND typtype NOT IN ('c', 'd')"
	// unreadableSQL finds those of the types $1 that have a part of a type of $2.
	unreadableSQL = `SELECT whole.oid, whole.oid FROM (SELECT DISTINCT pg_catalog.unnest($1::pg_catalog.oid[])) AS whole(oid)
		WHERE EXISTS (WITH RECURSIVE types(oid) AS (SELECT whole.oid UNION ` + typePartsSQL + `) SELECT FROM types WHERE types.oid = ANY ($2))`
	utcSQL = "SELECT pg_catalog.upper(pg_catalog.current_setting('TimeZone')) IN ('UTC', 'ETC/UTC', 'GMT', 'ETC/GMT', 'UCT', 'ETC/UCT', 'ZULU', 'UNIVERSAL')"
)

// conversions asks the server what it says of conversions between the types of columns.
func conversions(ctx context.Context, tx pgx.Tx, columns []schema.Column) (shadow.Conversions, error) {
	var types []uint32
	for _, column := range columns {
		types = append(types, column.TypeOID, column.BaseOID)
	}
	c := shadow.Conversions{Coercible: map[[2]uint32]bool{}, Elements: map[uint32]uint32{}, Unreadable: map[uint32]bool{}}
	for _, ask := range []struct {
		sql   string
		args  []any
		found func(a, b uint32)
	}{
		{coercibleSQL, nil, func(a, b uint32) { c.Coercible[[2]uint32{a, b}] = true }},
		{elementsSQL, []any{types}, func(array, element uint32) { c.Elements[array] = element }},
		{unreadableSQL, []any{types, shadow.Unreadable}, func(whole, _ uint32) { c.Unreadable[whole] = true }},
	} {
		rows, err := tx.Query(ctx, ask.sql, ask.args...)
		if err != nil {
			return c, fmt.Errorf("reading what the types are: %w", err)
		}
		pairs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ A, B uint32 }])
		if err != nil {
			return c, fmt.Errorf("reading what the types are: %w", err)
		}
		for _, pair := range pairs {
			ask.found(pair.A, pair.B)
		}
	}
	if err := tx.QueryRow(ctx, utcSQL).Scan(&c.UTC); err != nil {
		return c, fmt.Errorf("reading the time zone: %w", err)
	}
	return c, nil
}
