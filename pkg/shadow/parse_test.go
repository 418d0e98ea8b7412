package shadow

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseTakesOutUsing(t *testing.T) {
	change, err := Parse("orders", []string{
		"RENAME COLUMN a TO b",
		`ALTER COLUMN b TYPE bigint USING b::bigint, ALTER COLUMN c TYPE text USING orders.c || lower("D") || b, ADD COLUMN n int`,
		"RENAME COLUMN c TO a, ADD COLUMN m int",
	}[:2], map[string]string{"n": "a + length(c)"})
	if err != nil {
		t.Fatal(err)
	}
	for column, want := range map[string]Expression{
		"a": {SQL: "o.a::bigint", Columns: []string{"a"}, PlainCast: true},
		"c": {SQL: `(o.c || lower(o."D")) || o.a`, Columns: []string{"c", "D", "a"}, Functions: []string{"lower"}},
	} {
		if got := change.Using[column]; got.SQL != want.SQL || strings.Join(got.Columns, " ") != strings.Join(want.Columns, " ") || got.PlainCast != want.PlainCast ||
			strings.Join(got.Functions, " ") != strings.Join(want.Functions, " ") {
			t.Errorf("USING of %s: %+v, want %+v", column, got, want)
		}
	}
	if got := change.Set["n"].SQL; got != "o.a + length(o.c)" {
		t.Errorf("--set n: %s", got)
	}
}

func TestParseTakesOrdinaryActions(t *testing.T) {
	for _, text := range []string{
		"ADD COLUMN x int", "DROP COLUMN x CASCADE", "ALTER x TYPE varchar(3) COLLATE \"C\"", "ALTER x SET DEFAULT 1, ALTER y DROP NOT NULL",
		"ADD CONSTRAINT c CHECK (x > 0) NOT VALID", "ADD UNIQUE (x)", "ADD EXCLUDE USING gist (r WITH &&)", "DROP CONSTRAINT c, VALIDATE CONSTRAINT d",
		"ALTER x ADD GENERATED ALWAYS AS IDENTITY", "SET (fillfactor = 50), RESET (autovacuum_enabled)", "SET TABLESPACE fast", "CLUSTER ON i", "SET WITHOUT CLUSTER",
		"REPLICA IDENTITY FULL", "RENAME COLUMN x TO y", "RENAME CONSTRAINT x TO y", "ADD COLUMN x int -- a comment", "* ADD COLUMN x int",
	} {
		if _, err := Parse("orders", []string{text}, nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestParseTakesNewerActions: what PostgreSQL 18 has new is read as what is nearest to it in 17.
func TestParseTakesNewerActions(t *testing.T) {
	for text, want := range map[string]string{
		`ADD COLUMN v int GENERATED ALWAYS AS (n * (2)) VIRTUAL, ADD x int`:                      `ADD COLUMN v int GENERATED ALWAYS AS (n * (2)) STORED, ADD x int`,
		`ADD COLUMN v int generated always as (n), ADD w int GENERATED ALWAYS AS IDENTITY`:       `ADD COLUMN v int generated always as (n) STORED, ADD w int GENERATED ALWAYS AS IDENTITY`,
		`ADD CHECK (n > 0) NOT /* at all */ ENFORCED, ADD enforced int CHECK ("not" > enforced)`: `ADD CHECK (n > 0) , ADD enforced int CHECK ("not" > enforced)`,
		`ADD CHECK (n > 0) ENFORCED`: `ADD CHECK (n > 0) `,
		`ADD CONSTRAINT "a b" NOT NULL "N" NOT VALID, ADD COLUMN y int NOT NULL DEFAULT 1`: `ADD CONSTRAINT "a b" CHECK (true) NOT VALID, ADD COLUMN y int NOT NULL DEFAULT 1`,
		`ADD NOT NULL n NO INHERIT`:                     `ADD CHECK (true) NO INHERIT`,
		`ADD PRIMARY KEY (id, during WITHOUT OVERLAPS)`: `ADD PRIMARY KEY (id, during )`,
	} {
		if older, err := inOlderGrammar(text); err != nil || older != want {
			t.Errorf("%s: read as %q, %v", text, older, err)
		}
		if change, err := Parse("orders", []string{text}, nil); err != nil || change.Alters[0] != text {
			t.Errorf("%s: %+v, %v", text, change, err)
		}
	}
	_, err := Parse("orders", []string{"ADD CHECK (n > 0) NOT ENFORCED, ADD nonsense"}, nil)
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Position != 23 {
		t.Errorf("%v, want the error of the text as it stands", err)
	}
	for enforcement, reads := range map[string]bool{"ENFORCED": true, "NOT ENFORCED": false} {
		change, err := Parse("orders", []string{"ADD FOREIGN KEY (id, PERIOD during) REFERENCES other (id, PERIOD during) " + enforcement}, nil)
		if err != nil || change.NoShadow == nil || change.NoShadow.Check != "foreign key" || change.InPlace[0].Pieces != nil || change.InPlace[0].ValidatesKey != reads {
			t.Errorf("%q: %+v, %v", enforcement, change, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		alters []string
		check  string
	}{
		{[]string{"ADD COLUMN x int; DROP TABLE orders"}, "alter"},
		{[]string{"ADD COLUMN x int;; SELECT 1"}, "alter"},
		{[]string{"ADD COLUMN x int /* ; */ ; /* */ DROP TABLE t"}, "alter"},
		{[]string{"RENAME TO other"}, "alter"},
		{[]string{"SET SCHEMA other"}, "alter"},
		{[]string{"OWNER TO other"}, "alter"},
		{[]string{"ATTACH PARTITION p DEFAULT"}, "alter"},
		{[]string{"INHERIT p"}, "alter"},
		{[]string{"ENABLE ROW LEVEL SECURITY"}, "alter"},
		{[]string{"DISABLE TRIGGER ALL"}, "alter"},
		{[]string{"SET UNLOGGED"}, "alter"},
		{[]string{".other ADD COLUMN x int"}, "alter"},
		{[]string{"ADD FOREIGN KEY (x) REFERENCES y"}, "foreign key"},
		{[]string{"ADD COLUMN x int REFERENCES y"}, "foreign key"},
		{[]string{"ALTER x TYPE int USING (SELECT 1)"}, "expression"},
		{[]string{"ALTER x TYPE int USING now()::text::int"}, "expression"},
		{[]string{"ALTER x TYPE timestamptz USING LOCALTIMESTAMP"}, "expression"},
		{[]string{"ALTER x TYPE text USING orders.*::text"}, "expression"},
		{[]string{"ALTER x TYPE text USING other.x"}, "expression"},
		{[]string{"ADD COLUMN n int", "ALTER x TYPE text USING n::text"}, "expression"},
		{[]string{"ALTER x TYPE text", "ALTER y TYPE text USING x"}, "expression"},
		{[]string{"DROP COLUMN n", "ALTER x TYPE text USING n::text"}, "expression"},
		{[]string{"ALTER x TYPE text", "ALTER x TYPE varchar(3)"}, "alter"},
	} {
		change, err := Parse("orders", c.alters, nil)
		var refusal *Refusal
		if err == nil && change.NoShadow != nil {
			err = change.NoShadow // PostgreSQL may do it still
		}
		if !errors.As(err, &refusal) || refusal.Check != c.check || refusal.Remedy == "" {
			t.Errorf("%q: %v, want a refusal by check %q", c.alters, err, c.check)
		}
	}
}

func TestSyntaxErrorPosition(t *testing.T) {
	for text, want := range map[string]int{
		"ALTER COLUMN v TIPE bigint":          16,
		`ALTER COLUMN "näme äöü" TIPE bigint`: 25,
		"ADD COLUMN x int DEFAULT 'open":      26,
		"ALTER TABLE orders ADD COLUMN x":     7,
		"":                                    1,
	} {
		_, err := Parse("orders", []string{text}, nil)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Position != want || syntax.Text != text {
			t.Errorf("%q: %v (%+v), want position %d", text, err, syntax, want)
		}
	}
}

// TestParseReferences: the foreign keys that are added, with the columns at both ends.
func TestParseReferences(t *testing.T) {
	t.Parallel()
	const text = `ADD FOREIGN KEY (a, "B") REFERENCES s."T" (x, y) MATCH FULL, ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u, ADD COLUMN z int DEFAULT 1 REFERENCES v (w) DEFERRABLE, ADD FOREIGN KEY (q) REFERENCES u NOT VALID`
	change, err := Parse("t", []string{text}, nil)
	want := []Reference{{Columns: []string{"a", "B"}, Schema: "s", Table: "T", Referenced: []string{"x", "y"}, Full: true}, {Columns: []string{"a"}, Table: "u"},
		{Columns: []string{"z"}, Table: "v", Referenced: []string{"w"}}, {Columns: []string{"q"}, Table: "u", Late: true}}
	if err != nil || !reflect.DeepEqual(change.References, want) {
		t.Errorf("%v: got %+v, want %+v", err, change.References, want)
	}
}
