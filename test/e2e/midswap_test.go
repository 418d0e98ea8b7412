package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// midSwapSchema is made twice: in public, where pgshadow changes t, and in the schema
// ledger, where a plain ALTER TABLE does. What a session of the application gets in one
// it must get in the other.
const midSwapSchema = `CREATE TABLE parent (id int PRIMARY KEY, v text); INSERT INTO parent SELECT i, 'p' || i FROM generate_series(1, 100) i;
	CREATE TABLE t (id int PRIMARY KEY, gone int, p int REFERENCES parent ON DELETE CASCADE, v text, n int UNIQUE);
	INSERT INTO t SELECT i, -i, 1 + i % 100, 'v' || i, i FROM generate_series(1, 2000) i;
	CREATE TABLE child (id int PRIMARY KEY, t int NOT NULL REFERENCES t ON DELETE CASCADE); INSERT INTO child SELECT i, i FROM generate_series(1, 2000) i;
	CREATE VIEW tv AS SELECT id, p, v FROM t;
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify(TG_TABLE_SCHEMA, NEW.id::text); RETURN NULL; END $$;
	CREATE TRIGGER tell AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell();
	CREATE FUNCTION f_static() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT concat_ws('|', id, p, v, n) FROM t WHERE id <= 20 ORDER BY id; END $$;
	CREATE FUNCTION f_into(i int) RETURNS text LANGUAGE plpgsql AS $$ DECLARE a text; b bigint; BEGIN SELECT v, n INTO STRICT a, b FROM t WHERE id = i; RETURN a || b; END $$;
	CREATE FUNCTION f_record() RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM t WHERE id <= 20 ORDER BY id LOOP RETURN NEXT r.id || r.v || r.p; END LOOP; END $$;
	CREATE FUNCTION f_field() RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM t WHERE id <= 20 ORDER BY id LOOP RETURN NEXT r.n; END LOOP; END $$;
	CREATE FUNCTION f_row(i int) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r t%ROWTYPE; BEGIN SELECT * INTO STRICT r FROM t WHERE id = i; RETURN concat_ws('|', r.id, r.p, r.v, r.n); END $$;
	CREATE FUNCTION f_type(i int) RETURNS text LANGUAGE plpgsql AS $$ DECLARE x t.n%TYPE; BEGIN SELECT n INTO STRICT x FROM t WHERE id = i; RETURN x; END $$;
	CREATE FUNCTION f_dynamic() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'SELECT concat_ws(''|'', id, p, v, n) FROM t WHERE id <= 20 ORDER BY id'; END $$;
	CREATE FUNCTION f_cursor() RETURNS SETOF text LANGUAGE plpgsql AS $$ DECLARE c CURSOR FOR SELECT id, v FROM t WHERE id <= 20 ORDER BY id; BEGIN FOR r IN c LOOP RETURN NEXT r.id || r.v; END LOOP; END $$;
	CREATE FUNCTION f_sql() RETURNS TABLE (a int, b text, c bigint) LANGUAGE sql AS 'SELECT id, v, n FROM t WHERE id <= 20 ORDER BY id';
	CREATE FUNCTION f_put(i int) RETURNS text LANGUAGE plpgsql AS $$ DECLARE a text; BEGIN INSERT INTO t (id, p, v, n) VALUES (i, 1, 'put', i) RETURNING v || n INTO a; RETURN a; END $$;
	`

const midSwapAlter = "ALTER COLUMN n TYPE bigint, DROP COLUMN gone, ADD COLUMN w text DEFAULT 'w'"

// session is one of the application, opened before the run.
type session struct {
	name string
	open string // once, before the run
	sql  string // before the run, while the swap has its locks, and after it; with %d: another number each time
	via  func(ctx context.Context, conn *pgx.Conn, sql string) (string, error)
	// The SQLSTATE of sql while the swap has its locks, and after it; empty: none.
	fails, failsAfter string
	// The SQLSTATE that it may get, while the swap has its locks, in place of the rows.
	mayFail string
	renew   string // after which sql works, where it has failed
	since   int    // the first version that has it; 0: all
	always  bool   // it fails in every round
	// It has its snapshot before it waits for a lock, so that PostgreSQL's own ALTER TABLE
	// would show it an empty table.
	early     bool
	reconnect bool // sql works again in a new session
}

// typeChanged is what a PL/pgSQL expression over a record gets whose field changes its type
// in the middle of the function, unless the server happens to have dropped the expression's
// plan meanwhile.
const typeChanged = "42804"

var midSwapReads = []session{
	{name: "select", sql: "SELECT * FROM t WHERE id <= 20 ORDER BY id"},
	{name: "prepared star", open: "PREPARE q AS SELECT * FROM t WHERE id BETWEEN 6 AND 20 ORDER BY id", early: true, sql: "EXECUTE q", fails: "0A000", failsAfter: "0A000",
		renew: "DEALLOCATE q; PREPARE q AS SELECT * FROM t WHERE id BETWEEN 6 AND 20 ORDER BY id"},
	{name: "prepared named columns", open: "PREPARE q AS SELECT id, p, v FROM t WHERE id BETWEEN 6 AND 20 ORDER BY id", early: true, sql: "EXECUTE q"},
	{name: "prepared changed column", open: "PREPARE q AS SELECT id, n FROM t WHERE id BETWEEN 6 AND 20 ORDER BY id", early: true, sql: "EXECUTE q", fails: "0A000", failsAfter: "0A000",
		renew: "DEALLOCATE q; PREPARE q AS SELECT id, n FROM t WHERE id BETWEEN 6 AND 20 ORDER BY id"},
	{name: "generic plan", open: "SET plan_cache_mode = force_generic_plan; PREPARE q(int) AS SELECT id, p, v FROM t WHERE id > 5 AND id <= $1 ORDER BY id", early: true, sql: "EXECUTE q(20)"},
	{name: "parameter of the old type", open: "SET plan_cache_mode = force_generic_plan; PREPARE q(int) AS SELECT id, v FROM t WHERE n = $1", early: true, sql: "EXECUTE q(15)"},
	{name: "parameter without a type", open: "PREPARE q AS SELECT id, v FROM t WHERE n = $1", early: true, sql: "EXECUTE q(15)"},
	{name: "through a view, prepared", open: "PREPARE q AS SELECT * FROM tv WHERE id BETWEEN 6 AND 20 ORDER BY id", early: true, sql: "EXECUTE q"},
	{name: "through a view", sql: "SELECT * FROM tv WHERE id <= 20 ORDER BY id"},
	{name: "join", open: "PREPARE q AS SELECT t.id, parent.v, child.id FROM parent JOIN t ON t.p = parent.id JOIN child ON child.t = t.id WHERE t.id BETWEEN 6 AND 20 ORDER BY 1", early: true, sql: "EXECUTE q"},
	{name: "extended protocol, prepared star", sql: "SELECT * FROM t WHERE id <= 20 ORDER BY id", via: prepared, fails: "0A000", failsAfter: "0A000", renew: "DEALLOCATE ALL"},
	{name: "extended protocol, prepared columns", sql: "SELECT id, p, v FROM t WHERE id <= 20 ORDER BY id", via: prepared},
	{name: "the driver's cache of statements", sql: "SELECT * FROM t WHERE id <= 20 ORDER BY id", via: cached, fails: "0A000"},
	{name: "PL/pgSQL, static SQL", sql: "SELECT f_static()"},
	{name: "PL/pgSQL, into variables", sql: "SELECT f_into(15)"},
	{name: "PL/pgSQL, a record of everything", sql: "SELECT f_record()"},
	{name: "PL/pgSQL, a field that changes its type", sql: "SELECT f_field()", mayFail: typeChanged},
	{name: "PL/pgSQL, %ROWTYPE", sql: "SELECT f_row(i) FROM generate_series(4, 20) i", mayFail: typeChanged},
	{name: "PL/pgSQL, %TYPE", sql: "SELECT f_type(i) FROM generate_series(4, 20) i", failsAfter: "22003", reconnect: true},
	{name: "PL/pgSQL, dynamic SQL", sql: "SELECT f_dynamic()"},
	{name: "PL/pgSQL, cursor", sql: "SELECT f_cursor()"},
	{name: "SQL function", sql: "SELECT * FROM f_sql()"},
	{name: "SQL function, prepared", open: "PREPARE q AS SELECT * FROM f_sql()", early: true, sql: "EXECUTE q"},
	{name: "cursor in a block", sql: "BEGIN; DECLARE c CURSOR FOR SELECT id, v FROM t WHERE id <= 20 ORDER BY id; FETCH 7 FROM c; COMMIT"},
	{name: "locks first, then takes its snapshot", sql: "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE t IN ACCESS SHARE MODE; SELECT id, v FROM t WHERE id <= 20 ORDER BY id; COMMIT"},
	{name: "copy out", early: true, sql: "COPY (SELECT id, v FROM t WHERE id BETWEEN 6 AND 20 ORDER BY id) TO STDOUT", via: copyOut},
}

// midSwapWrites each write rows of their own, above 100.
var midSwapWrites = []session{
	{name: "insert", sql: "INSERT INTO t (id, p, v, n) VALUES (%d, 1, 'insert', %[1]d) RETURNING id, v, n"},
	{name: "prepared insert with a parameter of the old type", open: "PREPARE q(int, int) AS INSERT INTO t (id, p, v, n) VALUES ($1, 1, 'prepared', $2)", sql: "EXECUTE q(%d, %[1]d)"},
	{name: "prepared update with a parameter of the old type", open: "SET plan_cache_mode = force_generic_plan; PREPARE q(int) AS UPDATE t SET v = v || 'x', n = $1 WHERE id = 110 RETURNING v", sql: "EXECUTE q(%d)"},
	{name: "prepared update of everything", open: "PREPARE q AS UPDATE t SET v = v || 'y' WHERE id = 111 RETURNING *", sql: "EXECUTE q", fails: "0A000", failsAfter: "0A000", renew: "DEALLOCATE q; PREPARE q AS UPDATE t SET v = v || 'y' WHERE id = 111 RETURNING *"},
	{name: "update", sql: "UPDATE t SET v = v || 'u' WHERE id BETWEEN 120 AND 129"},
	{name: "insert on conflict", sql: "INSERT INTO t (id, p, v, n) VALUES (130, 1, 'c', 130), (%d, 1, 'd', %[1]d) ON CONFLICT (id) DO UPDATE SET v = t.v || excluded.v"},
	{name: "prepared insert on conflict", open: "PREPARE q AS INSERT INTO t (id, p, v, n) VALUES ($1, 1, 'c', $2) ON CONFLICT (id) DO UPDATE SET v = t.v || excluded.v", sql: "EXECUTE q(131, %d)"},
	{name: "select for update", sql: "BEGIN; SELECT id, v FROM t WHERE id = 140 FOR UPDATE; UPDATE t SET v = v || 'l' WHERE id = 140; COMMIT"},
	{name: "delete", sql: "DELETE FROM t WHERE id = (SELECT max(id) FROM t WHERE id BETWEEN 150 AND 159)"},
	{name: "copy in", sql: "COPY t (id, p, v, n) FROM STDIN\n%d\t1\tcopied\t%[1]d\n", via: copyIn},
	{name: "into a child", sql: "INSERT INTO child VALUES (%d, 160)"},
	{name: "into a child, prepared", open: "PREPARE q(int) AS INSERT INTO child VALUES ($1, 161)", sql: "EXECUTE q(%d)"},
	{name: "into a child, of a row that is not there", sql: "INSERT INTO child VALUES (%d, 999999)", fails: "23503", failsAfter: "23503", always: true},
	{name: "a parent, cascading", sql: "DELETE FROM parent WHERE id = (SELECT min(id) FROM parent WHERE id BETWEEN 95 AND 99)"},
	{name: "a row, cascading to its children", sql: "DELETE FROM t WHERE id = (SELECT max(id) FROM t WHERE id BETWEEN 170 AND 175)"},
	{name: "through a view", sql: "UPDATE tv SET v = v || 'w' WHERE id = 180; INSERT INTO tv VALUES (%d, 2, 'by view')"},
	{name: "PL/pgSQL", sql: "SELECT f_put(%d)"},
	{name: "serializable", sql: "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE t IN ROW EXCLUSIVE MODE; UPDATE t SET v = v || 's' WHERE id = 190; COMMIT"},
	{name: "temporary table", open: "CREATE TEMPORARY TABLE mine (id int, v text); INSERT INTO mine VALUES (191, 'mine')", sql: "UPDATE t SET v = t.v || mine.v FROM mine WHERE t.id = mine.id"},
	{name: "merge", sql: "MERGE INTO t USING (VALUES (192, 'm')) AS s (id, v) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = t.v || s.v", since: 15},
}

// prepared runs a statement that it has prepared at its first use.
func prepared(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	const count = "SELECT count(*) FROM pg_prepared_statements WHERE name = 's'"
	if n, err := text(ctx, conn, count); err != nil {
		return "", err
	} else if n == "0\n" {
		if _, err := conn.PgConn().Prepare(ctx, "s", sql, nil); err != nil {
			return "", err
		}
	}
	result := conn.PgConn().ExecPrepared(ctx, "s", nil, nil, nil).Read()
	return lines(result.Rows), result.Err
}

// cached leaves it to the driver to prepare.
func cached(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	rows, err := conn.Query(ctx, sql, pgx.QueryResultFormats{pgx.TextFormatCode})
	if err != nil {
		return "", err
	}
	var all [][][]byte
	for rows.Next() {
		var row [][]byte
		for _, value := range rows.RawValues() {
			row = append(row, append([]byte(nil), value...))
		}
		all = append(all, row)
	}
	return lines(all), rows.Err()
}

func copyOut(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	var b strings.Builder
	_, err := conn.PgConn().CopyTo(ctx, &b, sql)
	return b.String(), err
}

// copyIn takes the rows from the second line of sql on.
func copyIn(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	statement, rows, _ := strings.Cut(sql, "\n")
	_, err := conn.PgConn().CopyFrom(ctx, strings.NewReader(rows), statement)
	return "", err
}

// answer is what a session got.
type answer struct{ rows, state string }

// twins are the session's two connections: one in public, one in the ledger.
type twins struct {
	session
	at             int // which of them it is
	public, ledger *pgx.Conn
}

func openTwins(t *testing.T, db *pgtest.DB, sessions []session) []*twins {
	t.Helper()
	version := pgtest.Scalar[int](t, db, "SELECT current_setting('server_version_num')::int / 10000")
	var all []*twins
	for i, s := range sessions {
		if s.since > version {
			continue
		}
		pair := &twins{session: s, at: i, public: db.Conn(t), ledger: db.Conn(t)}
		mustExec(t, pair.ledger, "SET search_path = ledger")
		for _, conn := range []*pgx.Conn{pair.public, pair.ledger} {
			mustExec(t, conn, s.open)
		}
		all = append(all, pair)
	}
	return all
}

// ask runs the session's statement, which writes other rows in every round.
func (p *twins) ask(ctx context.Context, conn *pgx.Conn, round int) answer {
	sql := p.sql
	if strings.Contains(sql, "%d") {
		sql = fmt.Sprintf(sql, 3000+100*round+p.at)
	}
	return ask(ctx, conn, p.via, sql)
}

// ask runs a statement as via does; nil is as text.
func ask(ctx context.Context, conn *pgx.Conn, via func(context.Context, *pgx.Conn, string) (string, error), sql string) answer {
	if via == nil {
		via = text
	}
	rows, err := via(ctx, conn, sql)
	return answer{rows, sqlState(err)}
}

// require fails unless the session got what it did in the ledger, with the SQLSTATE.
func (p *twins) require(t *testing.T, round int, got, want answer, state string) {
	t.Helper()
	if got != want {
		t.Errorf("%s, round %d: got %+v, the ledger says %+v", p.name, round, got, want)
	}
	if got.state != state {
		t.Errorf("%s, round %d: the SQLSTATE is %q, want %q", p.name, round, got.state, state)
	}
}

// askAll asks every session one after the other.
func askAll(t *testing.T, all []*twins, round int, state func(session) string) {
	t.Helper()
	for _, p := range all {
		p.require(t, round, p.ask(t.Context(), p.public, round), p.ask(t.Context(), p.ledger, round), state(p.session))
	}
}

// blocked has all sessions ask at once, and unblocks them when each waits for a lock.
func blocked(t *testing.T, db *pgtest.DB, all []*twins, conn func(*twins) *pgx.Conn, unblock func()) map[*twins]answer {
	t.Helper()
	answers := make([]answer, len(all))
	var waiting sync.WaitGroup
	for i, p := range all {
		waiting.Go(func() { answers[i] = p.ask(t.Context(), conn(p), 2) })
	}
	awaitBlocked(t, db, len(all))
	unblock()
	waiting.Wait()
	got := map[*twins]answer{}
	for i, p := range all {
		got[p] = answers[i]
	}
	return got
}

func never(s session) string {
	if s.always {
		return s.fails
	}
	return ""
}

// inBoth runs statements in public and in the ledger, in a transaction of each.
func inBoth(t *testing.T, conns []*pgx.Conn, sql string) {
	t.Helper()
	for _, conn := range conns {
		mustExec(t, conn, sql)
	}
}

// TestSessionsInTheMiddleOfTheSwap has sessions of an application that were opened before
// the run. They work before it, wait for its locks while it swaps, and work on. Each gets
// what it would get of a plain ALTER TABLE: the right rows, or PostgreSQL's own error.
func TestSessionsInTheMiddleOfTheSwap(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{})) // the sessions' transactions are nobody else's to wait for
	db.Exec(t, midSwapSchema)
	db.Exec(t, "CREATE SCHEMA ledger; SET search_path = ledger; "+midSwapSchema)
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{midSwapAlter}}
	all := openTwins(t, db, slices.Concat(midSwapReads, midSwapWrites))
	listener := db.Conn(t)
	mustExec(t, listener, "LISTEN public; LISTEN ledger")
	writers := []*pgx.Conn{db.Conn(t), db.Conn(t)}
	mustExec(t, writers[1], "SET search_path = ledger")
	askAll(t, all, 0, never)

	swap := holdSwap(t, db, config)
	askAll(t, all, 1, never)
	inBoth(t, writers, "BEGIN; SELECT FROM t WHERE id = 5 FOR UPDATE; UPDATE t SET v = 'late' || id WHERE id IN (1, 2); DELETE FROM t WHERE id = 3; INSERT INTO t (id, p, v, n) VALUES (0, 1, 'new', 0)")
	// First the ledger: what the run does at its end has every session plan anew.
	const last = "UPDATE t SET v = 'locked' WHERE id = 5; COMMIT"
	mustExec(t, writers[1], last+"; BEGIN; ALTER TABLE t "+midSwapAlter)
	want := blocked(t, db, slices.DeleteFunc(slices.Clone(all), func(p *twins) bool { return p.early }), func(p *twins) *pgx.Conn { return p.ledger },
		func() { mustExec(t, writers[1], "COMMIT") })
	swap.begin(t)
	swap.awaitQueue(t)
	mustExec(t, writers[0], last)
	swap.awaitHeld(t)
	got := blocked(t, db, all, func(p *twins) *pgx.Conn { return p.public }, func() {
		if report := swap.release(t); report.Cutover.Attempts != 1 || report.Cutover.Keys < 5 {
			t.Errorf("the cutover is %+v, want one attempt that replays under the lock", report.Cutover)
		}
	})
	for _, p := range all {
		if p.mayFail != "" && got[p].state == p.mayFail {
			continue
		}
		if p.early || p.mayFail != "" {
			want[p] = p.ask(t.Context(), p.ledger, 2)
		}
		p.require(t, 2, got[p], want[p], p.fails)
	}
	inBoth(t, writers, "UPDATE t SET n = 3000000000 WHERE id = 20")
	askAll(t, all, 3, func(s session) string { return s.failsAfter })
	for _, p := range all {
		if p.reconnect {
			p.public, p.ledger = db.Conn(t), db.Conn(t)
			mustExec(t, p.ledger, "SET search_path = ledger")
		}
		inBoth(t, []*pgx.Conn{p.public, p.ledger}, p.renew)
	}
	askAll(t, all, 4, never)
	for _, table := range []string{"t", "child", "parent"} {
		if differ := pgtest.Scalar[int](t, db, fmt.Sprintf(`SELECT count(*) FROM ((TABLE public.%[1]s EXCEPT ALL TABLE ledger.%[1]s) UNION ALL (TABLE ledger.%[1]s EXCEPT ALL TABLE public.%[1]s)) d`, table)); differ != 0 {
			t.Errorf("%d rows of %s are not those of the ledger", differ, table)
		}
	}
	requireHeard(t, listener)
}

// requireHeard fails unless the triggers of both tables have told of the same rows, once
// each.
func requireHeard(t *testing.T, listener *pgx.Conn) {
	t.Helper()
	mustExec(t, listener, "NOTIFY public, 'end'")
	heard := map[string][]string{}
	for {
		notification, err := listener.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if notification.Payload == "end" {
			break
		}
		heard[notification.Channel] = append(heard[notification.Channel], notification.Payload)
	}
	slices.Sort(heard["public"])
	slices.Sort(heard["ledger"])
	if !slices.Equal(heard["public"], heard["ledger"]) || len(heard["public"]) < 5 {
		t.Errorf("the triggers told of %q, and in the ledger of %q", heard["public"], heard["ledger"])
	}
}
