package replay

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// statements are the four that replay consists of. Each takes the dirty keys as
// one text array per key column, from $1 on.
type statements struct {
	// deleteGone deletes the shadow's rows whose original is no longer there.
	deleteGone string
	// deleteAll deletes the shadow's rows of every key given.
	deleteAll string
	// upsert writes what the original holds now.
	upsert string
	// insert does so after deleteAll.
	insert string
}

func newStatements(plan *shadow.Plan) statements {
	keys := plan.Key.Rows(1)
	table := plan.Names.Shadow()
	source := fmt.Sprintf("SELECT %s FROM %s AS o WHERE %s IN (SELECT %s FROM %s AS k)",
		values(plan), plan.Source(), plan.Key.Tuple(shadow.RowAlias), plan.Key.Order("k"), keys)
	insert := fmt.Sprintf("INSERT INTO %s (%s) %s", table, columns(plan), source)

	mapped := make([]string, 0, 2*len(plan.Key))
	onShadow := make([]string, len(plan.ShadowKey))
	sameOriginal := make([]string, 0, 2*len(plan.Key))
	shadowKey := make([]string, len(plan.ShadowKey))
	for i, key := range plan.ShadowKey {
		original := pg.Ident(shadow.RowAlias, plan.Key[i].Name)
		mapped = append(mapped, fmt.Sprintf("%s AS o%d", original, i+1), fmt.Sprintf("%s AS s%d", key.Value, i+1))
		onShadow[i] = fmt.Sprintf("%s = k.s%d", pg.Ident("s", key.Name), i+1)
		sameOriginal = append(sameOriginal, fmt.Sprintf("%s = k.o%d", original, i+1),
			fmt.Sprintf("%s = %s", key.Value, pg.Ident("s", key.Name)))
		shadowKey[i] = key.Name
	}
	remove := fmt.Sprintf("DELETE FROM ONLY %s AS s USING (SELECT %s FROM %s AS o) AS k WHERE %s",
		table, strings.Join(mapped, ", "), keys, strings.Join(onShadow, " AND "))

	return statements{
		deleteGone: fmt.Sprintf("%s AND NOT EXISTS (SELECT FROM %s AS o WHERE %s)",
			remove, plan.Source(), strings.Join(sameOriginal, " AND ")),
		deleteAll: remove,
		upsert:    fmt.Sprintf("%s ON CONFLICT (%s) DO UPDATE SET %s", insert, pg.Idents(shadowKey), assignments(plan)),
		insert:    insert,
	}
}

// SQL are the two statements by which dirty keys are replayed, in their order: the keys
// are one text array per key column, from $1 on.
func SQL(plan *shadow.Plan) (deleteGone, upsert string) {
	all := newStatements(plan)
	return all.deleteGone, all.upsert
}

func columns(plan *shadow.Plan) string {
	names := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		names[i] = column.Name
	}
	return pg.Idents(names)
}

func values(plan *shadow.Plan) string {
	exprs := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		exprs[i] = column.Value
	}
	return strings.Join(exprs, ", ")
}

func assignments(plan *shadow.Plan) string {
	sets := make([]string, len(plan.Columns))
	for i, column := range plan.Columns {
		name := pg.Ident(column.Name)
		sets[i] = fmt.Sprintf("%s = EXCLUDED.%s", name, name)
	}
	return strings.Join(sets, ", ")
}

// classify tells of each key given whether it is at or below low and whether it
// is above high. The comparison is the server's: only it knows a collation's
// order. Bounds that are not a key are decided without asking.
func classify(plan *shadow.Plan, low, high keyset.Watermark) (sql string, args []any) {
	first := len(plan.Key) + 1
	tuple := plan.Key.Tuple("k")
	side := func(mark keyset.Watermark, operator, without string) string {
		if mark.Key == nil {
			return without
		}
		condition, values := plan.Key.Compare(tuple, operator, *mark.Key, first+len(args))
		args = append(args, values...)
		return condition
	}
	belowLow := side(low, "<=", strconv.FormatBool(low.End))
	aboveHigh := side(high, ">", strconv.FormatBool(!high.End))
	return fmt.Sprintf("SELECT %s, %s FROM %s AS k ORDER BY k.%s", belowLow, aboveHigh, plan.Key.Rows(1), keyset.Ordinal), args
}
