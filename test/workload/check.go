package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Map says how one column is compared.
type Map struct {
	// Table and Mirror are SQL expressions over the columns of the table (as it is now) and of the mirror (as it was).
	// Their text forms must be equal. Empty: the column itself.
	Table, Mirror string
	// Skip leaves the column out: it was dropped.
	Skip bool
}

// Mapping says how columns are compared that the change has altered, by their names in the Spec, e.g.
//
//	Mapping{
//		"status": {Table: "state"},                     // renamed
//		"amount": {Mirror: "amount::numeric(14,4)"},    // another type, that prints differently
//		"note":   {Skip: true},                         // dropped
//		"total":  {Table: "total", Mirror: "2 * n"},    // not in the Spec: an added generated column
//	}
//
// Columns it does not name map to themselves: a change from integer to bigint needs nothing.
type Mapping map[string]Map

// Difference is what table and mirror hold for one key.
type Difference struct {
	Key     []string // values of the key's columns, in text form
	What    string   // "lost", "resurrected", "duplicated" or "changed"
	Details string   // for people
}

// DiffError is Check's error when table and mirror do not hold the same rows.
type DiffError struct {
	Table       string
	Rows        int          // differing rows, counted in the table and in the mirror alike
	Differences []Difference // the first ones in the byte order of the key, at most 10
}

// Error lists the differences.
func (e *DiffError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s and its mirror differ, %d rows", e.Table, e.Rows)
	for _, d := range e.Differences {
		key := make([]string, len(d.Key))
		for i, k := range d.Key {
			key[i] = shorten(k, 60)
		}
		fmt.Fprintf(&b, "\n  key %q %s: %s", key, d.What, d.Details)
	}
	return b.String()
}

// Check compares the table and its mirror as multisets, both ways, in one snapshot: a *DiffError tells the first rows that
// are in one and not, or not as often, in the other. Values are compared by their text forms, byte by byte, so that what
// a type holds equal (1.0 and 1.00, the letters of a citext) is told apart; values of more than 256 bytes by length and
// MD5. It reads both tables from end to end without an index, some seconds per million rows. It may run while writers do.
func Check(ctx context.Context, conn *pgx.Conn, spec *Spec, mapping Mapping) (err error) {
	names, sql, err := checkStatement(spec, mapping)
	if err != nil {
		return fmt.Errorf("checking %s: %w", spec.Table, err)
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("checking %s: beginning: %w", spec.Table, err)
	}
	defer func() { err = errors.Join(err, tx.Rollback(context.WithoutCancel(ctx))) }()
	settings := "SET LOCAL work_mem = '256MB'; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL row_security = off; " +
		"SET LOCAL extra_float_digits = 1; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off"
	if _, err := tx.Exec(ctx, settings, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("checking %s: setting up: %w", spec.Table, err)
	}
	images, total, err := readImages(ctx, tx, sql)
	if err != nil {
		return fmt.Errorf("checking %s: %w", spec.Table, err)
	}
	if len(images) == 0 {
		return nil
	}
	return &DiffError{Table: spec.Table, Rows: total, Differences: differences(names, images)}
}

// mostImages is how many differing rows are read: both sides of ten keys, and some duplicates.
const mostImages = 40

// image is a row that is not as often in the table as in the mirror.
type image struct {
	key, vals       []*string
	inTable, inMirr int
}

func readImages(ctx context.Context, tx pgx.Tx, sql string) ([]image, int, error) {
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, 0, fmt.Errorf("comparing: %w", err)
	}
	var total int
	images, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (image, error) {
		var i image
		return i, r.Scan(&i.key, &i.vals, &i.inTable, &i.inMirr, &total)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("comparing: %w", err)
	}
	return images, total, nil
}

// checkStatement returns the names of the compared columns and the SQL. It is pure.
func checkStatement(spec *Spec, mapping Mapping) (names []string, sql string, err error) {
	known := map[string]bool{}
	var exprs [2][]string // of the values
	var keys [2][]string
	for _, c := range spec.columns() {
		known[c.Name] = true
		m := mapping[c.Name]
		isKey := indexOf(spec.Key, c.Name) >= 0
		if m.Skip && isKey {
			return nil, "", fmt.Errorf("column %q belongs to the key: it cannot be skipped", c.Name)
		}
		if m.Skip {
			continue
		}
		names = append(names, c.Name)
		for on, expr := range []string{m.Table, m.Mirror} {
			if expr == "" {
				expr = quote(c.Name)
			}
			exprs[on] = append(exprs[on], imageOf(expr))
		}
	}
	for _, c := range spec.Key {
		m := mapping[c.Name]
		for on, expr := range []string{m.Table, m.Mirror} {
			if expr == "" {
				expr = quote(c.Name)
			}
			keys[on] = append(keys[on], `(`+expr+`)::text COLLATE "C"`)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mapping)) {
		m := mapping[name]
		if known[name] {
			continue
		}
		if m.Table == "" || m.Mirror == "" {
			return nil, "", fmt.Errorf("column %q is not in the spec: it needs an expression for both sides", name)
		}
		names = append(names, name)
		exprs[onTable], exprs[onMirror] = append(exprs[onTable], imageOf(m.Table)), append(exprs[onMirror], imageOf(m.Mirror))
	}
	half := func(on side, from, counts string) string {
		return "SELECT ARRAY[" + strings.Join(keys[on], ", ") + "] AS k, ARRAY[" + strings.Join(exprs[on], ", ") + "] AS v, " + counts + " FROM " + from
	}
	return names, fmt.Sprintf("SELECT k, v, sum(t)::int, sum(m)::int, (count(*) OVER ())::int FROM (%s UNION ALL %s) rows "+
		"GROUP BY k, v HAVING sum(t) <> sum(m) ORDER BY k, v LIMIT %d",
		half(onTable, spec.Table, "1 AS t, 0 AS m"), half(onMirror, spec.Mirror, "0, 1"), mostImages), nil
}

// imageOf returns an expression for the text form of a value, short enough to be sorted.
func imageOf(expr string) string {
	text := "(" + expr + ")::text"
	return "CASE WHEN octet_length(" + text + ") > 256 THEN octet_length(" + text + ") || ' bytes, md5 ' || md5(" + text + ") ELSE " + text + ` END COLLATE "C"`
}

// differences groups the images, which are in the order of their keys, by key.
func differences(names []string, images []image) []Difference {
	var out []Difference
	for len(images) > 0 && len(out) < 10 {
		n := 1
		for n < len(images) && row(images[n].key).equal(images[0].key, nil) {
			n++
		}
		out = append(out, difference(names, images[:n]))
		images = images[n:]
	}
	return out
}

// difference says what is the matter with one key.
func difference(names []string, images []image) Difference {
	var d Difference
	for _, k := range images[0].key {
		if k == nil {
			d.Key = append(d.Key, "NULL")
		} else {
			d.Key = append(d.Key, *k)
		}
	}
	var table, mirror *image
	extra := 0
	for i := range images {
		if images[i].inTable > images[i].inMirr {
			table = &images[i]
		} else {
			mirror = &images[i]
		}
		extra += images[i].inTable - images[i].inMirr
	}
	switch {
	case extra == 0 && table != nil && mirror != nil:
		d.What = "changed"
		var cols []string
		for i, name := range names {
			if t, m := (row{table.vals[i]}), (row{mirror.vals[i]}); !t.equal(m, nil) {
				cols = append(cols, fmt.Sprintf("%s is %v in the table, %v in the mirror", name, t, m))
			}
		}
		d.Details = strings.Join(cols, "; ")
	case mirror == nil && table.inMirr > 0, mirror != nil && table != nil:
		d.What = "duplicated"
		d.Details = fmt.Sprintf("%d times in the table, %d times in the mirror: %v", table.inTable, table.inMirr, row(table.vals))
	case mirror == nil:
		d.What = "resurrected"
		d.Details = fmt.Sprintf("only in the table: %v", row(table.vals))
	default:
		d.What = "lost"
		d.Details = fmt.Sprintf("only in the mirror: %v", row(mirror.vals))
	}
	return d
}
