package keyset_test

import (
	"fmt"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestRangesPartitionTheTable cuts tables with hard keys at every row: each row
// lies in exactly one of the ranges (lo, hi] between neighbours, and Rows finds
// exactly the keys it is given, in order.
func TestRangesPartitionTheTable(t *testing.T) {
	for _, c := range []struct {
		name, setup string
		key         keyset.Columns
	}{
		{"text in an ICU collation", `CREATE TABLE t (k text COLLATE "en-x-icu" PRIMARY KEY); INSERT INTO t VALUES (''), ('a'), ('A'), ('b'), ('B'), ('ä'), ('z'), ('_'), (' '), ('''')`,
			keyset.Columns{{Name: "k", Type: "text", Collation: `pg_catalog."en-x-icu"`}}},
		{"bytea", `CREATE TABLE t (k bytea PRIMARY KEY); INSERT INTO t VALUES (''), ('\x00'), ('\x0000'), ('\xff'), ('\x5c'), ('\x27')`,
			keyset.Columns{{Name: "k", Type: "bytea"}}},
		{"numeric", `CREATE TABLE t (k numeric PRIMARY KEY); INSERT INTO t VALUES ('-Infinity'), (-1), (0.0), (1.00), (1.000001), ('1e40'), ('Infinity'), ('NaN')`,
			keyset.Columns{{Name: "k", Type: "numeric"}}},
		{"composite, unlike the columns' order", `CREATE TABLE t (a int, b text, c date, PRIMARY KEY (c, a, b)); INSERT INTO t SELECT i % 3, (i % 2)::text, '2024-01-01'::date + i % 4 FROM generate_series(0, 11) i`,
			keyset.Columns{{Name: "c", Type: "date"}, {Name: "a", Type: "integer"}, {Name: "b", Type: "text"}}},
		{"timestamptz with infinities", `CREATE TABLE t (k timestamptz PRIMARY KEY); INSERT INTO t VALUES ('-infinity'), ('4713-01-01 BC'), ('2024-03-31 01:30:00.123456+02'), ('infinity')`,
			keyset.Columns{{Name: "k", Type: "timestamptz"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, c.setup)
			conn := db.Conn(t)
			keys := sortedKeys(t, db, c.key)
			for i := range keys {
				within := keyset.Range{Hi: &keys[i]}
				if i > 0 {
					within.Lo = &keys[i-1]
				}
				predicate, args := c.key.Predicate(c.key.Tuple("o"), within, 1)
				var n int
				if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM t AS o WHERE "+predicate, args...).Scan(&n); err != nil || n != 1 {
					t.Errorf("range %s holds %d rows, %v", within, n, err)
				}
			}
			var n int
			sql := fmt.Sprintf("SELECT count(*) FROM t AS o WHERE %s IN (SELECT %s FROM %s AS k)", c.key.Tuple("o"), c.key.Order("k"), c.key.Rows(1))
			if err := conn.QueryRow(t.Context(), sql, c.key.Arrays(keys[1:])...).Scan(&n); err != nil || n != len(keys)-1 {
				t.Errorf("Rows found %d of %d keys, %v", n, len(keys)-1, err)
			}
		})
	}
}

func sortedKeys(t *testing.T, db *pgtest.DB, key keyset.Columns) []keyset.Key {
	t.Helper()
	rows, err := db.Conn(t).Query(t.Context(), "SELECT "+key.List("o")+" FROM t AS o ORDER BY "+key.Order("o"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var keys []keyset.Key
	for rows.Next() {
		values := make([]string, len(key))
		targets := make([]any, len(key))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, keyset.NewKey(values...))
	}
	if rows.Err() != nil || len(keys) < 3 {
		t.Fatalf("%d keys, %v", len(keys), rows.Err())
	}
	return keys
}
