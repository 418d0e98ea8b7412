package pgtest

import (
	"context"
	"strings"
	"testing"
)

// Dump is what pg_dump --schema-only, with more arguments if given, prints of the database. The schemas pgshadow* and
// the lines that change from one dump to the next are left out, so two databases are alike when their dumps are equal.
func Dump(t testing.TB, db *DB, args ...string) string {
	t.Helper()
	all := append([]string{"--schema-only", "--exclude-schema=pgshadow*", "--dbname=" + db.DSN}, args...)
	text, err := db.source.pgDump(context.WithoutCancel(t.Context()), all...)
	if err != nil {
		t.Fatalf("dumping test database %s: %v", db.Name, err)
	}
	return withoutVolatile(text)
}

var volatile = []string{
	`\restrict `,
	`\unrestrict `,
	"-- Dumped from database version ",
	"-- Dumped by pg_dump version ",
}

func withoutVolatile(dump string) string {
	var kept strings.Builder
	for line := range strings.Lines(dump) {
		if !hasAnyPrefix(line, volatile) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func hasAnyPrefix(line string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
