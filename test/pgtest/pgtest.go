// Package pgtest gives a test a fresh PostgreSQL database, on a server that the tests of one binary share, or a server
// of its own.
//
// What a shared server does to tests that run side by side: creating a slot waits for every transaction open on the
// server, those of other databases too. A test that keeps one open, or prepared, for long belongs on a NewServer.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

const cleanupLimit = time.Minute

// DB is a database of one test.
type DB struct {
	// DSN is its URL, or whatever form PGSHADOW_TEST_DSN has.
	DSN string
	// Name is unique among all tests that run on the server.
	Name   string
	source *source
	roles  []string // to be dropped after the database
}

var sharedSource = sync.OnceValues(func() (*source, error) { return openSource(context.Background(), environment()) })

// New creates a database, on the server shared by the test binary, that is dropped with its slots at the test's end.
// Where no server can be had the test fails, with a remedy.
func New(t testing.TB) *DB {
	t.Helper()
	from, err := sharedSource()
	if err != nil {
		t.Fatal(err)
	}
	db := create(t, from, newDatabase)
	db.dropAtEnd(t)
	return db
}

// Copy creates a database that is a copy of this one, dropped at the test's end. Nobody may be connected to this one.
func (db *DB) Copy(t testing.TB) *DB {
	t.Helper()
	made := create(t, db.source, "TEMPLATE "+quote(db.Name))
	made.dropAtEnd(t)
	return made
}

func (db *DB) dropAtEnd(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := db.drop(ctx); err != nil {
			t.Errorf("dropping test database %s: %v", db.Name, err)
		}
	})
}

// NewWith is New with further options of CREATE DATABASE, which take the place of the default ones: ENCODING 'LATIN1'.
func NewWith(t testing.TB, options string) *DB {
	t.Helper()
	db := New(t)
	for _, sql := range []string{"DROP DATABASE " + quote(db.Name), "CREATE DATABASE " + quote(db.Name) + " TEMPLATE template0 " + options} {
		if err := db.source.administer(context.WithoutCancel(t.Context()), sql); err != nil {
			t.Fatalf("creating test database %s: %v", db.Name, err)
		}
	}
	return db
}

// NewServer starts a server for this test alone, stopped and removed at the test's end. When the test has failed by
// then, the end of the server's log is printed.
func NewServer(t testing.TB, opts pgserver.Options) *pgserver.Server {
	t.Helper()
	server, err := pgserver.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, server)
	return server
}

// NewStandby starts a hot standby of a server of NewServer, as pgserver's StartStandby does, with the same end.
func NewStandby(t testing.TB, primary *pgserver.Server, name string, settings map[string]string) *pgserver.Server {
	t.Helper()
	server, err := primary.StartStandby(t.Context(), name, settings)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, server)
	return server
}

func closeAtEnd(t testing.TB, server *pgserver.Server) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the test's server ends with:\n%s", server.Log())
		}
		if err := server.Close(); err != nil {
			t.Errorf("closing the test's server: %v", err)
		}
	})
}

// NewOn creates a database on a server of NewServer; it goes when the server goes.
func NewOn(t testing.TB, server *pgserver.Server) *DB {
	t.Helper()
	return create(t, serverSource(server), newDatabase)
}

// newDatabase are the options of an empty database.
const newDatabase = "TEMPLATE template0 ENCODING 'UTF8'"

func create(t testing.TB, from *source, options string) *DB {
	t.Helper()
	db := &DB{Name: databaseName(t.Name()), source: from}
	var err error
	if db.DSN, err = from.dsn(db.Name); err != nil {
		t.Fatal(err)
	}
	statement := "CREATE DATABASE " + quote(db.Name) + " " + options
	if err = from.administer(context.WithoutCancel(t.Context()), statement); err != nil {
		t.Fatalf("creating test database %s: %v", db.Name, err)
	}
	return db
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// databaseName is unique, and tells which test the database belongs to.
func databaseName(test string) string {
	readable := strings.Trim(notInName.ReplaceAllString(strings.ToLower(test), "_"), "_")
	return readable[:min(len(readable), 40)] + "_" + strings.ToLower(rand.Text()[:10])
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// At is the same database on another server, a standby.
func (db *DB) At(server *pgserver.Server) *DB {
	return &DB{DSN: server.DSN(db.Name), Name: db.Name, source: serverSource(server)}
}

// Server is the server the database is on, nil when it is not one that pgserver started.
func (db *DB) Server() *pgserver.Server { return db.source.server }

// Conn opens a connection that is closed at the test's end.
func (db *DB) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.WithoutCancel(t.Context()), db.DSN)
	if err != nil {
		t.Fatalf("connecting to test database %s: %v", db.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		_ = conn.Close(ctx) // the test may have had it terminated
	})
	return conn
}

// Exec runs a statement, or without arguments any number of them, in a session of its own.
func (db *DB) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	err := session(context.WithoutCancel(t.Context()), db.DSN, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
	if err != nil {
		t.Fatalf("executing %q: %v", sql, err)
	}
}

// Scalar is the one value of the one row of a query, run in a session of its own. For a NULL make T a pointer.
func Scalar[T any](t testing.TB, db *DB, sql string, args ...any) T {
	t.Helper()
	var value T
	err := session(context.WithoutCancel(t.Context()), db.DSN, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		value, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
		return err
	})
	if err != nil {
		t.Fatalf("querying %q: %v", sql, err)
	}
	return value
}

// session connects, runs do, and closes.
func session(ctx context.Context, dsn string, do func(context.Context, *pgx.Conn) error) (err error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("reading the DSN: %w", err)
	}
	config.RuntimeParams["application_name"] = "pgtest"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(ctx, conn)
}
