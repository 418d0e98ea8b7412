package shadow

import (
	"errors"
	"slices"
	"strings"
	"testing"

	pgquery "github.com/wasilibs/go-pgquery"
)

// TestWrite: what is written of an expression is that expression, or an error.
func TestWrite(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"a::bigint", "CAST(a AS numeric(10,2))", "-1::int", "(-1)::int", "a - -1", "-(-a)",
		"a AT TIME ZONE 'UTC'", "extract(epoch from a)", "substring(a from 1 for 2)", "trim(both 'x' from a)", "overlay(a placing 'x' from 1 for 2)", "position('a' in b)",
		"a IS NOT DISTINCT FROM b", "a NOT BETWEEN SYMMETRIC 1 AND 2", "a LIKE 'x' ESCAPE '#'", "a SIMILAR TO 'x'", "collation for (a)", "normalize(a, NFC)",
		"CASE a WHEN 1 THEN 2 END", "ARRAY[[1,2],[3,4]]", "ROW(a,b)", "a NOT IN (1,2)", "a <> ALL(b)", "xmlserialize(content a as text)",
		"json_value(a, '$.x' returning int)", "interval '1' day", "interval(3) '1 day'", "time(3) '10:00'", `'x'::"char"`, "'x'::bpchar",
		"'x'::char(5)", "B'101'", "X'1F'", `E'a\\nb'`, "$$a'b$$", "1e400",
		"9223372036854775808", "0x1F", "a::timestamp(3) with time zone", "a::interval day to second(3)", `a::"My Type"`, "a::int[3]",
		`a COLLATE "C" < b`, "a OPERATOR(pg_catalog.+) b", "a IS NOT UNKNOWN", "(a).b[1]", "a[1:2]", "f(a, VARIADIC b)",
		"f(x => a)", "(a ->> 'x')::int", "(a = 1) = true", "(1 + 2) * 3", "a - (b - c)", "(-2) ^ 2",
		"a::pg_catalog.int4", "a::national character(3)",
	} {
		if sql, err := rewritten(t, expression); err != nil {
			t.Errorf("%s: %v, %s", expression, err, sql)
		}
	}
	for _, expression := range []string{"a::pg_catalog.bpchar", "(ARRAY[a, b])[1]"} {
		if sql, err := rewritten(t, expression); !errors.Is(err, errUnlike) {
			t.Errorf("%s: %v, %s", expression, err, sql)
		}
	}
}

func rewritten(t *testing.T, expression string) (string, error) {
	t.Helper()
	parsing.Lock()
	defer parsing.Unlock()
	tree, err := pgquery.Parse("SELECT " + expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return write(tree.Stmts[0].Stmt)
}

// TestActionTexts: the actions of an --alter are cut where the user begins another.
func TestActionTexts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"ADD CHECK (a > 0)": "ADD CHECK (a > 0)",
		"ADD CHECK (f(a, b) > 0), -- first, of two\n ADD UNIQUE (a, b) ;": "ADD CHECK (f(a, b) > 0)|ADD UNIQUE (a, b)",
		`ALTER "a,b" SET DEFAULT ARRAY[1, 2], ALTER c SET DEFAULT 'x,y'`:  `ALTER "a,b" SET DEFAULT ARRAY[1, 2]|ALTER c SET DEFAULT 'x,y'`,
	} {
		actions := strings.Split(want, "|")
		if got, err := actionsOf(text, len(actions)); err != nil || !slices.Equal(got, actions) {
			t.Errorf("%s: %v, %q", text, err, got)
		}
		if got, err := actionsOf(text, len(actions)+1); err != nil || got != nil {
			t.Errorf("%s has one action more: %v, %q", text, err, got)
		}
	}
}

func actionsOf(text string, actions int) ([]string, error) {
	parsing.Lock()
	defer parsing.Unlock()
	return actionTexts(text, actions)
}
