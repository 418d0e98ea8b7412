package pg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// CleanupTimeout bounds work that has to happen although the caller's context
// has already ended: a rollback, closing a session, dropping an artifact.
const CleanupTimeout = 15 * time.Second

// DefaultLockTimeout is the lock_timeout of every session that does not ask for
// another one. No statement of pgshadow waits longer for a lock.
const DefaultLockTimeout = 5 * time.Second

// Database is where sessions come from. It holds no connection itself and is
// safe for concurrent use.
type Database struct {
	config   *pgx.ConnConfig
	settings map[string]string
	pooled   *atomic.Bool // see Pooled; one for all that With makes
}

// Open reads a connection string (URL or key=value; empty means libpq's own
// environment variables, see PostgreSQL manual section 34.15). It does not connect.
func Open(dsn string) (*Database, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("reading the connection settings: %w", withoutPassword(err))
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 15 * time.Second
	}
	dialSoon(config)
	// No statement is prepared under a name: code of a table's owner could PREPARE
	// another one in its place, for the session to run with its own rights (INV-6).
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	// A context that ends cancels the query on the server and keeps the session,
	// so that a long statement does not run on after its client has gone.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, CancelRequestDelay: 0, DeadlineDelay: CleanupTimeout}
	}
	return &Database{config: config, settings: map[string]string{}, pooled: new(atomic.Bool)}, nil
}

// withoutPassword keeps the reason of a parse error; pgconn has already replaced
// the password in the string it quotes, the connection string itself is dropped.
func withoutPassword(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// With returns a Database whose sessions also carry the given settings
// (PostgreSQL manual chapter 20, names and values as in SET).
func (d *Database) With(settings map[string]string) *Database {
	merged := maps.Clone(d.settings)
	maps.Copy(merged, settings)
	return &Database{config: d.config, settings: merged, pooled: d.pooled}
}

// Target names host, port and database for messages, never a password.
func (d *Database) Target() string {
	return fmt.Sprintf("%s:%d/%s", d.config.Host, d.config.Port, d.config.Database)
}

// Connect opens a session. purpose becomes the tail of its application_name.
// Settings that could change a result or hold the server are pinned. TimeZone and
// the order of day and month are the login role's own, so that an expression gives
// what a plain ALTER TABLE would give; dates are written in ISO style. The error is
// a *PoolerError when a connection pooler keeps from having such a session.
func (d *Database) Connect(ctx context.Context, purpose string) (*pgx.Conn, error) {
	settings := sessionSettings(purpose)
	maps.Copy(settings, d.settings)
	return d.connect(ctx, settings)
}

func (d *Database) connect(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	config := d.config.Copy()
	maps.Copy(config.RuntimeParams, settings)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, d.notStarted(ctx, fmt.Errorf("connecting to %s: %w", d.Target(), err))
	}
	if _, err := d.settle(ctx, conn.PgConn(), d.asked(settings)); err != nil {
		return nil, errors.Join(err, Close(ctx, conn))
	}
	return conn, nil
}

// asked is what a session must have: the settings, and where they leave the
// search_path to the login, that of the connection string.
func (d *Database) asked(settings map[string]string) map[string]string {
	path, given := d.config.RuntimeParams["search_path"]
	if _, pinned := settings["search_path"]; pinned || !given {
		return settings
	}
	settings = maps.Clone(settings)
	settings["search_path"] = path
	return settings
}

// isoDates has dates written so that they read back as the same: the other
// styles write time zones that they cannot read. It is sent as a statement, which
// keeps the login role's order of day and month; a startup option would not.
const isoDates = "SET datestyle = 'ISO'"

// noTransactionTimeout lifts transaction_timeout, which the server has from
// PostgreSQL 17 on; an older one would take no session that asks for it at startup.
const noTransactionTimeout = `SELECT CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
	THEN pg_catalog.set_config('transaction_timeout', '0', false) END`

// bytesAsTheyAre is for databases of no encoding, SQL_ASCII, whose text may be any
// bytes: to a session that says UTF8 the server hands out none that are no UTF-8,
// and takes none from it (PostgreSQL manual section 24.3.3).
const bytesAsTheyAre = `SELECT CASE pg_catalog.current_setting('server_encoding') WHEN 'SQL_ASCII'
	THEN pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) END`

// ConnectAsLogin opens a session whose search_path is the login role's own: it is
// what a name without a schema means to the user.
func (d *Database) ConnectAsLogin(ctx context.Context, purpose string) (*pgx.Conn, error) {
	settings := sessionSettings(purpose)
	delete(settings, "search_path")
	return d.connect(ctx, settings)
}

func sessionSettings(purpose string) map[string]string {
	return map[string]string{
		"application_name":                    ApplicationName(purpose),
		"client_encoding":                     "UTF8",
		"client_min_messages":                 "warning",
		"search_path":                         "",
		"statement_timeout":                   "0",
		"lock_timeout":                        Milliseconds(DefaultLockTimeout),
		"idle_in_transaction_session_timeout": "120000",
		"idle_session_timeout":                "0",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"default_transaction_deferrable":      "off",
		"role":                                "none",
		"quote_all_identifiers":               "off",
		"row_security":                        "off",
		"synchronous_commit":                  "local", // a standby that is away must not stop a run
		"standard_conforming_strings":         "on",
		"extra_float_digits":                  "1",
		"bytea_output":                        "hex",
		"intervalstyle":                       "postgres",
		"jit":                                 "off",
		"plan_cache_mode":                     "force_custom_plan",
	}
}

// ConnectReplication opens a walsender session on the database (PostgreSQL
// manual section 55.4). It spells values as every session of Connect does, so that
// the same key has the same text wherever it was read. The error is a *PoolerError
// when a connection pooler keeps from having such a session.
func (d *Database) ConnectReplication(ctx context.Context, purpose string) (*pgconn.PgConn, error) {
	config := d.config.Copy()
	// Reading the stream ends many waits by a deadline; none of them may cancel it.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
	}
	settings := map[string]string{
		"application_name":   ApplicationName(purpose),
		"role":               "none",
		"client_encoding":    "UTF8",
		"extra_float_digits": "1",
		"bytea_output":       "hex",
		"intervalstyle":      "postgres",
		"search_path":        "",
		"statement_timeout":  "0",
	}
	maps.Copy(config.RuntimeParams, settings)
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return nil, d.notStarted(ctx, fmt.Errorf("opening a replication connection to %s: %w", d.Target(), err))
	}
	pooled, err := d.settle(ctx, conn, settings)
	if err == nil && pooled {
		err = d.requireWalsender(ctx, conn)
	}
	if err != nil {
		closing, cancel := Cleanup(ctx)
		defer cancel()
		return nil, errors.Join(err, conn.Close(closing))
	}
	return conn, nil
}

// ApplicationName is what a session for that purpose is called in pg_stat_activity.
func ApplicationName(purpose string) string { return "pgshadow " + purpose }

// Milliseconds renders a duration as PostgreSQL settings take it. What is shorter
// than a millisecond becomes one: zero would mean no limit at all.
func Milliseconds(d time.Duration) string {
	if d > 0 && d < time.Millisecond {
		d = time.Millisecond
	}
	return strconv.FormatInt(d.Milliseconds(), 10)
}

// Close ends a session within CleanupTimeout, even when ctx has ended.
func Close(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := Cleanup(ctx)
	defer cancel()
	return conn.Close(ctx)
}

// Cleanup derives a context for work that must still be done when ctx has ended.
func Cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), CleanupTimeout)
}

// Execer is a session or a transaction.
type Execer interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
}

// InTx runs work in a transaction: commits when it returns nil, else rolls back
// and returns work's error joined with any of the rollback's.
func InTx(ctx context.Context, conn *pgx.Conn, options pgx.TxOptions, work func(tx pgx.Tx) error) error {
	tx, err := conn.BeginTx(ctx, options)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := work(tx); err != nil {
		return errors.Join(err, Rollback(ctx, tx))
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// Rollback ends a transaction even when ctx has ended. A connection that is
// already closed has rolled back by itself.
func Rollback(ctx context.Context, tx pgx.Tx) error {
	ctx, cancel := Cleanup(ctx)
	defer cancel()
	err := tx.Rollback(ctx)
	if err == nil || errors.Is(err, pgx.ErrTxClosed) || tx.Conn().IsClosed() {
		return nil
	}
	return fmt.Errorf("rolling back: %w", err)
}

// ExecAs runs one statement of pgshadow's own making in a role and with settings
// that last for it alone. An empty role is the session's own.
func ExecAs(ctx context.Context, tx pgx.Tx, role string, settings map[string]string, sql string) error {
	quoted := "NONE"
	if role != "" {
		quoted = Ident(role)
	}
	var script strings.Builder
	fmt.Fprintf(&script, "SET LOCAL ROLE %s; ", quoted)
	for name, value := range settings {
		fmt.Fprintf(&script, "SET LOCAL %s = %s; ", Ident(name), Literal(value))
	}
	script.WriteString(sql)
	for name := range settings {
		fmt.Fprintf(&script, "; SET LOCAL %s TO DEFAULT", Ident(name))
	}
	script.WriteString("; SET LOCAL ROLE NONE")
	_, err := tx.Exec(ctx, script.String())
	return err
}

// DropAsOwner runs one statement that drops something, in the role that ownerSQL
// finds by the name: the login role may be a member of it and not inherit its
// rights. What is not there has nobody to drop it.
func DropAsOwner(ctx context.Context, conn *pgx.Conn, ownerSQL, name, sql string) error {
	return InTx(ctx, conn, pgx.TxOptions{}, func(tx pgx.Tx) error {
		var owner string
		err := tx.QueryRow(ctx, ownerSQL, name).Scan(&owner)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking up the owner: %w", err)
		}
		return ExecAs(ctx, tx, owner, nil, sql)
	})
}

// ParseOne has the server parse sql and not run it. It serves text that a user
// wrote: the server itself refuses more than one statement here.
func ParseOne(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Prepare(ctx, "", sql, nil)
	return err
}
