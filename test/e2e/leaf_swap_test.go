package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

// leafSpec is a partitioned table called tree with a leaf called leaf. The writers
// write to either: to the tree, where half of the rows are in another leaf, or to the
// leaf, which has them all.
func leafSpec(writers string) *workload.Spec {
	spec := workload.BigintKey()
	spec.Table = writers
	tree := []string{
		"CREATE TABLE tree (LIKE leaf INCLUDING DEFAULTS, PRIMARY KEY (k)) PARTITION BY RANGE (k)",
		"CREATE INDEX by_n ON tree (n)",
	}
	if writers == "leaf" {
		spec.After = slices.Concat(tree, []string{"ALTER TABLE tree ATTACH PARTITION leaf DEFAULT"})
		return spec
	}
	spec.After = slices.Concat([]string{"ALTER TABLE {table} RENAME TO leaf"}, tree, []string{
		"CREATE TABLE other PARTITION OF tree FOR VALUES FROM (6000) TO (MAXVALUE)",
		"WITH moved AS (DELETE FROM leaf WHERE k >= 6000 RETURNING *) INSERT INTO tree SELECT * FROM moved",
		"ALTER TABLE tree ATTACH PARTITION leaf FOR VALUES FROM (MINVALUE) TO (6000)",
	})
	return spec
}

func ofLeaf(c *migration.Config) { c.Table = "leaf" }

// owned gives the tables to their owner before they are written to.
func owned(t *testing.T, db *pgtest.DB) {
	t.Helper()
	login(t, db)
}

// TestLeafUnderLoad writes through the root, rows that move between its partitions
// among them, and to the leaf itself.
func TestLeafUnderLoad(t *testing.T) {
	alters := []string{"SET (fillfactor = 70), ADD CONSTRAINT more CHECK (n >= 0)"}
	after := func(t *testing.T, db *pgtest.DB) {
		t.Helper()
		if got := pgtest.Scalar[string](t, db, "SELECT string_agg(format('%s %s', inhrelid::regclass, (SELECT reloptions FROM pg_class WHERE oid = inhrelid)), ', ' ORDER BY inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'tree'::regclass AND inhrelid = 'leaf'::regclass"); got != "leaf {fillfactor=70}" {
			t.Errorf("the tree has %s", got)
		}
		if got := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'pgshadow%'"); got != 0 {
			t.Errorf("%d constraints of the run are left", got)
		}
	}
	t.Run("through the root", func(t *testing.T) {
		t.Parallel()
		db, report := change{spec: leafSpec("tree"), rows: 5000, alters: alters, setup: owned, config: ofLeaf}.run(t)
		after(t, db)
		if report.ChangesReceived == 0 {
			t.Error("no change of the leaf was in the stream")
		}
	})
	t.Run("to a leaf that is all of it", func(t *testing.T) {
		t.Parallel()
		db, _ := change{spec: leafSpec("leaf"), rows: 5000, alters: alters, setup: owned, config: ofLeaf}.run(t)
		after(t, db)
	})
	t.Run("truncated through the root", func(t *testing.T) {
		t.Parallel()
		var once sync.Once
		restarts := 0
		db, _ := change{spec: leafSpec("tree"), rows: 5000, alters: alters, setup: owned, config: ofLeaf, onEvent: func(ctx context.Context, _ *pgtest.DB, w *workload.Workload, event migration.Event) (err error) {
			switch event.(type) {
			case migration.ChunkCopied:
				once.Do(func() { err = w.Truncate(ctx) })
			case migration.Restarted:
				restarts++
			}
			return err
		}}.run(t)
		after(t, db)
		if restarts == 0 {
			t.Error("the copy did not begin again")
		}
	})
}

// TestLeafReadsNothingUnderTheLock has the server say what it does: it concludes from
// the checks that all rows are in their places, and verifies and builds nothing.
func TestLeafReadsNothingUnderTheLock(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "server.log")
	if err := os.Chmod(filepath.Dir(log), 0o777); err != nil { //nolint:gosec // the server runs as another user
		t.Fatal(err)
	}
	server := pgtest.NewServer(t, pgserver.Options{LogFile: log, Settings: map[string]string{"log_min_messages": "debug1", "log_line_prefix": "[%a] "}})
	db := pgtest.NewOn(t, server)
	db.Exec(t, `CREATE TABLE root (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); CREATE TABLE sub PARTITION OF root FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
		CREATE TABLE t PARTITION OF sub FOR VALUES FROM (0) TO (1000); CREATE TABLE rest PARTITION OF sub DEFAULT; ALTER TABLE rest ADD CHECK (NOT (id IS NOT NULL AND id >= 0 AND id < 1000));
		CREATE INDEX ON root (v); INSERT INTO root SELECT i, i % 10, 'v' FROM generate_series(1, 2000) i`)
	report := mustRun(t, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"SET (fillfactor = 70)"}})
	text, err := os.ReadFile(log) //nolint:gosec // a file of the test's own
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(string(text)) {
		if prefix := "[pgshadow " + report.RunID + " cutover] DEBUG:  "; strings.HasPrefix(line, prefix) {
			said = append(said, strings.TrimSpace(strings.TrimPrefix(line, prefix)))
		}
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{`partition constraint for table "t" is implied by existing constraints`, `updated partition constraint for default partition "rest" is implied by existing constraints`} {
		if !strings.Contains(all, want) {
			t.Errorf("the cutover's session does not say %s:\n%s", want, all)
		}
	}
	for _, not := range []string{"verifying", "building index", "rewriting", "validating"} {
		if strings.Contains(all, not) {
			t.Errorf("the cutover's session says %s:\n%s", not, all)
		}
	}
}

// createTree makes a leaf t of two levels, with everything that the swap of one may
// have to lock.
func createTree(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE root (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); CREATE TABLE sub PARTITION OF root FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
		CREATE TABLE other PARTITION OF sub FOR VALUES FROM (1000) TO (2000); CREATE TABLE t PARTITION OF sub FOR VALUES FROM (0) TO (1000);
		CREATE TABLE rest PARTITION OF sub DEFAULT; ALTER TABLE rest ADD CONSTRAINT not_t CHECK (NOT (id IS NOT NULL AND id >= 0 AND id < 1000));
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE INSERT ON root FOR EACH ROW EXECUTE FUNCTION f();
		CREATE INDEX ON root (v); INSERT INTO root SELECT i, i % 10, 'v' FROM generate_series(1, 1500) i`)
	login(t, db)
	return db
}

func leafConfig(t *testing.T, db *pgtest.DB, observe func(migration.Event)) migration.Config {
	t.Helper()
	return migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"SET (fillfactor = 70)"}, Observer: migration.ObserverFunc(observe)}
}

// TestLeafLocksUpFront notes the cutover's locks on tables when each of its commands
// begins and ends: none is taken, or made stronger, after the first has begun.
func TestLeafLocksUpFront(t *testing.T) {
	t.Parallel()
	db := createTree(t)
	noteLocks(t, db)
	mustRun(t, leafConfig(t, db, func(migration.Event) {}))
	const want = "rest AccessExclusiveLock, root AccessShareLock, sub AccessExclusiveLock, t AccessExclusiveLock"
	if got := lockedUpFront(t, db); got != want {
		t.Errorf("locked up front: %s, want %s", got, want)
	}
	if got := lockedLater(t, db); got != "" {
		t.Errorf("locked later: %s", got)
	}
}

// noteLocks has the locks on tables and views noted that the cutover holds when each of its commands begins and ends.
func noteLocks(t *testing.T, db *pgtest.DB) {
	t.Helper()
	db.Exec(t, `CREATE SCHEMA notes; CREATE SEQUENCE notes.locks_n_seq; CREATE TABLE notes.locks (n int, tag text, relation text, mode text);
		CREATE FUNCTION notes.note() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ DECLARE step int := nextval('notes.locks_n_seq'); BEGIN
			IF current_setting('application_name') LIKE 'pgshadow % cutover' THEN
				INSERT INTO notes.locks SELECT DISTINCT step, TG_TAG, c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
				 WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p', 'v') AND c.oid >= 16384 AND c.relnamespace <> 'notes'::regnamespace AND c.relnamespace::regnamespace::text <> 'pgshadow';
			END IF; END $$;
		CREATE EVENT TRIGGER note_start ON ddl_command_start EXECUTE FUNCTION notes.note(); CREATE EVENT TRIGGER note_end ON ddl_command_end EXECUTE FUNCTION notes.note()`)
}

// lockedUpFront are the strongest locks that were held before the first of the swap's commands that changes anything: a
// view is locked by ALTER VIEW.
func lockedUpFront(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT coalesce(string_agg(DISTINCT relation || ' ' || mode, ', ' ORDER BY relation || ' ' || mode), '') FROM notes.locks l WHERE n = (SELECT min(n) FROM notes.locks WHERE tag <> 'ALTER VIEW') AND mode IN ('AccessShareLock', 'AccessExclusiveLock', 'ShareUpdateExclusiveLock')
		AND (mode = 'AccessExclusiveLock' OR NOT EXISTS (SELECT FROM notes.locks s WHERE (s.n, s.relation, s.mode) = (l.n, l.relation, 'AccessExclusiveLock')))`)
}

// lockedLater are those that were not, or were stronger later.
func lockedLater(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT coalesce(string_agg(DISTINCT l.relation || ' ' || l.mode, ', '), '') FROM notes.locks l
		WHERE l.n > (SELECT min(n) FROM notes.locks WHERE tag <> 'ALTER VIEW') AND NOT EXISTS (SELECT FROM notes.locks f WHERE f.n = (SELECT min(n) FROM notes.locks WHERE tag <> 'ALTER VIEW') AND f.relation = l.relation AND f.mode IN (l.mode, 'AccessExclusiveLock'))`)
}

// TestLeafWaitsForTheTree: while somebody reads the root no attempt gets its locks, and
// the leaf stays where it is; afterwards the same command ends the run.
func TestLeafWaitsForTheTree(t *testing.T) {
	t.Parallel()
	db := createTree(t)
	before := withRows(t, db)
	reader := db.Conn(t)
	var tx pgx.Tx
	config := leafConfig(t, db, func(event migration.Event) {
		if e, ok := event.(migration.PhaseFinished); ok && e.Phase == migration.Verify {
			var err error
			if tx, err = reader.Begin(t.Context()); err == nil {
				_, err = tx.Exec(t.Context(), "LOCK TABLE ONLY sub IN ACCESS SHARE MODE")
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	config.Cutover.Attempts, config.Cutover.LockTimeout = 2, 50*time.Millisecond
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome == migration.Aborted || !strings.Contains(err.Error(), "no lock on public.t and the 3 tables and views attached to it") || !strings.Contains(err.Error(), "it is locked by pid") {
		t.Fatalf("%v, report %+v", err, report)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := withRows(t, db); after != before {
		t.Errorf("the database was changed:\n%s", lineDiff(before, after))
	}
	db.Exec(t, "INSERT INTO root VALUES (0, 9, 'x'); UPDATE root SET v = 'w' WHERE id = 1; UPDATE root SET id = id + 5000 WHERE id = 2")
	rows := pgtest.Scalar[string](t, db, "SELECT string_agg(r::text, ' ' ORDER BY r) FROM root r")
	mustRun(t, leafConfig(t, db, func(migration.Event) {}))
	if got := pgtest.Scalar[string](t, db, "SELECT string_agg(r::text, ' ' ORDER BY r) FROM root r"); got != rows {
		t.Error("the rows of the root have changed")
	}
}

// TestChangeOfTheTreeDuringTheRun aborts, and leaves the leaf attached as it was.
func TestChangeOfTheTreeDuringTheRun(t *testing.T) {
	for _, d := range []ddl{
		{sql: "CREATE INDEX lone ON ONLY sub (v, id)", says: []string{"the original was changed during the run: public.t: index of the parent lone was created (here none)"}},
		{sql: "CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o SELECT generate_series(0, 10); ALTER TABLE root ADD CONSTRAINT fk FOREIGN KEY (k) REFERENCES o", says: []string{"foreign key of the partitioned table fk on public.root has been attached"}},
		{sql: "ALTER TABLE rest DROP CONSTRAINT not_t", says: []string{"the table changed its default partition beside it"}},
		{sql: "ALTER TABLE sub DETACH PARTITION t", says: []string{"the table changed its parent from public.sub"}},
		{sql: "DROP TRIGGER tr ON root", says: []string{"trigger of the parent tr was dropped"}, phase: migration.Cutover},
	} {
		t.Run(d.sql, func(t *testing.T) {
			t.Parallel()
			if d.phase == 0 {
				d.phase = migration.Verify
			}
			db := createTree(t)
			before := ""
			report, err := migration.Run(t.Context(), leafConfig(t, db, func(event migration.Event) {
				if e, ok := event.(migration.PhaseStarted); ok && e.Phase == d.phase && before == "" {
					db.Exec(t, d.sql)
					before = withRows(t, db)
				}
			}))
			if err == nil || report.Outcome != migration.Aborted || !strings.Contains(err.Error(), d.says[0]) {
				t.Fatalf("not aborted for %s: %v, report %+v", d.says[0], err, report)
			}
			if after := withRows(t, db); after != before {
				t.Errorf("the database was changed:\n%s", lineDiff(before, after))
			}
			requireNothingLeft(t, db)
		})
	}
}

// TestLeafOfAnotherOwner: parent and leaf belong to two roles, of which one has the
// rights of the other.
func TestLeafOfAnotherOwner(t *testing.T) {
	for _, grant := range []string{"GRANT {leaf} TO {root}", "GRANT {root} TO {leaf}"} {
		t.Run(grant, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			in := strings.NewReplacer("{root}", db.Role(t, "root", ""), "{leaf}", db.Role(t, "leaf", ""), "{login}", db.Role(t, "login", "LOGIN REPLICATION"), "{db}", db.Name)
			db.Exec(t, in.Replace(grant+`; GRANT {root}, {leaf} TO {login}; GRANT CREATE ON DATABASE {db} TO {login}; GRANT USAGE, CREATE ON SCHEMA public TO {root}, {leaf};
				CREATE TABLE root (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF root FOR VALUES FROM (0) TO (1000); INSERT INTO root SELECT i, i, 'v' FROM generate_series(1, 500) i;
				ALTER TABLE root OWNER TO {root}; ALTER TABLE t OWNER TO {leaf}`))
			before := withRows(t, db)
			config := migration.Config{DSN: db.As(db.Name + "_login"), Table: "t", Alters: []string{"ALTER COLUMN v SET STATISTICS -1"}}
			mustRun(t, config)
			if after := withRows(t, db); after != before {
				t.Errorf("the database was changed:\n%s", lineDiff(before, after))
			}
		})
	}
}

// TestLeafAndOthersInTheTree: an autovacuum of the default partition gives way, though
// the cutover waits for a shorter time than it takes to do so by itself, and a prepared
// transaction that wrote to another partition is named.
func TestLeafAndOthersInTheTree(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{
		"autovacuum": "off", "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "100ms", "autovacuum_vacuum_cost_limit": "1", "max_prepared_transactions": "5"}})
	db := pgtest.NewOn(t, server)
	db.Exec(t, `CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF root FOR VALUES FROM (0) TO (100); CREATE TABLE rest PARTITION OF root DEFAULT;
		ALTER TABLE rest ADD CHECK (NOT (id IS NOT NULL AND id >= 0 AND id < 100)), SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0);
		INSERT INTO root SELECT i, 'v' FROM generate_series(0, 20000) i; UPDATE rest SET v = 'w'`)
	superuser(t, db, "a plain role does not see that the snapshot is an autovacuum's")
	prepared := false
	config := leafConfig(t, db, func(event migration.Event) {
		e, ok := event.(migration.PhaseFinished)
		if !ok || e.Phase != migration.Verify {
			return
		}
		if !prepared {
			prepared = true
			db.Exec(t, "BEGIN; INSERT INTO root VALUES (-1, 'x'); PREPARE TRANSACTION 'elsewhere'")
			return
		}
		db.Exec(t, "ROLLBACK PREPARED 'elsewhere'")
		db.Exec(t, "ALTER SYSTEM SET autovacuum = on")
		db.Exec(t, "SELECT pg_reload_conf()")
		awaitVacuum(t, db, "rest")
		db.Exec(t, "ALTER SYSTEM SET autovacuum = off") // no other one begins; the one at work goes on
		db.Exec(t, "SELECT pg_reload_conf()")
	})
	config.Cutover.Attempts, config.Cutover.LockTimeout = 3, 300*time.Millisecond // an attempt may also end for a late fence
	report, err := migration.Run(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "prepared transaction 'elsewhere' holds a lock on it") {
		t.Fatalf("%v, report %+v", err, report)
	}
	mustRun(t, config)
}

// awaitVacuum waits until an autovacuum of the table has begun.
func awaitVacuum(t *testing.T, db *pgtest.DB, table string) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for pgtest.Scalar[int](t, db, "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = $1::text::regclass", table) == 0 {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Errorf("no autovacuum of %s began", table)
			return
		}
	}
}
