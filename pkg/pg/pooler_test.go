package pg_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/pooler"
)

// asked are the names of the settings that sessions are opened with.
func asked(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT lower(name) FROM pg_settings WHERE source = 'client'")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) < 15 {
		t.Fatalf("%v are asked for, %v", names, err)
	}
	return append(names, "role") // which pg_settings does not show
}

// pin has the database give every session the settings that this one was opened with.
func pin(t *testing.T, conn *pgx.Conn, names []string) {
	t.Helper()
	for _, name := range names {
		if name == "client_encoding" || name == "application_name" { // what clients say of these, poolers pass on
			continue
		}
		if _, err := conn.Exec(t.Context(), "ALTER DATABASE "+pg.Ident(conn.Config().Database)+" SET "+name+" FROM CURRENT"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPoolers: a session is had only where it is one server session with all the
// settings that it was opened with, and a refusal says what is in the way.
func TestPoolers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		options pooler.Options
		ignore  bool   // it takes every startup parameter
		pinned  bool   // the server has the settings by itself
		spoil   string // but for this one
		warm    int    // idle server sessions
		mode    pg.PoolMode
		says    string // "": a session is had
	}{
		{name: "transaction", options: pooler.Options{Mode: "transaction"}, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, ignoring", options: pooler.Options{Mode: "transaction"}, ignore: true, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, pinned", options: pooler.Options{Mode: "transaction"}, ignore: true, pinned: true, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, one server session", options: pooler.Options{Mode: "transaction", Settings: map[string]string{"default_pool_size": "1"}},
			ignore: true, pinned: true, warm: 1, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, two in turn", options: pooler.Options{Mode: "transaction", Settings: map[string]string{"server_round_robin": "1"}},
			ignore: true, pinned: true, warm: 2, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, three in turn", options: pooler.Options{Mode: "transaction", Settings: map[string]string{"server_round_robin": "1"}},
			ignore: true, pinned: true, warm: 3, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, five in turn", options: pooler.Options{Mode: "transaction", Settings: map[string]string{"server_round_robin": "1"}},
			ignore: true, pinned: true, warm: 5, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "transaction, five", options: pooler.Options{Mode: "transaction"}, ignore: true, pinned: true, warm: 5, mode: pg.TransactionMode, says: "transaction mode"},
		{name: "statement", options: pooler.Options{Mode: "statement"}, mode: pg.StatementMode, says: "statement mode"},
		{name: "statement, ignoring", options: pooler.Options{Mode: "statement"}, ignore: true, mode: pg.StatementMode, says: "statement mode"},
		{name: "statement, pinned", options: pooler.Options{Mode: "statement"}, ignore: true, pinned: true, mode: pg.StatementMode, says: "statement mode"},
		{name: "session", options: pooler.Options{Mode: "session"}, mode: pg.SessionMode, says: "unsupported startup parameter"},
		{name: "session, ignoring", options: pooler.Options{Mode: "session"}, ignore: true, mode: pg.SessionMode, says: "search_path"},
		{name: "session, pinned", options: pooler.Options{Mode: "session"}, ignore: true, pinned: true, mode: pg.SessionMode},
		{name: "session, set on the server", options: pooler.Options{Mode: "session", OnServer: "SET lock_timeout = '5s'", Settings: map[string]string{"server_reset_query": ""}},
			ignore: true, pinned: true, spoil: "lock_timeout", mode: pg.SessionMode, says: "opened with, as behind a connection pooler: lock_timeout"},
		{name: "session, one server session", options: pooler.Options{Mode: "session", Settings: map[string]string{"default_pool_size": "1", "query_wait_timeout": "1"}},
			ignore: true, pinned: true, mode: pg.UnknownMode, says: "cannot be told"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			direct := connect(t, open(t, db))
			names := asked(t, direct)
			if c.ignore {
				c.options.Ignore = append([]string{"replication"}, names...)
			}
			if c.pinned {
				pin(t, direct, names)
			}
			if c.spoil != "" {
				db.Exec(t, "ALTER DATABASE "+pg.Ident(db.Name)+" RESET "+c.spoil)
			}
			dsn := pooler.Start(t, db, c.options)
			pooler.Warm(t, dsn, c.warm)
			database, err := pg.Open(dsn)
			if err != nil {
				t.Fatal(err)
			}
			if mode, err := database.PoolMode(t.Context()); mode != c.mode && c.mode != pg.UnknownMode {
				t.Errorf("its mode is %v, %v", mode, err)
			}
			conn, err := database.Connect(t.Context(), "test")
			if err == nil {
				defer pg.Close(t.Context(), conn) //nolint:errcheck // it holds nothing
			}
			requirePooler(t, database, err, c.mode, c.says)
			if stream, err := database.ConnectReplication(t.Context(), "test"); err == nil {
				if _, err := stream.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll(); err != nil || c.says != "" {
					t.Errorf("a replication connection is had, and says %v", err)
				}
				if err := stream.Close(t.Context()); err != nil {
					t.Error(err)
				}
			} else if !errors.As(err, new(*pg.PoolerError)) {
				t.Errorf("a replication connection is refused with %v", err)
			}
		})
	}
}

// requirePooler fails unless the session was had, or was refused with what is said.
func requirePooler(t *testing.T, database *pg.Database, err error, mode pg.PoolMode, says string) {
	t.Helper()
	var refused *pg.PoolerError
	switch {
	case says == "":
		if err != nil || !database.Pooled() {
			t.Errorf("no session is had: %v", err)
		}
		if err := database.ProbePooler(t.Context()); !errors.As(err, &refused) || !slices.Equal(refused.Unpinned, []string{"lock_timeout"}) {
			t.Errorf("that it drops settings is found out with %v", err)
		}
	case !errors.As(err, &refused) || refused.Mode != mode || !strings.Contains(refused.Error(), says) || !strings.Contains(refused.Error(), database.Target()):
		t.Errorf("it is refused with %v, want mode %s and %q", err, mode, says)
	case database.Pooled():
		t.Error("it passes for a pooler in session mode")
	}
}

// TestNoPooler: the server itself gives a session as before, and no other session
// is opened for that: the role may have one at a time.
func TestNoPooler(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role := db.Name + "_r"
	db.Exec(t, "CREATE ROLE "+role+" LOGIN CONNECTION LIMIT 1")
	t.Cleanup(func() { db.Exec(t, "DROP ROLE "+role) })
	config, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	database := open(t, &pgtest.DB{DSN: strings.Replace(db.DSN, config.User+"@", role+"@", 1)})
	conn := connect(t, database)
	if err := database.ProbePooler(t.Context()); err != nil || database.Pooled() || setting(t, conn, "session_authorization") != role {
		t.Errorf("it passes for a pooler, %v", err)
	}
	if _, err := database.PoolMode(t.Context()); err == nil {
		t.Error("the role may have a second session, so this test shows nothing")
	}
	if mode, err := open(t, db).PoolMode(t.Context()); mode != pg.Direct || err != nil {
		t.Errorf("the mode of a server is %s, %v", mode, err)
	}
}

// TestPoolerThatLetsNobodyIn: what it refuses is not what a session is opened with,
// and its reason is told.
func TestPoolerThatLetsNobodyIn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	database, err := pg.Open(strings.Replace(pooler.Start(t, db, pooler.Options{Mode: "session"}), "/"+db.Name, "/nowhere_at_all", 1))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := database.Connect(t.Context(), "test")
	if conn != nil || !pg.IsConnection(err) || errors.As(err, new(*pg.PoolerError)) || strings.Count(err.Error(), "FATAL") != 2 {
		t.Errorf("it is refused with %v", err)
	}
}
