package workload

import (
	"fmt"
	"strings"
)

// side is one of the two tables.
type side int

const (
	onTable side = iota
	onMirror
)

// statements builds the SQL of the writers. It is pure. Keys in WHERE are literals without a type, so that they stay
// comparable whatever the column's type becomes; written values are cast to Column.Type.
type statements struct {
	spec   *Spec
	names  [2]string
	values []Column // the written value columns
	cols   []Column // key and values: what every statement returns
	key    string   // quoted key columns
	ret    string   // RETURNING list
}

func newStatements(spec *Spec, values []Column) *statements {
	q := &statements{spec: spec, names: [2]string{spec.Table, spec.Mirror}, values: values, key: quoted(spec.Key)}
	q.cols = append(append(q.cols, spec.Key...), values...)
	exprs := make([]string, len(q.cols))
	for i, c := range q.cols {
		exprs[i] = c.text()
	}
	q.ret = " RETURNING " + strings.Join(exprs, ", ")
	return q
}

// text returns the expression of the column's text form; of a long value only the hash.
func (c Column) text() string {
	expr := quote(c.Name) + "::text"
	if c.Type != "" {
		expr = quote(c.Name) + "::" + c.Type + "::text"
	}
	if c.Toast {
		return "md5(" + expr + ")"
	}
	return expr
}

// placeholder returns parameter n as a value of the column.
func (c Column) placeholder(n int) string {
	if c.Type == "" {
		return fmt.Sprintf("$%d", n)
	}
	return fmt.Sprintf("$%d::text::%s", n, c.Type)
}

// placeholders returns the parameters from n on as values of the columns.
func placeholders(cols []Column, n int) string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = c.placeholder(n + i)
	}
	return strings.Join(out, ", ")
}

// where matches the key in the parameters from n on.
func (q *statements) where(n int) string {
	terms := make([]string, len(q.spec.Key))
	for i, c := range q.spec.Key {
		terms[i] = fmt.Sprintf("%s = $%d", quote(c.Name), n+i)
	}
	return strings.Join(terms, " AND ")
}

// whereAny matches the n keys in the parameters from the first on.
func (q *statements) whereAny(first, n int) string {
	terms := make([]string, n)
	for i := range terms {
		terms[i] = "(" + q.where(first+i*len(q.spec.Key)) + ")"
	}
	return "(" + strings.Join(terms, " OR ") + ")"
}

// absent holds if no row of the target has the key in the parameters from n on.
func (q *statements) absent(on side, n int) string {
	return "NOT EXISTS (SELECT FROM " + q.names[on] + " WHERE " + q.where(n) + ")"
}

// insert inserts one row of the given columns; with guard only if its key, that comes first in cols, is not there.
func (q *statements) insert(on side, cols []Column, guard bool) string {
	sql := "INSERT INTO " + q.names[on] + " (" + quoted(cols) + ") " + q.spec.overriding()
	if guard {
		return sql + "SELECT " + placeholders(cols, 1) + " WHERE " + q.absent(on, 1) + q.ret
	}
	return sql + "VALUES (" + placeholders(cols, 1) + ")" + q.ret
}

// insertMany inserts n rows of all columns; on the table it leaves out those that conflict with another row.
func (q *statements) insertMany(on side, n int) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = "(" + placeholders(q.cols, 1+i*len(q.cols)) + ")"
	}
	sql := "INSERT INTO " + q.names[on] + " (" + quoted(q.cols) + ") " + q.spec.overriding() + "VALUES " + strings.Join(rows, ", ")
	if on == onTable {
		sql += " ON CONFLICT DO NOTHING"
	}
	return sql + q.ret
}

// upsert inserts one row of all columns or sets the given ones.
func (q *statements) upsert(on side, set []Column) string {
	sets := make([]string, len(set))
	for i, c := range set {
		sets[i] = quote(c.Name) + " = EXCLUDED." + quote(c.Name)
	}
	action := "UPDATE SET " + strings.Join(sets, ", ")
	if len(set) == 0 {
		action = "UPDATE SET " + quote(q.spec.Key[0].Name) + " = EXCLUDED." + quote(q.spec.Key[0].Name)
	}
	return "INSERT INTO " + q.names[on] + " (" + quoted(q.cols) + ") " + q.spec.overriding() + "VALUES (" +
		placeholders(q.cols, 1) + ") ON CONFLICT (" + q.key + ") DO " + action + q.ret
}

// set returns the SET list of the columns with the parameters from n on.
func set(cols []Column, n int) string {
	sets := make([]string, len(cols))
	for i, c := range cols {
		sets[i] = quote(c.Name) + " = " + c.placeholder(n+i)
	}
	return strings.Join(sets, ", ")
}

// filter narrows a statement on the table: a further condition, and whether to pass by rows that others have locked.
type filter struct {
	more string
	skip bool
}

// apply returns the WHERE clause of a statement on the table.
func (f filter) apply(q *statements, where string) string {
	if f.more != "" {
		where += " AND " + f.more
	}
	if f.skip {
		where += " AND (" + q.key + ") IN (SELECT " + q.key + " FROM " + q.spec.Table + " WHERE " + where + " FOR UPDATE SKIP LOCKED)"
	}
	return " WHERE " + where
}

// update sets columns of the n rows whose keys come after the values.
func (q *statements) update(on side, cols []Column, n int, f filter) string {
	return "UPDATE " + q.names[on] + " SET " + set(cols, 1) + f.apply(q, q.whereAny(1+len(cols), n)) + q.ret
}

// remove deletes the n rows with the keys in the parameters.
func (q *statements) remove(on side, n int, f filter) string {
	return "DELETE FROM " + q.names[on] + f.apply(q, q.whereAny(1, n)) + q.ret
}

// lock reads a column of the row with the key in the parameters; in the table, if it is not NULL, and locks the row.
func (q *statements) lock(on side, c Column, f filter) string {
	sql := "SELECT " + c.text() + " FROM " + q.names[on] + " WHERE " + q.where(1)
	if on == onTable {
		sql += " AND " + quote(c.Name) + " IS NOT NULL FOR UPDATE"
	}
	if on == onTable && f.skip {
		sql += " SKIP LOCKED"
	}
	return sql
}

// exists reads one row if the table has the key in the parameters.
func (q *statements) exists() string {
	return "SELECT 'yes' FROM " + q.spec.Table + " WHERE " + q.where(1)
}

// copyIn is COPY of all columns in text format.
func (q *statements) copyIn(on side) string {
	return "COPY " + q.names[on] + " (" + quoted(q.cols) + ") FROM STDIN"
}

// keyRange matches the keys from the one in the parameters at n up to, without, the next one.
func (q *statements) keyRange(n int) string {
	bound := func(n int) string {
		params := make([]string, len(q.spec.Key))
		for i := range params {
			params[i] = fmt.Sprintf("$%d", n+i)
		}
		return "(" + strings.Join(params, ", ") + ")"
	}
	row := "(" + q.key + ")"
	return row + " >= " + bound(n) + " AND " + row + " < " + bound(n+len(q.spec.Key))
}
