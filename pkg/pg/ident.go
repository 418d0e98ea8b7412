package pg

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Ident quotes one identifier, or a qualified name given part by part.
func Ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// Idents quotes each name and joins them with commas.
func Idents(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = Ident(name)
	}
	return strings.Join(quoted, ", ")
}

// Literal quotes a string constant for the few utility statements that take no
// parameters (COMMENT ON, SET). It is right under standard_conforming_strings=on,
// which every session of this package pins.
func Literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
