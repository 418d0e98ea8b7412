package throttle

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// patience bounds every wait of a test for something of the server's.
const patience = 10 * time.Second

// live is a Throttle that runs against a server.
type live struct {
	*Throttle
	changes, notes chan string
	stop           func()
}

func run(t *testing.T, dsn string, config Config, sources ...Source) *live {
	t.Helper()
	l := &live{changes: make(chan string, 100), notes: make(chan string, 100)}
	config.Interval = 10 * time.Millisecond
	config.OnChange = func(reason string) { l.changes <- reason }
	config.OnNote = func(note string) { l.notes <- note }
	var err error
	if l.Throttle, err = New(open(t, dsn), config, sources...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	l.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		ended <- nil
	}
	t.Cleanup(func() { l.stop() })
	return l
}

// mustGo waits until the throttle lets go.
func (l *live) mustGo(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Wait(ctx, 0); err != nil {
		t.Fatalf("%v (%s)", err, l.Reason())
	}
}

// expect is the next thing that the observer is told.
func expect(t *testing.T, told <-chan string) string {
	t.Helper()
	select {
	case text := <-told:
		return text
	case <-time.After(patience):
		t.Fatal("the observer is told nothing")
		return ""
	}
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(patience); !yes(); {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waiting in vain until %s", what)
		}
	}
}

// as is the DSN with another user.
func as(t *testing.T, dsn, user string) string {
	t.Helper()
	parsed, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.User(user)
	return parsed.String()
}

const ownSessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgshadow throttle'"

func TestNoConnectionWithoutNeed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := db.Conn(t)
	other := newFake()
	l := run(t, db.DSN, Config{File: t.TempDir() + "/stop"}, other)
	eventually(t, "the sources were asked ten times", func() bool { return other.checked() >= 10 })
	l.mustGo(t)
	if n := scalar[int](t, conn, ownSessions); n != 0 {
		t.Errorf("%d sessions are open though no source needs one", n)
	}
	if err := l.Sources.ReplicaLag.SetLimit(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := l.Sources.ActiveSessions.SetLimit(1000); err != nil {
		t.Fatal(err)
	}
	l.mustGo(t)
	if n := scalar[int](t, conn, ownSessions); n != 1 {
		t.Errorf("%d sessions are open, want one for both", n)
	}
	l.stop()
	eventually(t, "no session is left", func() bool { return scalar[int](t, conn, ownSessions) == 0 })
}

// A session that was lost since the last measure is no reason to wait.
func TestLostSession(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := db.Conn(t)
	source := newQuery(newSession(open(t, db.DSN)), "SELECT 0")
	t.Cleanup(func() {
		if err := source.session.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	pids := map[int]bool{}
	for range 3 {
		if reason, err := source.Check(t.Context()); reason != "" || err != nil {
			t.Fatalf("%q, %v", reason, err)
		}
		pid := scalar[int](t, conn, strings.Replace(ownSessions, "count(*)", "pid", 1))
		pids[pid] = true
		if !scalar[bool](t, conn, "SELECT pg_terminate_backend($1, 10000)", pid) {
			t.Fatal("the session does not end")
		}
	}
	if len(pids) != 3 {
		t.Errorf("%d sessions for 3 checks, each of which lost its session", len(pids))
	}
}

// A server that is away makes the run wait, and does not when it is back.
func TestServerAway(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	l := run(t, server.DSN("postgres"), Config{MaxReplicaLag: time.Hour})
	l.mustGo(t)
	if err := server.Stop(pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	if got := expect(t, l.changes); !strings.HasPrefix(got, "measuring replica lag: ") || strings.ContainsAny(got, "\n\t") {
		t.Errorf("told %q", got)
	}
	if l.Reason() == "" {
		t.Error("the run goes on though the server is away")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := expect(t, l.changes); got != "" {
		t.Errorf("told %q", got)
	}
	l.mustGo(t)
}

// No session of the throttle is ever seen in a transaction without a statement.
func TestNeverIdleInTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn := db.Conn(t)
	l := run(t, db.DSN, Config{MaxReplicaLag: time.Hour, MaxActiveSessions: 1000, Query: "SELECT count(*) > 1000 FROM pg_class"})
	l.mustGo(t)
	measured := map[bool]bool{}
	for range 300 {
		state := scalar[string](t, conn, strings.Replace(ownSessions, "count(*)",
			"coalesce(string_agg(DISTINCT state, ' '), '')", 1))
		if strings.Contains(state, "transaction") {
			t.Fatalf("the states of the throttle's sessions: %s", state)
		}
		measured[strings.Contains(state, "idle")] = true
	}
	if !measured[true] {
		t.Error("no session was seen idle: nothing was tested")
	}
}

func TestActiveSessions(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{}) // the sessions of all its databases count
	dsn := server.DSN("postgres")
	watcher := connect(t, as(t, dsn, "postgres")+"&application_name=pgshadow+test")
	source := newActiveSessions(newSession(open(t, dsn)), 1)
	t.Cleanup(func() { _ = source.session.close(context.Background()) })
	check := func(source *ActiveSessions, want string) {
		t.Helper()
		if got := says(t, source); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	busy := func(name string) {
		t.Helper()
		conn := connect(t, dsn+"&application_name="+name)
		pid := conn.PgConn().PID()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = conn.Exec(context.Background(), "SELECT pg_sleep(600)") // until it is terminated
		}()
		t.Cleanup(func() {
			if _, err := watcher.Exec(context.Background(), "SELECT pg_terminate_backend($1)", pid); err != nil {
				t.Error(err)
			}
			<-done
		})
		eventually(t, "the session is active", func() bool {
			return scalar[bool](t, watcher, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", pid)
		})
	}
	busy("one")
	connect(t, dsn) // idle
	exec(t, connect(t, dsn), "BEGIN")
	busy("pgshadow%20copy%201") // ours
	check(source, "")
	busy("two")
	check(source, "2 active sessions (limit 1)")
	if err := source.SetLimit(2); err != nil {
		t.Fatal(err)
	}
	check(source, "")

	exec(t, watcher, "CREATE ROLE weak LOGIN")
	weak := newActiveSessions(newSession(open(t, as(t, dsn, "weak"))), 1)
	t.Cleanup(func() { _ = weak.session.close(context.Background()) })
	rights := RightsError{Hidden: "what 4 other sessions do", Role: "weak"}
	check(weak, rights.Error())
	exec(t, watcher, "GRANT pg_read_all_stats TO weak")
	check(weak, "2 active sessions (limit 1)")
	check(source, "")
	exec(t, connect(t, dsn), "SET track_activities = off")
	check(source, "1 sessions do not report what they do: track_activities is off there")
}

func TestActiveSessionsOfOneRole(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	admin := connect(t, server.DSN("postgres"))
	exec(t, admin, "CREATE ROLE weak LOGIN")
	if err := admin.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dsn := as(t, server.DSN("postgres"), "weak")
	connect(t, dsn)
	l := run(t, dsn, Config{MaxActiveSessions: 1})
	l.mustGo(t) // nothing but its own is there to be seen: no rights are needed
}

func TestQuery(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE SCHEMA ops; CREATE TABLE ops.load (value int); CREATE DOMAIN ops.percent AS numeric;
		CREATE FUNCTION ops.write() RETURNS int LANGUAGE sql AS 'INSERT INTO ops.load VALUES (1) RETURNING 1'`)
	source := newQuery(newSession(open(t, db.DSN)), "")
	t.Cleanup(func() { _ = source.session.close(context.Background()) })
	gives := func(what string) string { return fmt.Sprintf("the throttle query gives %s", what) }
	for _, c := range []struct{ text, want string }{
		{"SELECT true", gives("true")},
		{"SELECT false", ""},
		{"SELECT 1", gives("1 (limit 0)")},
		{"SELECT 0", ""},
		{"SELECT -1::smallint", ""},
		{"SELECT 0.001", gives("0.001 (limit 0)")},
		{"SELECT -0.001;", ""},
		{"SELECT 10::float8 ^ 300", gives("1e+300 (limit 0)")},
		{"SELECT repeat('9', 400)::numeric", gives(strings.Repeat("9", 400) + " (limit 0)")},
		{"SELECT 'Infinity'::float4", gives("Infinity (limit 0)")},
		{"SELECT '-Infinity'::float8", ""},
		{"SELECT 'NaN'::numeric", "error: it gives NaN"},
		{"SELECT 5::ops.percent", gives("5 (limit 0)")},
		{"SELECT count(*) FROM ops.load", ""},
		{"VALUES (2::bigint)", gives("2 (limit 0)")},
		{"SELECT 'true'", "error: it gives neither a boolean nor a number"},
		{"SELECT interval '1 s'", "error: it gives neither a boolean nor a number"},
		{"SELECT NULL::bool", "error: it gives NULL"},
		{"SELECT value FROM ops.load", "error: it gives no row"},
		{"SELECT generate_series(0, 1)", "error: it gives several rows"},
		{"SELECT 0, 1", "error: it gives 2 columns"},
		{"SELECT", "error: it gives 0 columns"},
		{"SELECT value FROM load", "error: running it: ERROR: relation \"load\" does not exist (SQLSTATE 42P01)"},
		{"SELECT 1; SELECT 0", "error: running it: ERROR: cannot insert multiple commands"},
		{"SELECT ops.write()", "error: running it: ERROR: cannot execute INSERT in a read-only transaction"},
		{"SELECT 1/0", "error: running it: ERROR: division by zero"},
		{"BEGIN", "error: it gives 0 columns"},
		{"SELECT 0 -- after all that", ""},
	} {
		if err := source.SetText(c.text); err != nil {
			t.Fatal(err)
		}
		reason, err := source.Check(t.Context())
		got := reason
		if err != nil {
			got = "error: " + err.Error()
		}
		if failed := strings.HasPrefix(c.want, "error: "); got != c.want && (!failed || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: got %q, want %q", c.text, got, c.want)
		}
		state := pgtest.Scalar[string](t, db, strings.Replace(ownSessions, "count(*)", "coalesce(string_agg(state, ' '), '')", 1))
		if strings.Contains(state, "transaction") {
			t.Errorf("%s: leaves the session %s", c.text, state)
		}
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM ops.load"); n != 0 {
		t.Errorf("the query wrote %d rows", n)
	}
}

func TestQueryTakesTooLong(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	source := newQuery(newSession(open(t, db.DSN)), "SELECT 0 FROM pg_sleep(60)")
	t.Cleanup(func() { _ = source.session.close(context.Background()) })
	began := time.Now()
	reason, err := source.Check(t.Context())
	if took := time.Since(began); reason != "" || err == nil || !strings.Contains(err.Error(), "statement timeout") || took < statementLimit {
		t.Errorf("%q, %v after %v", reason, err, took)
	}
}

func TestQueryFollowsTheTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE stop (now bool); INSERT INTO stop VALUES (false)")
	l := run(t, db.DSN, Config{Query: "SELECT now FROM public.stop"})
	l.mustGo(t)
	db.Exec(t, "UPDATE stop SET now = true")
	if got := expect(t, l.changes); got != "the throttle query gives true" {
		t.Errorf("told %q", got)
	}
	db.Exec(t, "UPDATE stop SET now = false")
	if got := expect(t, l.changes); got != "" {
		t.Errorf("told %q", got)
	}
	l.mustGo(t)
	db.Exec(t, "ALTER TABLE stop ALTER now TYPE int USING 1") // another type, under the same text
	if got := expect(t, l.changes); got != "the throttle query gives 1 (limit 0)" {
		t.Errorf("told %q", got)
	}
}
