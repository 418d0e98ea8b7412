package migration

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const typesToAsk = `CREATE TYPE inner_pair AS (n int, f regproc); CREATE TYPE pair AS (a int, b inner_pair[]); CREATE TYPE plain AS (a int, b text);
	CREATE DOMAIN of_pair AS pair CHECK (true); CREATE DOMAIN of_acl AS aclitem; CREATE TYPE span AS RANGE (SUBTYPE = pair, MULTIRANGE_TYPE_NAME = multispan);`

// TestUnreadableParts: what types are made of is looked for in all their parts.
func TestUnreadableParts(t *testing.T) {
	t.Parallel()
	unreadable := []string{"regproc[]", "regclass[]", "regoper[]", "aclitem", "aclitem[]", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_node_tree",
		"inner_pair", "pair", "pair[]", "of_pair", "of_pair[]", "of_acl", "span", "multispan"}
	readable := []string{"int", "text[]", "plain", "plain[]", "int4range", "regtype", "regrole[]"}
	db := pgtest.New(t)
	db.Exec(t, typesToAsk)
	var columns []string
	for i, name := range slices.Concat(unreadable, readable) {
		columns = append(columns, "c"+string(rune('a'+i))+" "+name)
	}
	db.Exec(t, "CREATE TABLE t ("+strings.Join(columns, ", ")+")")
	oids := pgtest.Scalar[[]uint32](t, db, "SELECT array_agg(atttypid ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0")
	var asked []schema.Column
	for _, oid := range oids {
		asked = append(asked, schema.Column{TypeOID: oid, BaseOID: oid})
	}
	var c shadow.Conversions
	err := pg.InTx(t.Context(), db.Conn(t), pgx.TxOptions{}, func(tx pgx.Tx) (err error) {
		c, err = conversions(t.Context(), tx, asked)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range slices.Concat(unreadable, readable) {
		if c.Unreadable[oids[i]] != (i < len(unreadable)) {
			t.Errorf("%s: %v", name, c.Unreadable[oids[i]])
		}
	}
}

// TestLossyChange: what is refused, and what is said of it.
func TestLossyChange(t *testing.T) {
	for _, c := range []struct{ from, value, to, reason string }{
		{"pair", "(1,)", "text", "not every pair can be had back from text"},
		{"of_pair", "(1,)", "text", "it is not known that every of_pair can be had back from text"},
		{"regproc[]", "{now}", "text", "not every regproc[] can be had back from text"},
		{"aclitem", "=r/postgres", "text", "not every aclitem can be had back from text"},
		{"bigint", "1", "int", "not every bigint can be had back from integer"},
		{"bigint[]", "{1}", "int[]", "not every bigint[] can be had back from integer[]"},
		{"int", "1", "char(20)", "it is not known that every integer can be had back from character(20)"},
		{"plain", "(1,)", "text", ""},
		{"int[]", "{1}", "bigint[]", ""},
		{"varchar(5)[]", "{a}", "varchar(9)[]", ""},
		{"int", "-2147483648", "varchar(11)", ""},
		{"interval hour to minute", "1:59", "interval hour to second", ""},
	} {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, typesToAsk+"CREATE TABLE t (id int PRIMARY KEY, v "+c.from+"); INSERT INTO t VALUES (1, '"+c.value+"')")
			_, err := Run(t.Context(), Config{DSN: db.DSN, Table: "t", Alters: []string{"ALTER COLUMN v TYPE " + c.to}})
			var refusal *shadow.Refusal
			refused := errors.As(err, &refusal) && refusal.Check == "lossy"
			if refused != (c.reason != "") || !refused && err != nil || refused && !strings.HasSuffix(strings.ReplaceAll(refusal.Reason, "public.", ""), `column "v": `+c.reason) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}
