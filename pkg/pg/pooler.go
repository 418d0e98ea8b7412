package pg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// protocolViolation is how PgBouncer refuses what it does not pass on: a startup
// parameter that it does not know, and a transaction in statement mode.
const protocolViolation = "08P01"

const (
	// probeLimit bounds what PoolMode asks: a pooler without a free server session
	// keeps its client waiting.
	probeLimit = 15 * time.Second
	// probeRounds is how often two sessions are held against each other before a
	// pooler is believed to keep them apart. One shows a sharing pooler that is
	// otherwise idle, two one that goes round. Other clients of it, or several of its
	// processes behind one address, may hide it for a round.
	probeRounds = 8
)

// PoolMode is how the connection pooler that a Database leads to gives its
// clients sessions on the server.
type PoolMode int

// The modes, in PgBouncer's words.
const (
	Direct          PoolMode = iota // no pooler is seen
	SessionMode                     // a client keeps its server session until it disconnects
	TransactionMode                 // until its transaction ends
	StatementMode                   // until its statement ends
	UnknownMode                     // a pooler that kept from being asked
)

func (m PoolMode) String() string {
	switch m {
	case Direct:
		return "direct"
	case SessionMode:
		return "session"
	case TransactionMode:
		return "transaction"
	case StatementMode:
		return "statement"
	case UnknownMode:
		return "unknown"
	default:
		return "unknown"
	}
}

// PoolerError says that what a Database leads to gives no session of the server
// with the settings that were asked for, as a connection pooler does.
type PoolerError struct {
	Target   string // host, port and database
	Mode     PoolMode
	Unpinned []string // settings that are not as they were asked for
	Err      error    // what was answered; nil: nothing worth telling
}

func (e *PoolerError) Error() string {
	switch {
	case e.Mode == TransactionMode || e.Mode == StatementMode:
		return fmt.Sprintf("%s leads to a connection pooler in %s mode: a session does not keep its server session, with its locks and settings", e.Target, e.Mode)
	case e.Mode == UnknownMode:
		return fmt.Sprintf("%s leads to a connection pooler whose mode cannot be told: %s", e.Target, e.answer())
	case len(e.Unpinned) > 0:
		return fmt.Sprintf("a session of %s does not have the settings that it was opened with, as behind a connection pooler: %s", e.Target, strings.Join(e.Unpinned, ", "))
	default:
		return fmt.Sprintf("%s leads to a connection pooler that does not pass on what a session is opened with: %s", e.Target, e.answer())
	}
}

// answer is the pooler's own words, without the way to them.
func (e *PoolerError) answer() string {
	if answered := Server(e.Err); answered != nil {
		return answered.Error()
	}
	return fmt.Sprint(e.Err)
}

func (e *PoolerError) Unwrap() error { return e.Err }

// Pooled tells whether a session of d came through a connection pooler in session
// mode, with all its settings.
func (d *Database) Pooled() bool { return d.pooled.Load() }

// PoolMode opens a session, and further ones when it came through a pooler, and
// tells how they are pooled. None of them has more than a name, so that every
// pooler lets them in, and nothing that they do outlasts a transaction. The error
// says why no session was had, or with UnknownMode why the mode cannot be told.
func (d *Database) PoolMode(ctx context.Context) (PoolMode, error) {
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	first, err := d.probe(limited)
	if err != nil {
		return Direct, err
	}
	defer closeProbe(ctx, first)
	own, err := backend(limited, first)
	if err != nil {
		return Direct, err
	}
	if own == first.PID() {
		return Direct, nil
	}
	mode := SessionMode
	for round := 0; round < probeRounds && mode == SessionMode; round++ {
		mode, err = d.holdAgainst(limited, first, own)
	}
	return mode, err
}

// holdAgainst looks once whether the first session, whose server session was own,
// shares it with a second one. A pooler hands out the server session that was given
// back last, which the second one gets then, or goes round, so that the first one
// gets another, or the second one its.
func (d *Database) holdAgainst(ctx context.Context, first *pgconn.PgConn, own uint32) (PoolMode, error) {
	second, err := d.probe(ctx)
	if err != nil {
		return UnknownMode, err
	}
	defer closeProbe(ctx, second)
	outside, err := backend(ctx, second)
	if err != nil {
		return UnknownMode, err
	}
	_, err = second.Exec(ctx, "BEGIN").ReadAll()
	if Is(err, protocolViolation) {
		return StatementMode, nil
	}
	if err != nil {
		return UnknownMode, fmt.Errorf("beginning a transaction: %w", err)
	}
	inside, err := backend(ctx, second)
	if err != nil {
		return UnknownMode, err
	}
	shared := outside == own || inside == own
	if !shared { // else the first might wait for the second
		after, err := backend(ctx, first)
		if err != nil {
			return UnknownMode, err
		}
		shared = after != own
	}
	if _, err := second.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		return UnknownMode, fmt.Errorf("rolling back: %w", err)
	}
	if shared {
		return TransactionMode, nil
	}
	return SessionMode, nil
}

// probe opens a session with nothing but a name.
func (d *Database) probe(ctx context.Context) (*pgconn.PgConn, error) {
	config := d.config.Copy()
	// No statement of these is worth a cancel request, which poolers may not pass on.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
	}
	config.RuntimeParams = map[string]string{"application_name": "pgshadow probe"}
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", d.Target(), err)
	}
	return conn, nil
}

func closeProbe(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := Cleanup(ctx)
	defer cancel()
	_ = conn.Close(ctx) // it holds nothing, and the pooler may have closed it
}

// backend asks for the process id of the session's backend, by the simple
// protocol, which every pooler knows.
func backend(ctx context.Context, conn *pgconn.PgConn) (uint32, error) {
	results, err := conn.Exec(ctx, "SELECT pg_catalog.pg_backend_pid()").ReadAll()
	if err != nil {
		return 0, fmt.Errorf("asking for a backend's process id: %w", err)
	}
	return parsePID(results)
}

func parsePID(results []*pgconn.Result) (uint32, error) {
	if len(results) == 0 || len(results[0].Rows) == 0 {
		return 0, errors.New("asking for a backend's process id: no row came back")
	}
	pid, err := strconv.ParseUint(string(results[0].Rows[0][0]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("reading a backend's process id: %w", err)
	}
	return uint32(pid), nil
}

// settle looks whether a new session is the client's own and has the settings that
// it was opened with, and only then changes anything about it. The error is a
// *PoolerError when it is not to be used. pooled tells that it came through a pooler.
func (d *Database) settle(ctx context.Context, conn *pgconn.PgConn, asked map[string]string) (pooled bool, err error) {
	pid, unpinned, err := inspect(ctx, conn, asked)
	if err != nil {
		return false, err
	}
	pooled = pid != conn.PID()
	if pooled || len(unpinned) > 0 {
		if err := d.judge(ctx, pooled, unpinned); err != nil {
			return false, err
		}
	}
	if _, err := conn.Exec(ctx, isoDates+"; "+noTransactionTimeout+"; "+bytesAsTheyAre).ReadAll(); err != nil {
		return false, fmt.Errorf("pinning DateStyle, transaction_timeout and client_encoding: %w", err)
	}
	return pooled, nil
}

// inspect returns the process id of the session's backend, and which settings are
// not what was asked for, now or after a SET ... TO DEFAULT (ExecAs ends with one).
// The server itself compares spellings: '5000' is '5s'. What it sets for that ends
// with the statement. The statement names no operator: search_path may be anybody's.
func inspect(ctx context.Context, conn *pgconn.PgConn, asked map[string]string) (pid uint32, unpinned []string, err error) {
	var values []string
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		if name != "application_name" { // a label, to which poolers add
			values = append(values, fmt.Sprintf("(%s, %s)", Literal(name), Literal(asked[name])))
		}
	}
	results, err := conn.Exec(ctx, `SELECT pg_catalog.pg_backend_pid(), name, pg_catalog.current_setting(name),
		pg_catalog.set_config(name, value, true), pg_catalog.set_config(name, NULL, true)
		FROM (VALUES `+strings.Join(values, ", ")+`) AS asked (name, value)`).ReadAll()
	if err != nil {
		return 0, nil, fmt.Errorf("checking the settings of the session: %w", err)
	}
	if pid, err = parsePID(results); err != nil {
		return 0, nil, err
	}
	for _, row := range results[0].Rows {
		name, now, want, reset := string(row[1]), string(row[2]), string(row[3]), string(row[4])
		if now != want || reset != want {
			unpinned = append(unpinned, name)
		}
	}
	return pid, unpinned, nil
}

// judge decides on a session that came through a pooler, or lacks settings.
func (d *Database) judge(ctx context.Context, pooled bool, unpinned []string) error {
	mode := SessionMode
	if !d.Pooled() {
		var err error
		mode, err = d.PoolMode(ctx)
		if pooled && mode == Direct {
			mode, err = UnknownMode, cmp.Or(err, errors.New("one session came through it and another did not"))
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
		if mode != Direct && mode != SessionMode {
			return &PoolerError{Target: d.Target(), Mode: mode, Unpinned: unpinned, Err: err}
		}
	}
	if len(unpinned) > 0 {
		return &PoolerError{Target: d.Target(), Mode: mode, Unpinned: unpinned}
	}
	d.pooled.Store(true)
	return nil
}

// notStarted makes a *PoolerError of the error with which a session was refused,
// where it was a pooler that did. A server says it in other words.
func (d *Database) notStarted(ctx context.Context, err error) error {
	if !Is(err, protocolViolation) {
		return err
	}
	mode, probeErr := d.PoolMode(ctx)
	if probeErr != nil {
		err = fmt.Errorf("%w; %w", probeErr, err)
	}
	if mode == Direct {
		return err // no pooler, or one that lets nobody in, whatever a session is opened with
	}
	return &PoolerError{Target: d.Target(), Mode: mode, Err: err}
}

// ProbePooler opens, and closes again, the kinds of session that a run will need,
// where sessions come through a pooler: one with a setting that no other session
// has, for the server may have what others were opened with by itself, and a
// replication connection, which few poolers pass on. The error is a *PoolerError
// when this one does not.
func (d *Database) ProbePooler(ctx context.Context) error {
	if !d.Pooled() {
		return nil
	}
	conn, err := d.With(map[string]string{"lock_timeout": Milliseconds(DefaultLockTimeout - time.Millisecond)}).Connect(ctx, "probe")
	if err != nil {
		return err
	}
	if err := Close(ctx, conn); err != nil {
		return fmt.Errorf("closing a session: %w", err)
	}
	walsender, err := d.ConnectReplication(ctx, "probe")
	if err != nil {
		return err
	}
	ctx, cancel := Cleanup(ctx)
	defer cancel()
	if err := walsender.Close(ctx); err != nil {
		return fmt.Errorf("closing a replication connection: %w", err)
	}
	return nil
}

// requireWalsender tells a walsender from an ordinary session: a pooler that
// ignores the parameter replication gives one of those.
func (d *Database) requireWalsender(ctx context.Context, conn *pgconn.PgConn) error {
	if _, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll(); err != nil {
		return &PoolerError{Target: d.Target(), Mode: SessionMode, Err: fmt.Errorf("identifying the system on a replication connection: %w", err)}
	}
	return nil
}
