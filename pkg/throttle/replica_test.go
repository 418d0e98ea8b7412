package throttle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// receiver is a client that streams WAL and says what the test wants it to say.
type receiver struct{ conn *pgconn.PgConn }

// stream starts a receiver. replication is "true" or "database".
func stream(t *testing.T, dsn, name, replication, command string) *receiver {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), dsn+"&replication="+replication+"&application_name="+url.QueryEscape(name))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{conn}
	t.Cleanup(r.leave)
	conn.Frontend().Send(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		switch message, err := conn.ReceiveMessage(t.Context()); message := message.(type) {
		case *pgproto3.CopyBothResponse:
			return r
		case *pgproto3.ErrorResponse:
			t.Fatalf("%s: %s", command, message.Message)
		case nil:
			t.Fatal(err)
		}
	}
}

// report tells the server the positions that were written and replayed.
func (r *receiver) report(t *testing.T, written, replayed pg.LSN) {
	t.Helper()
	text := []byte{'r'}
	for _, position := range []pg.LSN{written, written, replayed, 0} { // the last is the receiver's clock
		text = binary.BigEndian.AppendUint64(text, uint64(position))
	}
	r.conn.Frontend().Send(&pgproto3.CopyData{Data: append(text, 0)})
	if err := r.conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
}

func (r *receiver) leave() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // do not wait for what still comes
	_ = r.conn.Close(ctx)
}

// A hot standby that replays, pauses, goes on and goes away, beside a logical
// walsender that never reports anything.
func TestReplicaLag(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewServer(t, pgserver.Options{})
	standby := pgtest.NewStandby(t, primary, "standby1", nil)
	dsn := primary.DSN("postgres")
	writer, replay := connect(t, dsn), connect(t, standby.DSN("postgres"))
	exec(t, writer, "CREATE TABLE orders (id int); CREATE PUBLICATION p FOR TABLE orders")
	exec(t, writer, "SELECT pg_create_logical_replication_slot('pgshadow_run', 'pgoutput')")
	stream(t, dsn, "pgshadow stream", "database",
		`START_REPLICATION SLOT pgshadow_run LOGICAL 0/0 ("proto_version" '1', "publication_names" 'p')`)

	l := run(t, dsn, Config{MaxReplicaLag: 300 * time.Millisecond})
	l.mustGo(t)
	eventually(t, "both stream", func() bool {
		return scalar[int](t, writer, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2
	})
	for len(l.changes) > 0 { // the standby may have come only now
		<-l.changes
	}
	l.mustGo(t)

	exec(t, replay, "SELECT pg_wal_replay_pause()")
	eventually(t, "replay is paused", func() bool {
		return scalar[string](t, replay, "SELECT pg_get_wal_replay_pause_state()") == "paused"
	})
	exec(t, writer, "INSERT INTO orders VALUES (1)") // and nothing more: the server's own figure stands still
	lags := regexp.MustCompile(`^replica standby1 lags \d+(\.\d+)?m?s \(limit 300ms\)$`)
	if got := expect(t, l.changes); !lags.MatchString(got) {
		t.Errorf("told %q", got)
	}
	setLimit(t, l, time.Hour)
	if got := expect(t, l.changes); got != "" {
		t.Errorf("told %q", got)
	}
	l.mustGo(t)
	setLimit(t, l, 300*time.Millisecond)
	if got := expect(t, l.changes); !lags.MatchString(got) {
		t.Errorf("told %q", got)
	}
	exec(t, replay, "SELECT pg_wal_replay_resume()")
	if got := expect(t, l.changes); got != "" {
		t.Errorf("told %q", got)
	}
	l.mustGo(t)

	if err := standby.Stop(pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	if got := expect(t, l.notes); got != "replica standby1 is no longer connected; the run does not wait for it" {
		t.Errorf("noted %q", got)
	}
	exec(t, writer, "INSERT INTO orders VALUES (2)")
	l.mustGo(t)
	if n := len(l.changes) + len(l.notes); n > 0 {
		t.Errorf("%d more changes and notes after the standby went", n)
	}
}

func setLimit(t *testing.T, l *live, limit time.Duration) {
	t.Helper()
	if err := l.Sources.ReplicaLag.SetLimit(limit); err != nil {
		t.Fatal(err)
	}
}

// lagSource is the source alone, in a session of the given user.
func lagSource(t *testing.T, dsn, user string) *ReplicaLag {
	t.Helper()
	source := newReplicaLag(newSession(open(t, as(t, dsn, user))), time.Hour, func(string) {})
	t.Cleanup(func() { _ = source.session.close(context.Background()) })
	return source
}

// says is a check's reason or error.
func says(t *testing.T, source Source) string {
	t.Helper()
	reason, err := source.Check(t.Context())
	if err != nil {
		return err.Error()
	}
	return reason
}

func eventuallySays(t *testing.T, source Source, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("it says %q", want), func() bool { return says(t, source) == want })
}

func flushed(t *testing.T, conn *pgx.Conn) pg.LSN {
	t.Helper()
	lsn, err := flushPosition(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// Logical walsenders do not count, and need no rights: ours before it streams,
// when only its name tells, and any that streams. Nothing is ever reported.
func TestLogicalWalsendersAreNoReplicas(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewServer(t, pgserver.Options{}).DSN("postgres")
	conn := connect(t, dsn)
	exec(t, conn, "CREATE ROLE weak LOGIN")
	exec(t, conn, "CREATE PUBLICATION p")
	exec(t, conn, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
	idle, err := open(t, dsn).ConnectReplication(t.Context(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	defer (&receiver{idle}).leave()
	stream(t, dsn, "other", "database", `START_REPLICATION SLOT s LOGICAL 0/0 ("proto_version" '1', "publication_names" 'p')`)
	if n := scalar[int](t, conn, "SELECT count(*) FROM pg_stat_replication"); n != 2 {
		t.Fatalf("%d walsenders, want 2", n)
	}
	for _, user := range []string{"postgres", "weak"} {
		if got := says(t, lagSource(t, dsn, user)); got != "" {
			t.Errorf("to %s it says %q", user, got)
		}
	}
}

// What a physical receiver's reports mean.
func TestPhysicalReceivers(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewServer(t, pgserver.Options{}).DSN("postgres")
	conn := connect(t, dsn)
	exec(t, conn, "CREATE ROLE weak LOGIN")
	strong, weak := lagSource(t, dsn, "postgres"), lagSource(t, dsn, "weak")
	begin := flushed(t, conn)
	physical := stream(t, dsn, "standby1", "true", fmt.Sprintf("START_REPLICATION PHYSICAL %s", begin))
	eventuallySays(t, strong, "replica standby1 has not reported a position yet")
	_, err := weak.Check(t.Context())
	var rights *RightsError
	if !errors.As(err, &rights) || *rights != (RightsError{Hidden: "the lag of replica standby1", Role: "weak"}) {
		t.Errorf("without rights: %v", err)
	}
	physical.report(t, begin, 0) // it writes, and does not replay
	eventuallySays(t, strong, "")

	exec(t, conn, "CREATE TABLE orders ()")
	end := flushed(t, conn)
	eventually(t, "all is sent", func() bool {
		return scalar[bool](t, conn, "SELECT sent_lsn >= $1::text::pg_lsn FROM pg_stat_replication", end.String())
	})
	physical.report(t, end, begin) // it replays, and is late
	const figure = "SELECT coalesce(extract(epoch FROM replay_lag) * 1000000, 0)::bigint FROM pg_stat_replication"
	eventually(t, "the server has a figure", func() bool { // it may have one of the first report, when it had written something by then
		return scalar[bool](t, conn, "SELECT replay_lsn IS NOT NULL AND replay_lag > '0' FROM pg_stat_replication")
	})
	found, err := replicas(t.Context(), conn)
	if err != nil || len(found) != 1 || found[0].LagUS == nil || *found[0].LagUS != scalar[int64](t, conn, figure) ||
		found[0].Replayed == nil || *found[0].Replayed != begin.String() {
		t.Errorf("found %+v (%v)", found, err)
	}
	if err := strong.SetLimit(time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	if got := says(t, strong); !strings.HasPrefix(got, "replica standby1 lags ") {
		t.Errorf("of a late standby it says %q", got)
	}
	all := flushed(t, conn) + 1<<20 // whatever the server writes meanwhile
	physical.report(t, all, all)
	eventuallySays(t, strong, "")
	exec(t, conn, "GRANT pg_read_all_stats TO weak")
	eventuallySays(t, weak, "")
}
