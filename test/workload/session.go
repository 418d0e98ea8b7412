package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Diverged is the error of a workload that finds, while it runs, that the table and its mirror differ: a write was lost,
// changed or resurrected. The transaction that found it was rolled back, so Check finds it too.
type Diverged struct {
	Kind          Kind   // what the writer did
	SQL           string // its statement on the mirror
	Table, Mirror string // the rows in the table and in the mirror, or why there is none
}

// Error describes the difference.
func (d *Diverged) Error() string {
	return fmt.Sprintf("table and mirror differ, found by %v: table %s, mirror %s, by %s", d.Kind, d.Table, d.Mirror, shorten(d.SQL, 300))
}

// row is a row as returned by the server, in text form; nil is NULL.
type row []*string

func (r row) equal(other row, cols []Column) bool {
	if len(r) != len(other) {
		return false
	}
	for i := range r {
		if i < len(cols) && cols[i].Blind {
			continue
		}
		if (r[i] == nil) != (other[i] == nil) || r[i] != nil && *r[i] != *other[i] {
			return false
		}
	}
	return true
}

func (r row) String() string {
	vals := make([]string, len(r))
	for i, v := range r {
		if v == nil {
			vals[i] = "NULL"
		} else {
			vals[i] = fmt.Sprintf("%q", shorten(*v, 60))
		}
	}
	return "(" + strings.Join(vals, ", ") + ")"
}

// session is one connection of a writer. Not safe for concurrent use.
type session struct {
	w    *Workload
	id   int
	conn *pgx.Conn
	r    *rand.Rand
	kind Kind   // of the transaction in hand
	at   stamp  // when the last COMMIT was sent
	col  string // the column UpdateEach changed
	gid  string // a transaction prepared and not yet decided
	turn int    // alternates the variants of a kind

	locked bool    // the transaction in hand has written, so it holds row locks
	fresh  []int64 // the ordinals it took at the end of a range
	band   band    // the ordinals Big inserted
}

func (w *Workload) newSession(ctx context.Context, id int) (*session, error) {
	s := &session{w: w, id: id, r: rand.New(rand.NewPCG(uint64(w.seed), uint64(id)))}
	return s, s.connect(ctx)
}

func (s *session) connect(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.w.config.Copy())
	if err != nil {
		return fmt.Errorf("connecting writer %d: %w", s.id, err)
	}
	s.conn = conn
	return nil
}

// connConfig makes values print in one way, and names nothing that outlives a statement: no prepared statements, no cached
// descriptions, so that the table can be swapped underneath.
func connConfig(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("reading the connection string: %w", err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	for name, value := range map[string]string{
		"application_name": "pgshadow-workload", "client_encoding": "UTF8", "timezone": "UTC", "datestyle": "ISO",
		"intervalstyle": "postgres", "bytea_output": "hex", "extra_float_digits": "1", "standard_conforming_strings": "on",
		"default_transaction_isolation": "read committed",
	} {
		config.RuntimeParams[name] = value
	}
	return config, nil
}

// query runs a statement and returns its rows.
func (s *session) query(ctx context.Context, sql string, args ...any) ([]row, error) {
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("running %q: %w", shorten(sql, 300), err)
	}
	defer rows.Close()
	var out []row
	for rows.Next() {
		var r row
		for _, raw := range rows.RawValues() {
			if raw == nil {
				r = append(r, nil)
			} else {
				text := string(raw)
				r = append(r, &text)
			}
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("running %q: %w", shorten(sql, 300), err)
	}
	return out, nil
}

// exec runs a statement without rows and returns the number it touched.
func (s *session) exec(ctx context.Context, sql string, args ...any) (int64, error) {
	tag, err := s.conn.Exec(ctx, sql, args...)
	if err != nil {
		return 0, fmt.Errorf("running %q: %w", shorten(sql, 300), err)
	}
	return tag.RowsAffected(), nil
}

// mirror runs a statement on the mirror and compares its rows with those of the table's statement.
func (s *session) mirror(ctx context.Context, want []row, sql string, args ...any) error {
	s.locked = true
	got, err := s.query(ctx, sql, args...)
	if err != nil {
		return s.mirrorError(err, sql, fmt.Sprint(want))
	}
	sorted := func(rows []row) []row {
		return slices.SortedFunc(slices.Values(rows), func(a, b row) int {
			return strings.Compare(fmt.Sprint(a[:len(s.w.spec.Key)]), fmt.Sprint(b[:len(s.w.spec.Key)]))
		})
	}
	if len(want) > 1 {
		want, got = sorted(want), sorted(got)
	}
	if !slices.EqualFunc(want, got, func(a, b row) bool { return a.equal(b, s.w.sql.cols) }) {
		return &Diverged{Kind: s.kind, SQL: sql, Table: fmt.Sprint(want), Mirror: fmt.Sprint(got)}
	}
	return nil
}

// mirrorError makes a unique violation on the mirror what it is: the table had no such row.
func (s *session) mirrorError(err error, sql, table string) error {
	if sqlState(err) == "23505" {
		return &Diverged{Kind: s.kind, SQL: sql, Table: table, Mirror: "has the key already: " + err.Error()}
	}
	return err
}

// mirrorCount compares the numbers of rows two statements touched.
func (s *session) mirrorCount(ctx context.Context, want int64, sql string, args ...any) error {
	got, err := s.exec(ctx, sql, args...)
	if err != nil {
		return s.mirrorError(err, sql, fmt.Sprintf("%d rows", want))
	}
	if got != want {
		return &Diverged{Kind: s.kind, SQL: sql, Table: fmt.Sprintf("%d rows", want), Mirror: fmt.Sprintf("%d rows", got)}
	}
	return nil
}

// tx runs body in a transaction: commits it if body did its work, rolls it back if not.
func (s *session) tx(ctx context.Context, body func() (bool, error)) (bool, error) {
	return s.txEnding(ctx, body, func() error {
		s.at = s.w.ledger.stamp()
		if err := s.end(ctx, "COMMIT"); err != nil {
			return err
		}
		s.publish()
		return nil
	})
}

// publish lets the other writers pick the keys that this one added at the end of their range.
func (s *session) publish() {
	for _, ord := range s.fresh {
		s.w.spec.space.publish(ord)
	}
}

// txEnding is tx with another end than COMMIT.
func (s *session) txEnding(ctx context.Context, body func() (bool, error), end func() error) (bool, error) {
	s.locked, s.fresh = false, nil
	if _, err := s.exec(ctx, "BEGIN"); err != nil {
		return false, err
	}
	done, err := body()
	switch {
	case err != nil:
		return false, errors.Join(err, s.rollback(ctx))
	case !done:
		return false, s.rollback(ctx)
	default:
		return true, end()
	}
}

// end sends COMMIT or PREPARE TRANSACTION; the server answers ROLLBACK without an error if the transaction had failed.
func (s *session) end(ctx context.Context, sql string) error {
	tag, err := s.conn.Exec(ctx, sql)
	if err != nil {
		return fmt.Errorf("running %q: %w", sql, err)
	}
	if tag.String() == "ROLLBACK" {
		return fmt.Errorf("running %q: the server rolled back", sql)
	}
	return nil
}

func (s *session) rollback(ctx context.Context) error {
	if s.conn.IsClosed() {
		return nil
	}
	_, err := s.exec(ctx, "ROLLBACK")
	return err
}

// close ends the connection; the server rolls back what is open.
func (s *session) close(ctx context.Context) error {
	if s.conn == nil || s.conn.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.conn.Close(ctx); err != nil {
		return fmt.Errorf("closing writer %d: %w", s.id, err)
	}
	return nil
}

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// refused reports whether the server refused a transaction for a reason that writers must expect.
func refused(err error) bool {
	if _, ok := errors.AsType[*Diverged](err); ok {
		return false
	}
	switch sqlState(err) {
	case "23505", "40001", "40P01", "55P03":
		return true
	}
	return false
}

// settle deals with the error of a transaction: nil if the writer may go on.
func (s *session) settle(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case s.conn.IsClosed() && s.w.opts.Reconnect:
		return s.reconnect(ctx, err)
	case s.conn.IsClosed():
		return err
	case refused(err):
		s.w.ledger.abort(sqlState(err))
		return nil
	default:
		return err
	}
}

// reconnect tries until it has a connection, the workload ends or ctx does.
func (s *session) reconnect(ctx context.Context, cause error) error {
	if _, ok := errors.AsType[*Diverged](cause); ok {
		return cause
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.w.ledger.ended:
			return nil
		case <-wait.C:
		}
		if err := s.connect(ctx); err == nil {
			s.w.ledger.reconnected()
			if err := s.decide(ctx); err == nil || !s.conn.IsClosed() {
				return err
			}
		}
		wait.Reset(50 * time.Millisecond)
	}
}
