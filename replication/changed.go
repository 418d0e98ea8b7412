package replication

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// ErrChanged says that the original is no longer what was planned for.
var ErrChanged = errors.New("the original was changed during the run")

// maxTold is how many differences an error names one by one.
const maxTold = 5

// Changed is ErrChanged with the table's name for people and what is not as it
// was, a sentence each.
func Changed(table string, differences []string) error {
	told := differences[:min(len(differences), maxTold)]
	more := ""
	if left := len(differences) - len(told); left > 0 {
		more = fmt.Sprintf("; and %d more", left)
	}
	return fmt.Errorf("%w: %s: %s%s", ErrChanged, table, strings.Join(told, "; "), more)
}

// compare holds the server's relation message against what was planned for. It
// returns the columns in the order of the stream's tuples, or ErrChanged.
func (s *Stream) compare(m *pglogrepl.RelationMessage) ([]StreamColumn, error) {
	columns := make([]StreamColumn, len(m.Columns))
	for i, column := range m.Columns {
		columns[i] = StreamColumn{Name: column.Name, Type: column.DataType, Typmod: column.TypeModifier}
	}
	var differences []string
	if m.RelationName != s.config.Table {
		differences = append(differences, "the table was renamed to "+pg.Readable(m.RelationName))
	}
	if m.Namespace != s.config.Schema {
		differences = append(differences, "the table was moved to schema "+pg.Readable(m.Namespace))
	}
	differences = append(differences, columnDifferences(s.config.Columns, columns)...)
	if len(differences) > 0 {
		return nil, Changed(pg.Readable(s.config.Schema, s.config.Table), differences)
	}
	return columns, nil
}

// columnDifferences says how two lists of columns differ. The stream knows
// columns by name and place alone.
func columnDifferences(was, now []StreamColumn) (all []string) {
	renamed := map[string]bool{}
	for i, c := range was {
		at := named(now, c.Name)
		switch {
		case at >= 0:
			all = append(all, typeDifference(c, now[at])...)
		case inPlace(i, was, now):
			renamed[now[i].Name] = true
			all = append(all, fmt.Sprintf("column %s was renamed to %s, or dropped and the other added", pg.Readable(c.Name), pg.Readable(now[i].Name)))
		default:
			all = append(all, fmt.Sprintf("column %s was dropped", pg.Readable(c.Name)))
		}
	}
	for _, c := range now {
		if named(was, c.Name) < 0 && !renamed[c.Name] {
			all = append(all, fmt.Sprintf("column %s was added (%s)", pg.Readable(c.Name), typeName(c.Type)))
		}
	}
	if len(all) == 0 && !slices.Equal(was, now) {
		all = append(all, "the columns are in another order")
	}
	return all
}

func named(columns []StreamColumn, name string) int {
	return slices.IndexFunc(columns, func(c StreamColumn) bool { return c.Name == name })
}

// inPlace tells that a new column of the same type stands where the i-th stood.
func inPlace(i int, was, now []StreamColumn) bool {
	return len(was) == len(now) && named(was, now[i].Name) < 0 && was[i].Type == now[i].Type && was[i].Typmod == now[i].Typmod
}

func typeDifference(was, now StreamColumn) []string {
	switch {
	case was.Type != now.Type:
		return []string{fmt.Sprintf("column %s changed its type from %s to %s", pg.Readable(now.Name), typeName(was.Type), typeName(now.Type))}
	case was.Typmod != now.Typmod:
		return []string{fmt.Sprintf("column %s changed the length or precision of its type %s", pg.Readable(now.Name), typeName(now.Type))}
	default:
		return nil
	}
}

// types knows the names of the built-in types: the stream has only the OIDs.
var types = pgtype.NewMap()

func typeName(oid uint32) string {
	if known, ok := types.TypeForOID(oid); ok {
		return known.Name
	}
	return fmt.Sprintf("OID %d", oid)
}
