package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// CreateOptions say how Create fills the table. The zero value is fine.
type CreateOptions struct {
	// BigEvery: one in so many initial rows has a long value in the columns that are stored out of line. Default: 64, or
	// what makes about 1000 such rows (8 MB) if that is more.
	BigEvery int
	// Seed for the few rows that are not made in the server. Default 1.
	Seed int64
}

// Create makes the table with the given number of rows, its key, indexes and statistics, and its mirror with the same rows
// and a primary key; neither may be there yet. It blocks until both are analyzed: some seconds per million rows.
func (s *Spec) Create(ctx context.Context, conn *pgx.Conn, rows int, opts CreateOptions) error {
	if err := s.validate(); err != nil {
		return err
	}
	if s.Limit > 0 && int64(2*rows) > s.Limit {
		return fmt.Errorf("creating %s: %d rows, at most %d are possible", s.Table, rows, s.Limit/2)
	}
	if opts.BigEvery <= 0 {
		opts.BigEvery = max(64, rows/1000)
	}
	if opts.Seed == 0 {
		opts.Seed = 1
	}
	sp := newSpace(int64(rows), s.Limit)
	for _, sql := range s.createStatements(rows, sp.size.Load(), opts) {
		if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("creating %s: running %q: %w", s.Table, shorten(sql, 200), err)
		}
	}
	s.space = sp
	return nil
}

// createStatements returns all statements of Create in order.
func (s *Spec) createStatements(rows int, size int64, opts CreateOptions) []string {
	var out []string
	add := func(sql string) { out = append(out, strings.ReplaceAll(sql, "{table}", s.Table)) }
	for _, sql := range s.Before {
		add(sql)
	}
	cols := s.columns()
	defs := make([]string, len(cols))
	for i, c := range cols {
		defs[i] = c.definition()
	}
	add("CREATE TABLE {table} (" + strings.Join(defs, ", ") + ")")
	out = append(out, "CREATE TABLE "+s.Mirror+" (LIKE "+s.Table+" INCLUDING DEFAULTS INCLUDING GENERATED)")
	edges := s.edgeRows(opts.Seed)
	for _, target := range []string{s.Table, s.Mirror} {
		out = append(out, s.fillStatement(target, cols, rows, opts.BigEvery))
		for _, row := range edges {
			out = append(out, "INSERT INTO "+target+" ("+quoted(cols)+") "+s.overriding()+"VALUES ("+row+")")
		}
	}
	if s.UniqueKey {
		add("CREATE UNIQUE INDEX workload_key ON {table} (" + quoted(s.Key) + ")")
		add("ALTER TABLE {table} REPLICA IDENTITY USING INDEX workload_key")
	} else {
		add("ALTER TABLE {table} ADD PRIMARY KEY (" + quoted(s.Key) + ")")
	}
	out = append(out, "ALTER TABLE "+s.Mirror+" ADD PRIMARY KEY ("+quoted(s.Key)+")")
	for _, c := range cols {
		if c.Unique {
			add("ALTER TABLE {table} ADD UNIQUE (" + quote(c.Name) + ")")
		}
		if strings.Contains(c.Def, "serial") || strings.Contains(c.Def, "nextval(") {
			// The mirror must not depend on the table's sequence.
			out = append(out, "ALTER TABLE "+s.Mirror+" ALTER COLUMN "+quote(c.Name)+" DROP DEFAULT")
		}
	}
	if s.Key[0].Server {
		out = append(out, fmt.Sprintf("SELECT setval(pg_get_serial_sequence(%s, %s), %d)",
			literal(s.Table), literal(s.Key[0].Name), size))
	}
	for _, sql := range s.After {
		add(sql)
	}
	return append(out, "ANALYZE "+s.Table, "ANALYZE "+s.Mirror)
}

func (s *Spec) overriding() string {
	if s.FixedKey {
		return "OVERRIDING SYSTEM VALUE "
	}
	return ""
}

// fillStatement inserts the rows with the ordinals 2, 4, ... 2*rows.
func (s *Spec) fillStatement(target string, cols []Column, rows, bigEvery int) string {
	return s.insertOrdinals(target, cols, "(SELECT 2 * i AS ord FROM generate_series(1::bigint, "+strconv.Itoa(rows)+") i) g", bigEvery)
}

// insertOrdinals inserts a row of Fill values for every value of ord in the FROM item.
func (s *Spec) insertOrdinals(target string, cols []Column, from string, bigEvery int) string {
	fills := make([]string, len(cols))
	for i, c := range cols {
		fills[i] = "(" + strings.ReplaceAll(c.Fill, "{big}", strconv.Itoa(bigEvery)) + ")"
		if c.Type != "" {
			fills[i] += "::" + c.Type
		}
	}
	return "INSERT INTO " + target + " (" + quoted(cols) + ") " + s.overriding() + "SELECT " + strings.Join(fills, ", ") +
		" FROM " + from
}

// edgeRows returns the VALUES lists of one row per edge key, in the order of columns().
func (s *Spec) edgeRows(seed int64) []string {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	var out []string
	for _, key := range s.Edges {
		var vals []string
		for _, c := range s.columns() {
			var v any
			if i := indexOf(s.Key, c.Name); i >= 0 {
				v = key[i]
			} else {
				v = c.value(r)
			}
			if text, ok := v.(string); ok {
				vals = append(vals, literal(text))
			} else {
				vals = append(vals, "NULL")
			}
		}
		out = append(out, strings.Join(vals, ", "))
	}
	return out
}

func indexOf(cols []Column, name string) int {
	for i, c := range cols {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// literal returns text as an SQL literal of unknown type.
func literal(text string) string {
	text = strings.ReplaceAll(text, "'", "''")
	if strings.Contains(text, `\`) {
		return " E'" + strings.ReplaceAll(text, `\`, `\\`) + "'"
	}
	return "'" + text + "'"
}

func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[:n] + "..."
}
