package cutover

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/proxy"
	"github.com/pgshadow/pgshadow/test/shadowtest"
)

// through lets the cutover's sessions go through a proxy that cuts them.
func (r *rig) through(t *testing.T, cut proxy.Cut) *proxy.Proxy {
	t.Helper()
	p, dsn := proxy.New(t, r.DB.DSN, cut)
	database, err := pg.Open(dsn)
	must(t, err)
	pair := &shadowtest.Pair{Database: database, Plan: r.Plan}
	r.connect = pair.AsLogin
	return p
}

// TestConnectionLostAtCommit: what became of the swap is asked of the server.
func TestConnectionLostAtCommit(t *testing.T) {
	for name, c := range map[string]struct {
		cut       proxy.Cut
		committed bool
	}{
		"before":                          {proxy.Before, false},
		"before, the server not knowing":  {proxy.Unheard, false},
		"after, without an answer":        {proxy.In, true},
		"after the answer, in good order": {proxy.After, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, pgtest.New(t), rows, toBigint)
			r.config.MaxHold = time.Second
			p := r.through(t, c.cut)
			// The rehearsal has a transaction of its own: the swap's is the one to cut.
			r.compare = func(context.Context, pgx.Tx) error { p.Arm(); return nil }
			report, err := r.run(t)
			if !p.Done() {
				t.Fatal("nothing was cut")
			}
			if c.committed {
				r.requireSwapped(t, err)
				return
			}
			if err == nil || errors.Is(err, ErrUnknown) || report.Attempts != 1 {
				t.Errorf("Run returned %v after %d attempts", err, report.Attempts)
			}
			r.requireInPlace(t)
		})
	}
}

// TestAskOutcome: the transaction's status and the name's table must agree.
func TestAskOutcome(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	c := r.cutover(t)
	id := func(end string) (xid uint64) {
		t.Helper()
		conn := r.DB.Conn(t)
		tx, err := conn.Begin(t.Context())
		must(t, err)
		var text string
		must(t, tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text").Scan(&text))
		xid, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
		_, err = tx.Exec(t.Context(), end)
		must(t, err)
		return xid
	}
	require := func(name string, xid uint64, want Outcome, fails bool) {
		t.Helper()
		got, err := c.askOutcome(t.Context(), xid)
		if got != want || (err != nil) != fails {
			t.Errorf("%s: the outcome is %s, error %v", name, got, err)
		}
	}
	require("rolled back, the original in place", id("ROLLBACK"), NotCommitted, false)
	require("committed, the original in place", id("COMMIT"), Unknown, true)
	require("in progress", id("SELECT 1"), Unknown, false)
	require("so old that the server has forgotten it", 3, Unknown, false)
	r.DB.Exec(t, "ALTER TABLE t RENAME TO elsewhere")
	require("committed, no table of that name", id("COMMIT"), Committed, false)
	r.DB.Exec(t, "CREATE TABLE t (id int)")
	require("committed, another table in place", id("COMMIT"), Committed, false)
	require("rolled back, another table in place", id("ROLLBACK"), Unknown, true)
}

// TestUnknownOutcome: the connection is lost and the server stays away.
func TestUnknownOutcome(t *testing.T) {
	db := pgtest.New(t)
	conn := db.Conn(t)
	tx, err := conn.Begin(t.Context())
	must(t, err)
	db.Exec(t, "SELECT pg_terminate_backend($1)", conn.PgConn().PID())
	asked := 0
	errAway := errors.New("the server is away")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := &Cutover{connect: func(context.Context, string) (*pgx.Conn, error) { asked++; return nil, errAway }}
		ended, cancel := context.WithCancel(t.Context())
		cancel() // a run that is being stopped asks all the same
		err := c.commit(ended, tx, 4711)
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, errAway) || !pg.IsConnection(err) {
			t.Errorf("the commit returned %v", err)
		}
		if took := time.Since(began); took != outcomeLimit {
			t.Errorf("it was given up after %s", took)
		}
	})
	if asked < 100 {
		t.Errorf("the server was asked %d times", asked)
	}
	for outcome, want := range map[Outcome]string{NotCommitted: "not committed", Committed: "committed", Unknown: "unknown", 7: "outcome 7"} {
		if outcome.String() != want {
			t.Errorf("outcome %d is called %s", int(outcome), outcome)
		}
	}
}
