package shadow

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/schema"
)

var update = flag.Bool("update", false, "write the golden files anew")

var names = Names{RunID: "abcdefghij", Table: "orders"}

// facts reads testdata/orders.json: what schema.Load gave for a table with most
// of what a table can have, and a dropped first column.
func facts(t *testing.T) *schema.Table {
	t.Helper()
	document, err := os.ReadFile(filepath.Join("testdata", "orders.json"))
	if err != nil {
		t.Fatal(err)
	}
	table := &schema.Table{}
	if err := json.Unmarshal(document, table); err != nil {
		t.Fatal(err)
	}
	return table
}

// shadowOf is what the catalog shows of the shadow of a table: the columns
// numbered from 1, and everything in the run's schema.
func shadowOf(t *testing.T, change func(*schema.Table)) *schema.Table {
	t.Helper()
	table := facts(t)
	table.OID, table.Schema = table.OID+1000, names.ShadowSchema()
	attnums := map[int]int{0: 0}
	for i := range table.Columns {
		attnums[table.Columns[i].Attnum] = i + 1
		table.Columns[i].Attnum = i + 1
	}
	for i := range table.Indexes {
		for k, attnum := range table.Indexes[i].Key {
			table.Indexes[i].Key[k] = attnums[attnum]
		}
	}
	var owned []schema.Sequence
	for _, sequence := range table.Sequences {
		if sequence.Identity {
			sequence.Schema, sequence.Attnum = names.ShadowSchema(), attnums[sequence.Attnum]
			owned = append(owned, sequence)
		}
	}
	table.Sequences = owned
	for i := range table.Statistics {
		table.Statistics[i].Schema = names.ShadowSchema()
	}
	if change != nil {
		change(table)
	}
	return table
}

func column(table *schema.Table, name string) *schema.Column {
	for i := range table.Columns {
		if table.Columns[i].Name == name {
			return &table.Columns[i]
		}
	}
	return nil
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path) //nolint:gosec // a file of the test's own
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and read the difference:\n%s", path, got)
	}
}

func list(b *strings.Builder, title string, statements []Statement) {
	fmt.Fprintf(b, "-- %s\n", title)
	for _, s := range statements {
		role := s.Role
		if role == "" {
			role = "(login)"
		}
		fmt.Fprintf(b, "%s: %s; -- %s", role, s.SQL, s.Why)
		for name, value := range s.Settings {
			if value != "" {
				fmt.Fprintf(b, " [%s=%s]", name, value)
			}
		}
		b.WriteString("\n")
	}
}

func TestStatements(t *testing.T) {
	original := facts(t)
	created := shadowOf(t, func(table *schema.Table) {
		table.Grants = append([]schema.Grant{{Grantor: "shop", Grantee: "shop", Privilege: "TRUNCATE"}}, original.Grants[:7]...)
		table.Grants = append(table.Grants, schema.Grant{Grantor: "shop", Grantee: "reader", Privilege: "DELETE"})
	})
	changed := shadowOf(t, func(table *schema.Table) {
		n := column(table, "n")
		n.Name, n.Type, n.BaseType, n.TypeOID, n.BaseOID = "number", "bigint", "bigint", schema.OIDInt8, schema.OIDInt8
		code := column(table, "code")
		code.Type, code.Typmod = "character varying(10)", 14
		table.Columns = append(table.Columns, schema.Column{Attnum: 7, Name: "extra", Type: "integer", BaseType: "integer", TypeOID: schema.OIDInt4, BaseOID: schema.OIDInt4, Typmod: -1})
	})
	plan, err := NewPlan(Inputs{Names: names, Original: original, Shadow: changed, SearchPath: `"public"`, SwapRole: "shop", Change: &Change{
		Using: map[string]Expression{"n": {SQL: "o.n * 10", Columns: []string{"n"}}},
		Set:   map[string]Expression{"extra": {SQL: "o.n + 1", Columns: []string{"n"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	list(&b, "create", Create(original, names))
	list(&b, "grants", Grants(original, created, names))
	list(&b, "strip", plan.Strip)
	for _, build := range plan.Builds {
		list(&b, "create index "+build.Name, build.Create)
		list(&b, "attach "+build.Name, build.Attach)
	}
	list(&b, "marks", plan.Marks)
	list(&b, "swap", plan.Swap)
	b.WriteString("-- columns\n")
	for _, c := range plan.Columns {
		fmt.Fprintf(&b, "%s = %s, compared as %s\n", c.Name, c.Value, c.Compare)
	}
	fmt.Fprintf(&b, "-- key\n%v\n%v\n", plan.Key, plan.ShadowKey)
	golden(t, "orders", b.String())
}

func TestChooseKey(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*schema.Table)
		want   string // index, or the check that refuses
	}{
		{"the primary key", nil, "orders_pkey"},
		{"deferrable", func(t *schema.Table) { primary(t).Immediate = false }, "key"},
		{"not valid yet", func(t *schema.Table) { primary(t).Usable = false }, "key"},
		{"descending", func(t *schema.Table) { primary(t).Plain = false }, "key"},
		{"nullable", func(t *schema.Table) { column(t, "region").NotNull = false }, "key"},
		{"identity nothing", func(t *schema.Table) { t.Storage.ReplicaIdentity = "n" }, "replica identity"},
		{"identity of another index, not usable", func(t *schema.Table) { t.Storage.ReplicaIdentity = "i" }, "key"},
		{"identity of the index", func(t *schema.Table) {
			t.Storage.ReplicaIdentity = "i"
			primary(t).Marks.ReplicaIdentity = true
		}, "orders_pkey"},
		{"identity full", func(t *schema.Table) { t.Storage.ReplicaIdentity = "f" }, "orders_pkey"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := facts(t)
			if c.change != nil {
				c.change(table)
			}
			index, err := ChooseKey(table)
			var refusal *Refusal
			got := index.Name
			if errors.As(err, &refusal) {
				got = refusal.Check
			}
			if got != c.want {
				t.Errorf("chose %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func primary(table *schema.Table) *schema.Index {
	for i := range table.Indexes {
		if table.Indexes[i].Primary {
			return &table.Indexes[i]
		}
	}
	return nil
}

func TestStoredAsNeverCutsShort(t *testing.T) {
	for _, c := range []struct {
		column schema.Column
		want   string
	}{
		{schema.Column{Type: "numeric(10,2)", TypeOID: schema.OIDNumeric, Typmod: 655366}, "(e)::numeric(10,2)"},
		{schema.Column{Type: "character varying", TypeOID: schema.OIDVarchar, Typmod: -1}, "(e)::character varying"},
		{schema.Column{Type: "bit(3)", TypeOID: schema.OIDBit, Typmod: 3},
			`CASE WHEN (e)::bit(3)::pg_catalog."bit" = (e)::pg_catalog."bit" THEN (e)::bit(3) ELSE (e)::pg_catalog."bit" END`},
	} {
		if got := storedAs("e", c.column); got != c.want {
			t.Errorf("%s: %s, want %s", c.column.Type, got, c.want)
		}
	}
}
