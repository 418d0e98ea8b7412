package replication

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

func TestWritesBringTheKeysOfTheirRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	for _, c := range []struct{ name, sql, want string }{
		{"insert", "INSERT INTO t VALUES (6), (7)", "(6) (7)"},
		{"update", "UPDATE t SET v = 'x' WHERE id < 3", "(1) (2)"},
		{"update that changes nothing", "UPDATE t SET v = v WHERE id = 1", "(1)"},
		{"update of a key", "UPDATE t SET id = 30 WHERE id = 3", "(3) (30)"},
		{"update of a key to itself", "UPDATE t SET id = 30 WHERE id = 30", "(30)"},
		{"delete", "DELETE FROM t WHERE id IN (1, 2)", "(1) (2)"},
		{"upsert", "INSERT INTO t VALUES (4, 'up'), (8, 'in') ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v", "(4) (8)"},
		{"savepoint", "INSERT INTO t VALUES (10); SAVEPOINT s; INSERT INTO t VALUES (11); ROLLBACK TO s; INSERT INTO t VALUES (12)", "(10) (12)"},
		{"delete and insert", "DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4)", "(4) (4)"},
		{"nothing", "UPDATE t SET v = '' WHERE id = -1", ""},
	} {
		xid := r.write(t, c.sql)
		t.Run(c.name, func(t *testing.T) { r.requireKeys(t, xid, strings.Fields(c.want)...) })
	}
	r.db.Exec(t, "BEGIN; INSERT INTO t VALUES (99); ROLLBACK")
	r.requireKeys(t, 0)
}

// TestPreparedTransaction comes when it is committed, with its own id.
func TestPreparedTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	conn := r.db.Conn(t)
	var xid int64
	_, err := conn.Exec(t.Context(), "BEGIN; UPDATE t SET v = 'x' WHERE id = 1")
	must(t, err)
	must(t, conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&xid))
	_, err = conn.Exec(t.Context(), "PREPARE TRANSACTION '"+r.db.Name+"'")
	must(t, err)
	r.requireKeys(t, 0)
	r.db.Exec(t, "COMMIT PREPARED '"+r.db.Name+"'")
	r.requireKeys(t, uint32(xid), "(1)")
}

func TestCompositeKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), `CREATE TABLE t (v int, "Sub, id" int, gone int, region text, PRIMARY KEY (region, "Sub, id")); ALTER TABLE t DROP gone`,
		keyset.Columns{{Name: "region", Type: "text"}, {Name: "Sub, id", Type: "integer"}})
	r.requireKeys(t, r.write(t, "INSERT INTO t VALUES (1, 2, 'eu'), (1, 3, '')"), "(eu, 2)", "(, 3)")
	r.requireKeys(t, r.write(t, `UPDATE t SET "Sub, id" = 4 WHERE region = 'eu'`), "(eu, 2)", "(eu, 4)")
	r.requireKeys(t, r.write(t, "DELETE FROM t WHERE region = ''"), "(, 3)")
}

func TestReplicaIdentity(t *testing.T) {
	for name, identity := range map[string]string{
		"FULL":  "REPLICA IDENTITY FULL",
		"INDEX": "REPLICA IDENTITY USING INDEX t_code",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, pgtest.New(t), `CREATE TABLE t (id int, code text NOT NULL, v text);
				CREATE UNIQUE INDEX t_code ON t (code); ALTER TABLE t `+identity, keyset.Columns{{Name: "code", Type: "text"}})
			r.requireKeys(t, r.write(t, "INSERT INTO t VALUES (1, 'a', NULL), (2, 'b', 'x')"), "(a)", "(b)")
			r.requireKeys(t, r.write(t, "UPDATE t SET id = 3, v = 'y'"), "(a)", "(b)")
			r.requireKeys(t, r.write(t, "UPDATE t SET code = 'c' WHERE code = 'a'"), "(a)", "(c)")
			r.requireKeys(t, r.write(t, "DELETE FROM t"), "(b)", "(c)")
		})
	}
}

// TestKeyStoredOutOfLine: an UPDATE that leaves such a key alone does not repeat
// it in the new row.
func TestKeyStoredOutOfLine(t *testing.T) {
	for name, identity := range map[string]string{"DEFAULT": "DEFAULT", "FULL": "FULL"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, pgtest.New(t), "CREATE TABLE t (code text PRIMARY KEY, v text, other text); ALTER TABLE t ALTER other SET STORAGE EXTERNAL, REPLICA IDENTITY "+identity+
				"; INSERT INTO t VALUES ("+long("a", 2400)+", 'x', repeat('y', 5000))", keyset.Columns{{Name: "code", Type: "text"}})
			if n := pgtest.Scalar[int](t, r.db, "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 't'::regclass"); n == 0 {
				t.Fatal("nothing is stored out of line")
			}
			key := "(" + pgtest.Scalar[string](t, r.db, "SELECT code FROM t") + ")"
			r.requireKeys(t, r.write(t, "UPDATE t SET v = 'changed'"), key)
			r.requireKeys(t, r.write(t, "UPDATE t SET code = 'short'"), key, "(short)")
			r.requireKeys(t, r.write(t, "UPDATE t SET code = "+long("b", 2400)), "(short)", "("+pgtest.Scalar[string](t, r.db, "SELECT code FROM t")+")")
			r.requireKeys(t, r.write(t, "DELETE FROM t WHERE v = 'changed' RETURNING 1"), "("+pgtest.Scalar[string](t, r.db, "SELECT "+long("b", 2400))+")")
		})
	}
}

// TestKeyText: the stream spells a key as every session of the login role does,
// so that one row's key is one key wherever it was read.
func TestKeyText(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, setting := range []string{"DateStyle = 'SQL, DMY'", "bytea_output = 'escape'", "IntervalStyle = 'sql_standard'", "extra_float_digits = 0", "TimeZone = 'Asia/Kolkata'"} {
		db.Exec(t, "ALTER DATABASE "+db.Name+" SET "+setting)
	}
	key := keyset.Columns{{Name: "d", Type: "timestamptz"}, {Name: "b", Type: "bytea"}, {Name: "i", Type: "interval"}, {Name: "f", Type: "double precision"},
		{Name: "c", Type: "character(4)"}, {Name: "y", Type: "boolean"}}
	r := newRig(t, db, "CREATE TABLE t (d timestamptz, b bytea, i interval, f float8, c char(4), y boolean, PRIMARY KEY (d, b, i, f, c, y))", key)
	r.write(t, `INSERT INTO t VALUES ('2024-02-01 12:00Z', '\x00ff', '1 mon -1 day', 0.1::float8 + 0.2::float8, 'a', true)`)
	r.fence(t)
	values := make([]string, len(key))
	targets := make([]any, len(key))
	for i := range values {
		targets[i] = &values[i]
	}
	must(t, r.session(t).QueryRow(t.Context(), "SELECT "+key.List("o")+" FROM public.t AS o").Scan(targets...))
	_, changes := r.sink.drain()
	if len(changes) != 1 || changes[0].Key != keyset.NewKey(values...) {
		t.Errorf("the stream spells the key %v, a session %v", changes, keyset.NewKey(values...))
	}
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain+"; CREATE TABLE child (id int REFERENCES t); CREATE TABLE other (id int)", idKey)
	r.write(t, "TRUNCATE other")
	r.fence(t)
	if len(r.sink.cuts) != 0 {
		t.Fatalf("truncating another table came as %v", r.sink.cuts)
	}
	xid := r.write(t, "INSERT INTO t VALUES (6); TRUNCATE other, t CASCADE; INSERT INTO t VALUES (7)")
	r.requireKeys(t, xid, "(6)", "(7)")
	if len(r.sink.cuts) != 1 || r.sink.cuts[0].XID != xid {
		t.Errorf("the truncation came as %v, want one of transaction %d", r.sink.cuts, xid)
	}
	if n := r.stream.Received(); n != 3 {
		t.Errorf("%d changes are counted, want 3", n)
	}
}

// TestCommitPosition: every change of a transaction has the position of its
// commit record, beyond every record of the transaction.
func TestCommitPosition(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), plain, idKey)
	r.write(t, "UPDATE t SET v = 'x' WHERE id = 1")
	between := currentLSN(t, r.db)
	r.write(t, "UPDATE t SET v = 'x' WHERE id IN (2, 3)")
	r.fence(t)
	_, changes := r.sink.drain()
	if c := changes; c[0].Commit >= between || between >= c[1].Commit || c[1].Commit != c[2].Commit || c[1].Commit >= currentLSN(t, r.db) {
		t.Errorf("the commits are at %v, a moment between them is at %s", c, between)
	}
}

// TestOriginalChanges: DDL on the original ends the stream at the next write, and
// it says what differs.
func TestOriginalChanges(t *testing.T) {
	for name, c := range map[string]struct{ ddl, says string }{
		"a column added":    {"ALTER TABLE t ADD COLUMN extra int", "column extra was added (int4)"},
		"of a type unknown": {"CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE t ADD COLUMN feeling mood", "column feeling was added (OID "},
		"a column dropped":  {"ALTER TABLE t DROP COLUMN v", "column v was dropped"},
		"a column renamed":  {`ALTER TABLE t RENAME COLUMN v TO "W"`, `column v was renamed to "W", or dropped and the other added`},
		"a type changed":    {"ALTER TABLE t ALTER COLUMN v TYPE varchar(30)", "column v changed its type from text to varchar"},
		"the key changed":   {"ALTER TABLE t ALTER COLUMN id TYPE bigint", "column id changed its type from int4 to int8"},
		"the table moved":   {"CREATE SCHEMA elsewhere; ALTER TABLE t SET SCHEMA elsewhere; SET search_path = elsewhere", "the table was moved to schema elsewhere"},
		"the name changed":  {"ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT * FROM u", "the table was renamed to u"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, pgtest.New(t), plain, idKey)
			r.requireKeys(t, r.write(t, "INSERT INTO t VALUES (6)"), "(6)")
			fence, err := r.stream.Emit(t.Context())
			must(t, err)
			_, err = fence.Wait(t.Context())
			must(t, err)
			r.write(t, c.ddl+"; INSERT INTO t (id) VALUES (7)")
			err = r.awaitEnd(t)
			if !errors.Is(err, ErrChanged) || !errors.Is(r.stream.Err(), ErrChanged) {
				t.Fatalf("the stream ended with %v", err)
			}
			if want := "the original was changed during the run: public.t: " + c.says; !strings.HasPrefix(err.Error(), want) {
				t.Errorf("it says\n%v\nwant\n%s", err, want)
			}
		})
	}
}

func TestColumnDifferences(t *testing.T) {
	columns := func(text string) (all []StreamColumn) {
		for _, field := range strings.Fields(text) {
			c := StreamColumn{Name: field[:1], Type: 25, Typmod: -1}
			if strings.HasSuffix(field, "!") {
				c.Type = 23
			}
			if strings.HasSuffix(field, "?") {
				c.Typmod = 8
			}
			all = append(all, c)
		}
		return all
	}
	for _, c := range []struct{ was, now, says string }{
		{"a b", "a b", ""},
		{"a b", "a b c", "column c was added (text)"},
		{"a b", "b", "column a was dropped"},
		{"a b c", "a x c", "column b was renamed to x, or dropped and the other added"},
		{"a b c", "a c x", "column b was dropped; column x was added (text)"},
		{"a b", "a x!", "column b was dropped; column x was added (int4)"},
		{"a b", "a! b?", "column a changed its type from text to int4; column b changed the length or precision of its type text"},
		{"a b", "b a", "the columns are in another order"},
		{"a", "", "column a was dropped"},
	} {
		if said := strings.Join(columnDifferences(columns(c.was), columns(c.now)), "; "); said != c.says {
			t.Errorf("from %q to %q it says %q, want %q", c.was, c.now, said, c.says)
		}
	}
}

func TestChangedNamesTheFirstFive(t *testing.T) {
	differences := strings.Fields("a b c d e f g")
	for n, want := range map[int]string{1: "a", 5: "a; b; c; d; e", 6: "a; b; c; d; e; and 1 more", 7: "a; b; c; d; e; and 2 more"} {
		err := Changed("public.t", differences[:n])
		if !errors.Is(err, ErrChanged) || err.Error() != "the original was changed during the run: public.t: "+want {
			t.Errorf("of %d it says %v", n, err)
		}
	}
}
