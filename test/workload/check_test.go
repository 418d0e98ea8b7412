package workload_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/workload"
)

// TestCheckFindsDamage breaks the table, and the table only, on purpose.
func TestCheckFindsDamage(t *testing.T) {
	spec := workload.Orders()
	_, conn := create(t, spec, 200)
	must(t, workload.Check(t.Context(), conn, spec, nil))
	for _, c := range []struct {
		damage, what, key string
		rows              int
	}{
		{"DELETE FROM orders WHERE id = 42", "lost", "42", 1},
		{"INSERT INTO orders (id, customer_id, status, amount) VALUES (43, 1, 'new', 1)", "resurrected", "43", 1},
		{"UPDATE orders SET amount = amount + 0.01 WHERE id = 44", "changed", "44", 2},
		{"UPDATE orders SET note = NULL WHERE id = 46", "changed", "46", 2},
		{"UPDATE orders SET note = '' WHERE id = 48", "changed", "48", 2},
		{"UPDATE orders SET big = upper(big) WHERE id = 128", "changed", "128", 2},
		{"UPDATE orders SET created_at = created_at + interval '1 microsecond' WHERE id = 50", "changed", "50", 2},
		{"ALTER TABLE orders DROP CONSTRAINT orders_pkey, DROP CONSTRAINT orders_code_key; INSERT INTO orders SELECT * FROM orders WHERE id = 52", "duplicated", "52", 1},
		{"ALTER TABLE orders DROP CONSTRAINT orders_pkey; INSERT INTO orders (id, customer_id, status, amount) VALUES (54, 1, 'new', 1)", "resurrected", "54", 1},
		{"UPDATE orders SET id = 57 WHERE id = 56", "lost", "56", 2},
		{"UPDATE orders_mirror SET status = 'NEW' WHERE id = 58", "changed", "58", 2},
		{"TRUNCATE orders", "lost", "-2147483648", 203},
	} {
		t.Run(c.damage, func(t *testing.T) {
			// Check opens a transaction of its own: a savepoint of this one.
			tx, err := conn.Begin(t.Context())
			must(t, err)
			defer func() { must(t, tx.Rollback(t.Context())) }()
			_, err = tx.Exec(t.Context(), c.damage, pgx.QueryExecModeSimpleProtocol)
			must(t, err)
			err = workload.Check(t.Context(), conn, spec, nil)
			diff, ok := errors.AsType[*workload.DiffError](err)
			if !ok {
				t.Fatalf("Check returned %v", err)
			}
			first := diff.Differences[0]
			if diff.Rows != c.rows || first.What != c.what || first.Key[0] != c.key {
				t.Errorf("Check found %v", diff)
			}
			t.Log(diff)
		})
	}
}

// TestCheckTellsEqualValuesApart: what a type holds equal is not the same value.
func TestCheckTellsEqualValuesApart(t *testing.T) {
	for spec, damage := range map[*workload.Spec]string{
		workload.CitextKey():           "UPDATE citext_key SET k = upper(k::text) WHERE k = 'k0000000010'",
		workload.NondeterministicKey(): "UPDATE nondeterministic_key SET k = 'E0000000010' WHERE k = 'e0000000010'",
		workload.NumericKey():          "UPDATE numeric_key SET k = 2.5000 WHERE k = 2.5",
	} {
		t.Run(spec.Name, func(t *testing.T) {
			_, conn := create(t, spec, 100)
			must(t, workload.Check(t.Context(), conn, spec, nil))
			exec(t, conn, damage)
			if err := workload.Check(t.Context(), conn, spec, nil); err == nil {
				t.Error("Check found nothing")
			}
		})
	}
}

func TestMapping(t *testing.T) {
	spec := workload.Orders()
	_, conn := create(t, spec, 200)
	exec(t, conn, "DELETE FROM orders WHERE id IN (-2147483648, 2147483647); DELETE FROM orders_mirror WHERE id IN (-2147483648, 2147483647)")
	exec(t, conn, `ALTER TABLE orders RENAME status TO state; ALTER TABLE orders DROP note, ALTER customer_id TYPE bigint,
		ADD double integer GENERATED ALWAYS AS (2 * id % 1000) STORED`)
	good := workload.Mapping{
		"status": {Table: "state"}, "note": {Skip: true}, "double": {Table: "double", Mirror: "2 * id % 1000"},
	}
	must(t, workload.Check(t.Context(), conn, spec, good))
	for name, bad := range map[string]workload.Mapping{
		"a column that is gone":     {"status": {Table: "state"}},
		"the key left out":          {"id": {Skip: true}},
		"a new column on one side":  {"status": {Table: "state"}, "note": {Skip: true}, "double": {Table: "double"}},
		"an expression that is off": {"status": {Table: "state || '!'"}, "note": {Skip: true}},
	} {
		if err := workload.Check(t.Context(), conn, spec, bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestKeyOf holds every ready-made spec to what it promises of its keys.
func TestKeyOf(t *testing.T) {
	for _, spec := range workload.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			_, conn := create(t, spec, 250)
			exec(t, conn, "SET timezone = 'UTC'")
			var cols, texts []string
			for _, c := range spec.Key {
				cols, texts = append(cols, c.Name), append(texts, c.Name+"::text")
			}
			rows, err := conn.Query(t.Context(), fmt.Sprintf("SELECT ARRAY[%s] FROM %s ORDER BY %s",
				strings.Join(texts, ", "), spec.Table, strings.Join(cols, ", ")), pgx.QueryExecModeSimpleProtocol)
			must(t, err)
			got, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
			must(t, err)
			edges := map[string]bool{}
			for _, e := range spec.Edges {
				edges[fmt.Sprint(e)] = true
			}
			ord, seen := int64(0), 0
			for _, key := range got {
				if edges[fmt.Sprint(key)] {
					seen++
					continue
				}
				ord += 2
				if want := spec.KeyOf(ord); fmt.Sprint(key) != fmt.Sprint(want) {
					t.Fatalf("the key of ordinal %d is %q in the server, %q in the client", ord, key, want)
				}
			}
			if ord != 500 || seen != len(spec.Edges) {
				t.Errorf("found %d rows and %d of %d edge keys", ord/2, seen, len(spec.Edges))
			}
		})
	}
}
