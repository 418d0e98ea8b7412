package pgtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

func TestDatabasesAreIsolated(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	if a.Name == b.Name {
		t.Fatalf("both databases are called %s", a.Name)
	}
	a.Exec(t, "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 3)")
	a.Exec(t, "INSERT INTO orders VALUES ($1)", 4)
	if n := Scalar[int](t, a, "SELECT count(*) FROM orders WHERE id > $1", 1); n != 3 {
		t.Errorf("orders above 1: got %d, want 3", n)
	}
	if name := Scalar[*string](t, b, "SELECT to_regclass('orders')::text"); name != nil {
		t.Errorf("the other database has a table %s", *name)
	}
	got := Scalar[string](t, a, "SELECT current_database() || ' ' || current_setting('server_encoding')")
	if got != a.Name+" UTF8" {
		t.Errorf("connected to %q, want %q", got, a.Name+" UTF8")
	}
}

func TestCopiesAreTheirOwn(t *testing.T) {
	t.Parallel()
	original := New(t)
	original.Exec(t, "CREATE TABLE orders (id serial PRIMARY KEY); INSERT INTO orders DEFAULT VALUES")
	same := original.Copy(t)
	if got, want := Dump(t, same), Dump(t, original); got != want {
		t.Errorf("the copy's dump is %s, want %s", got, want)
	}
	same.Exec(t, "INSERT INTO orders DEFAULT VALUES")
	if got := Scalar[int](t, same, "SELECT max(id) FROM orders"); got != 2 {
		t.Errorf("the copy's next row has id %d, want 2", got)
	}
	if got := Scalar[int](t, original, "SELECT count(*) FROM orders"); got != 1 {
		t.Errorf("the original has %d rows, want 1", got)
	}
}

func TestDatabaseNames(t *testing.T) {
	t.Parallel()
	for test, prefix := range map[string]string{
		"TestCopy/key=(a,b)":                "testcopy_key_a_b_",
		"Test" + strings.Repeat("Long", 30): "testlong",
		"TestÄÖ":                            "test_",
	} {
		name := databaseName(test)
		if !strings.HasPrefix(name, prefix) || len(name) > 63 || name == databaseName(test) {
			t.Errorf("%s: database %s, want a unique one that starts with %s", test, name, prefix)
		}
	}
}

// TestCleanup leaves behind, in a database, everything that stands in the way of dropping it.
func TestCleanup(t *testing.T) {
	t.Parallel()
	witness := New(t)
	var name string
	t.Run("litter", func(t *testing.T) {
		db := New(t)
		name = db.Name
		db.Exec(t, "CREATE TABLE orders (id int); CREATE PUBLICATION p FOR TABLE orders")
		db.Exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", "idle_"+name)
		stream(t, db, "busy_"+name)
		db.Exec(t, "BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'it''s "+name+"'")
		hanging, err := pgx.Connect(t.Context(), db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hanging.Close(context.Background()) }) //nolint:errcheck // it was terminated, or will be
		if _, err = hanging.Exec(t.Context(), "BEGIN; TABLE orders"); err != nil {
			t.Fatal(err)
		}
		if n := litter(t, witness, name); n != 4 {
			t.Fatalf("%d pieces of litter, want 4", n)
		}
	})
	if n := litter(t, witness, name); n != 0 {
		t.Errorf("%d pieces of litter are left", n)
	}
}

// litter counts the database itself, its slots and its prepared transactions.
func litter(t *testing.T, witness *DB, name string) int {
	t.Helper()
	return Scalar[int](t, witness, `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1)
		+ (SELECT count(*) FROM pg_replication_slots WHERE database = $1)
		+ (SELECT count(*) FROM pg_prepared_xacts WHERE database = $1)`, name)
}

// stream starts streaming from a new slot and leaves the connection open.
func stream(t *testing.T, db *DB, slot string) {
	t.Helper()
	config, err := pgconn.ParseConfig(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // its walsender is terminated first
	_, err = conn.Exec(t.Context(), "CREATE_REPLICATION_SLOT "+slot+" LOGICAL pgoutput").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	conn.Frontend().Send(&pgproto3.Query{
		String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names 'p')"})
	if err = conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	if message, err := conn.ReceiveMessage(t.Context()); err != nil {
		t.Fatalf("starting the stream: %v, %v", message, err)
	}
}

func TestConn(t *testing.T) {
	t.Parallel()
	db := New(t)
	var conn *pgx.Conn
	t.Run("open", func(t *testing.T) {
		conn = db.Conn(t)
		if err := conn.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if !conn.IsClosed() {
		t.Error("the connection is open after its test")
	}
}

func TestDumpTellsSchemasApart(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	const schema = "CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE INDEX ON orders (note);"
	a.Exec(t, schema+"CREATE SCHEMA pgshadow_x; CREATE TABLE pgshadow_x.retired (id int)")
	b.Exec(t, schema)
	first, second := Dump(t, a), Dump(t, b)
	if first != second {
		t.Errorf("dumps of the same schema differ:\n%s\n%s", first, second)
	}
	if !strings.Contains(first, "CREATE INDEX orders_note_idx") || strings.Contains(first, "pgshadow") {
		t.Errorf("unexpected dump:\n%s", first)
	}
	b.Exec(t, "ALTER TABLE orders ADD CHECK (id > 0)")
	if Dump(t, b) == second {
		t.Error("a new CHECK is not in the dump")
	}
	b.Exec(t, "CREATE PUBLICATION orders_published FOR TABLE orders")
	if all, part := Dump(t, b), Dump(t, b, "--no-publications"); !strings.Contains(all, "orders_published") || strings.Contains(part, "orders_published") {
		t.Errorf("arguments are not passed on:\n%s", part)
	}
}

func TestWithoutVolatile(t *testing.T) {
	t.Parallel()
	dump := "--\n\\restrict abc\n-- Dumped from database version 15.9\n-- Dumped by pg_dump version 17.1\n" +
		"COMMENT ON TABLE a IS '\n \\restrict x';\n\\unrestrict abc\nlast"
	want := "--\nCOMMENT ON TABLE a IS '\n \\restrict x';\nlast"
	if got := withoutVolatile(dump); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPrivateServer has a standby that is away, so every commit that waits for it would wait for ever.
func TestPrivateServer(t *testing.T) {
	t.Parallel()
	server := NewServer(t, pgserver.Options{Settings: map[string]string{
		"synchronous_standby_names": "away", "wal_level": "replica"}})
	db := NewOn(t, server)
	if db.Server() != server {
		t.Error("the database does not know its server")
	}
	if level := Scalar[string](t, db, "SHOW wal_level"); level != "replica" {
		t.Errorf("wal_level is %s, want replica", level)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := db.Conn(t).Exec(ctx, "CREATE TABLE orders ()"); ctx.Err() == nil {
		t.Errorf("a commit did not wait for the standby: %v", err)
	}
}

func TestSharedServer(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	if a.Server() != b.Server() {
		t.Error("two databases of one test binary are on different servers")
	}
	if level := Scalar[string](t, a, "SHOW wal_level"); level != "logical" {
		t.Errorf("wal_level is %s, want logical", level)
	}
}
