package pg

import (
	"regexp"
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

var plainIdent = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// Readable renders a qualified name for people, with quotes only where a name
// needs them. It reads back as the same name.
func Readable(parts ...string) string {
	shown := make([]string, len(parts))
	for i, part := range parts {
		shown[i] = part
		if !plainIdent.MatchString(part) {
			shown[i] = Ident(part)
		}
	}
	return strings.Join(shown, ".")
}

// Literal quotes a string constant for the few utility statements that take no
// parameters (COMMENT ON, SET). It reads the same whatever standard_conforming_strings
// is: the owner's code may have set it.
func Literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
