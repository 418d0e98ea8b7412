package versions

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

func TestNullsNotDistinct(t *testing.T) {
	t.Parallel()
	on(t, 15, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t SELECT i, nullif(i, 7), nullif(i, 8) FROM generate_series(1, 300) i;
			ALTER TABLE t ADD CONSTRAINT t_a UNIQUE NULLS NOT DISTINCT (a) DEFERRABLE; CREATE UNIQUE INDEX t_b ON t (b) NULLS NOT DISTINCT`,
			"ALTER COLUMN b TYPE bigint, ADD CONSTRAINT t_ab UNIQUE NULLS NOT DISTINCT (a, b)")
	})
}

// TestPublicationOfTheSchema: the new table is published since it is where the original was.
func TestPublicationOfTheSchema(t *testing.T) {
	t.Parallel()
	on(t, 15, newest, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1); CREATE PUBLICATION pub FOR TABLES IN SCHEMA public")
		report := alter(t, db, "ALTER COLUMN n TYPE bigint")
		if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "publication pub ") || !strings.Contains(report.Warnings[0], "REFRESH PUBLICATION") {
			t.Errorf("it warns %q", report.Warnings)
		}
		if tables := pgtest.Scalar[string](t, db, "SELECT string_agg(schemaname || '.' || tablename, ' ') FROM pg_publication_tables"); tables != "public.t" {
			t.Errorf("it publishes %s", tables)
		}
	})
}

// TestAttachedFrom15 is what PostgreSQL 15 has brought to publications, views and foreign keys.
func TestAttachedFrom15(t *testing.T) {
	t.Parallel()
	on(t, 15, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE TABLE parent (a int, b int, PRIMARY KEY (a, b)); INSERT INTO parent SELECT i, i FROM generate_series(1, 300) i;
			CREATE TABLE t (id int PRIMARY KEY, a int, b int, v text, FOREIGN KEY (a, b) REFERENCES parent ON DELETE SET NULL (b)); INSERT INTO t SELECT i, i, i, 'v' FROM generate_series(1, 300) i;
			CREATE PUBLICATION part FOR TABLE t (id, v) WHERE (id > 10 AND v <> 'public.t'); CREATE PUBLICATION whole FOR TABLE t, parent;
			CREATE VIEW invoker WITH (security_invoker = true, security_barrier) AS SELECT * FROM t; CREATE VIEW checked WITH (security_invoker, check_option = cascaded) AS SELECT id FROM invoker`,
			"RENAME COLUMN v TO w", "RENAME COLUMN b TO bb", "ADD COLUMN x int")
	})
}

func major(t *testing.T, db *pgtest.DB) int {
	t.Helper()
	return pgtest.Scalar[int](t, db, "SELECT current_setting('server_version_num')::int / 10000")
}

// TestMembershipWithoutItsRights: being a member of the owner is not enough, and each right that is missing is refused
// with the statement that gives it, after which the change succeeds.
func TestMembershipWithoutItsRights(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		owner, login := db.Role(t, "owner", ""), db.Role(t, "login", "LOGIN REPLICATION NOINHERIT")
		db.Exec(t, "GRANT CREATE ON DATABASE "+db.Name+" TO "+login+"; GRANT CREATE ON SCHEMA public TO "+owner)
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i; ALTER TABLE t OWNER TO "+owner)
		publication := fmt.Sprintf(`GRANT CREATE ON DATABASE "%s" TO "%s"`, db.Name, owner)
		steps := []struct{ before, check, remedy string }{
			{"GRANT " + owner + " TO " + login, "rights", publication},
		}
		if major(t, db) >= 16 {
			steps = []struct{ before, check, remedy string }{
				{fmt.Sprintf("GRANT %s TO %s WITH INHERIT TRUE, SET FALSE", owner, login), "rights", fmt.Sprintf(`GRANT "%s" TO "%s" WITH SET TRUE`, owner, login)},
				{fmt.Sprintf("GRANT %s TO %s WITH INHERIT FALSE", owner, login), "rights", publication},
			}
		}
		config := migration.Config{DSN: db.As(login), Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"}}
		for _, step := range steps {
			db.Exec(t, step.before)
			if says := refused(t, db, config, step.check); !strings.Contains(says, step.remedy) {
				t.Errorf("after %s it says %s, want %s", step.before, says, step.remedy)
			}
			db.Exec(t, step.remedy)
		}
		report, err := migration.Run(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		requireClean(t, db, report)
	})
}

// TestTransactionTimeoutIsLifted in every kind of session, where the server has it; before PostgreSQL 17 nothing asks
// for it.
func TestTransactionTimeoutIsLifted(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		want := ""
		if major(t, db) >= 17 {
			want = "0"
			db.Exec(t, "ALTER DATABASE "+pg.Ident(db.Name)+" SET transaction_timeout = '50s'")
		}
		database, err := pg.Open(db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		ordinary, err := database.Connect(t.Context(), "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ordinary.Close(context.Background()) })
		walsender, err := database.ConnectReplication(t.Context(), "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = walsender.Close(context.Background()) })
		for kind, conn := range map[string]*pgconn.PgConn{"ordinary": ordinary.PgConn(), "replication": walsender} {
			results, err := conn.Exec(t.Context(), "SELECT pg_catalog.current_setting('transaction_timeout', true)").ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(results[0].Rows[0][0]); got != want {
				t.Errorf("transaction_timeout of the %s session is %q, want %q", kind, got, want)
			}
		}
	})
}

// TestMaintain: PostgreSQL 17 has a privilege more, which the owner has by default.
func TestMaintain(t *testing.T) {
	t.Parallel()
	on(t, 17, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i;
			GRANT MAINTAIN, SELECT ON t TO PUBLIC; REVOKE MAINTAIN, TRUNCATE ON t FROM postgres`, "ALTER COLUMN n TYPE bigint")
	})
}

// TestNotNullConstraints: NOT NULL is a constraint with a name from PostgreSQL 18 on, and may be one that rows from
// before it do not satisfy.
func TestNotNullConstraints(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE TABLE t (id int CONSTRAINT id_there NOT NULL PRIMARY KEY, a int, b int CONSTRAINT b_there NOT NULL NO INHERIT, c int NOT NULL, d int NOT NULL);
			INSERT INTO t SELECT i, nullif(i % 5, 0), i, i, i FROM generate_series(1, 300) i; ALTER TABLE t ADD CONSTRAINT a_later NOT NULL a NOT VALID;
			ALTER TABLE t RENAME CONSTRAINT t_c_not_null TO c_renamed; COMMENT ON CONSTRAINT a_later ON t IS 'for new rows'; COMMENT ON CONSTRAINT b_there ON t IS 'b'`,
			"RENAME COLUMN c TO c2", "ALTER COLUMN id TYPE bigint, ALTER COLUMN d DROP NOT NULL, ADD COLUMN e int NOT NULL DEFAULT 1")
		if _, err := db.Conn(t).Exec(t.Context(), "INSERT INTO t (id, b, c2) VALUES (1000, 1, 1)"); !pg.Is(err, "23502") {
			t.Errorf("a NULL is taken: %v", err)
		}
	})
}

// TestKeyThatMayHoldNull: a NOT NULL that is not validated does not make a key.
func TestKeyThatMayHoldNull(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, "CREATE TABLE t (id int UNIQUE, n int); INSERT INTO t VALUES (NULL, 1), (NULL, 2); ALTER TABLE t ADD CONSTRAINT later NOT NULL id NOT VALID; ALTER TABLE t REPLICA IDENTITY FULL")
		refused(t, db, migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint"}}, "key")
	})
}

func TestNotEnforcedCheck(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE TABLE t (id int PRIMARY KEY, n int, CONSTRAINT wish CHECK (n > 100) NOT ENFORCED, CONSTRAINT late CHECK (n < 1000));
			INSERT INTO t SELECT i, i FROM generate_series(1, 300) i; COMMENT ON CONSTRAINT wish ON t IS 'a wish'`, "ALTER COLUMN n TYPE bigint")
	})
}

func TestVirtualColumns(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE TABLE t (id int PRIMARY KEY, n int, v int GENERATED ALWAYS AS (n * 2) VIRTUAL, s int GENERATED ALWAYS AS (n * 3) STORED, w text GENERATED ALWAYS AS (upper('x' || n)), CHECK (v > 0));
			INSERT INTO t SELECT i, i FROM generate_series(1, 300) i; COMMENT ON COLUMN t.v IS 'virtual'`, "ALTER COLUMN id TYPE bigint, DROP COLUMN w, ADD COLUMN m int DEFAULT 3")
	})
}

// TestReplicaIdentityFullWithGeneratedColumns: from PostgreSQL 18 on the server refuses the application's UPDATE and
// DELETE on a published table whose identity holds generated columns that are not published. The writers must not notice.
func TestReplicaIdentityFullWithGeneratedColumns(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		spec := workload.IntKey()
		spec.After = append(spec.After, "ALTER TABLE {table} ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED", "ALTER TABLE {table} ADD COLUMN last int", "ALTER TABLE {table} REPLICA IDENTITY FULL")
		underLoad(t, db, spec, 500, "ADD COLUMN more int DEFAULT 1")
	})
}

func TestReplicaIdentityFullWithVirtualColumns(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int, v int GENERATED ALWAYS AS (id * 2)); INSERT INTO t VALUES (1, 1); ALTER TABLE t REPLICA IDENTITY FULL")
		if says := refused(t, db, migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint"}}, "replica identity"); !strings.Contains(says, "virtual") {
			t.Errorf("it says %s", says)
		}
		db.Exec(t, "ALTER TABLE t REPLICA IDENTITY DEFAULT")
		alter(t, db, "ALTER COLUMN n TYPE bigint")
	})
}

// TestTemporalConstraints are carried over; rows are followed by another key, for one with WITHOUT OVERLAPS is no
// index that rows can be looked up by.
func TestTemporalConstraints(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		const table = `CREATE EXTENSION btree_gist; CREATE TABLE t (id int NOT NULL, room int NOT NULL, during tsrange NOT NULL, n int, CONSTRAINT booked PRIMARY KEY (room, during WITHOUT OVERLAPS), CONSTRAINT also UNIQUE (n, during WITHOUT OVERLAPS));
			INSERT INTO t SELECT i, i % 10, tsrange('2025-01-01'::timestamp + i * interval '1 hour', '2025-01-01'::timestamp + (i + 1) * interval '1 hour'), i FROM generate_series(1, 300) i; COMMENT ON CONSTRAINT booked ON t IS 'once';`
		sameAsPlain(t, db, table+"CREATE UNIQUE INDEX t_id ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX t_id", "ALTER COLUMN n TYPE bigint")
		alone := pgtest.NewOn(t, db.Server())
		alone.Exec(t, table)
		refused(t, alone, migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint"}}, "key")
	})
}

// TestForeignKeysFrom18: one that is not enforced stays so, one of periods is made again, and one of a partitioned
// table, which is refused before, is added without reading rows.
func TestForeignKeysFrom18(t *testing.T) {
	t.Parallel()
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, `CREATE EXTENSION btree_gist; CREATE TABLE u (i int PRIMARY KEY, during int4range, n int, UNIQUE (n, during WITHOUT OVERLAPS)); INSERT INTO u VALUES (1, '[1,9)', 1);
			CREATE TABLE t (id int PRIMARY KEY, n int, during int4range, CONSTRAINT t_u FOREIGN KEY (n) REFERENCES u NOT ENFORCED, FOREIGN KEY (n, PERIOD during) REFERENCES u (n, PERIOD during));
			INSERT INTO t VALUES (1, 1, '[2,5)'); CREATE TABLE child (id int REFERENCES t) PARTITION BY RANGE (id); CREATE TABLE child_1 PARTITION OF child DEFAULT; INSERT INTO child VALUES (1)`, "ALTER COLUMN id TYPE bigint")
	})
	on(t, oldest, 17, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE child (id int CONSTRAINT child_t REFERENCES t) PARTITION BY RANGE (id)")
		if says := refused(t, db, migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint"}}, "foreign key"); !strings.Contains(says, "child_t on public.child, which is partitioned") {
			t.Errorf("it says %s", says)
		}
	})
}

// TestNewerGrammar: what PostgreSQL 18 has new in ALTER TABLE. An older server refuses it in its own words.
func TestNewerGrammar(t *testing.T) {
	t.Parallel()
	const script = `CREATE TABLE t (id int PRIMARY KEY, n int, c int, r int4range NOT NULL, during int4range NOT NULL);
		INSERT INTO t SELECT i, nullif(i, 7), i, int4range(i, i + 1), int4range(0, i) FROM generate_series(1, 300) i`
	on(t, 18, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, script, "ADD COLUMN v int GENERATED ALWAYS AS (n * 2) VIRTUAL, ADD COLUMN w int GENERATED ALWAYS AS (n * 3), ALTER COLUMN n TYPE bigint",
			"ADD CONSTRAINT wish CHECK (n > 100) NOT ENFORCED, ADD CONSTRAINT there NOT NULL c, ADD CONSTRAINT later NOT NULL n NOT VALID",
			"ADD CONSTRAINT apart UNIQUE (r, during WITHOUT OVERLAPS)")
	})
	on(t, oldest, 17, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, script)
		if says := refused(t, db, migration.Config{Alters: []string{"ADD COLUMN v int GENERATED ALWAYS AS (n * 2) VIRTUAL"}}, "alter"); !strings.Contains(says, `syntax error at or near "VIRTUAL" at character 46`) {
			t.Errorf("it says %s", says)
		}
	})
}

// TestIdleSlotTimeout: from PostgreSQL 18 on the server may take away the slot of a run that nobody resumes for long.
// What it missed is made good by the comparison.
func TestIdleSlotTimeout(t *testing.T) {
	t.Parallel()
	t.Run("PostgreSQL_18", idleSlotTimeout)
}

func idleSlotTimeout(t *testing.T) {
	t.Parallel()
	dir, err := pgserver.FindVersion(18)
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{BinDir: dir, Settings: map[string]string{"idle_replication_slot_timeout": "1s"}}))
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 3000) i")
	const change = "ALTER COLUMN id TYPE bigint"
	stopped := stopInCopy(t, db, change)
	const lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1"
	deadline := time.After(limit)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !pgtest.Scalar[bool](t, db, lost, "pgshadow_"+stopped.RunID) {
		select {
		case <-ticker.C:
			db.Exec(t, "CHECKPOINT") // which looks for idle slots
		case <-deadline:
			t.Fatal("the slot stays")
		}
	}
	db.Exec(t, "UPDATE t SET v = 'w' WHERE id % 1000 = 1; DELETE FROM t WHERE id % 1000 = 2") // of every chunk, for any of them may be the one that is copied
	if report := alter(t, db, change); report.RunID != stopped.RunID || report.Healed == 0 {
		t.Errorf("run %s is done with %d rows healed, want %s", report.RunID, report.Healed, stopped.RunID)
	}
	if got := pgtest.Scalar[string](t, db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'w') FROM t"); got != "2997 3" {
		t.Errorf("the table holds %s", got)
	}
}
