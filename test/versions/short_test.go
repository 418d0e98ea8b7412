package versions

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/workload"
)

func TestKeyToBigintUnderLoad(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		underLoad(t, db, workload.Orders(), 2000, "ALTER COLUMN id TYPE bigint")
	})
}

// rich is a table with a little of everything.
const rich = `CREATE TABLE t (id serial PRIMARY KEY, v text NOT NULL DEFAULT 'x' COLLATE "C", n int CHECK (n > 0), gone int, u int GENERATED ALWAYS AS IDENTITY,
		g int GENERATED ALWAYS AS (n * 2) STORED) WITH (fillfactor = 90);
	INSERT INTO t(v, n, gone) SELECT 'v' || i, i, i FROM generate_series(1, 1000) i;
	ALTER TABLE t ADD CONSTRAINT late CHECK (n < 500) NOT VALID, ALTER v SET STATISTICS 77, ALTER v SET STORAGE EXTERNAL;
	CREATE INDEX t_v ON t (lower(v), n DESC) INCLUDE (gone) WHERE n > 3; ALTER INDEX t_v ALTER COLUMN 1 SET STATISTICS 300;
	ALTER TABLE t ADD CONSTRAINT t_u UNIQUE (u) DEFERRABLE; CREATE STATISTICS t_stats ON v, n FROM t; ALTER STATISTICS t_stats SET STATISTICS 50;
	COMMENT ON TABLE t IS 'the table'; COMMENT ON CONSTRAINT late ON t IS 'for new rows'; GRANT SELECT (v), UPDATE (n) ON t TO PUBLIC;
	CREATE STATISTICS t_other ON u, n FROM t;`

// TestColumnsComeAndGo holds a change of many parts against the plain ALTER TABLE.
func TestColumnsComeAndGo(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		sameAsPlain(t, db, rich, "RENAME COLUMN v TO w",
			"ADD COLUMN more bigint DEFAULT 7, DROP COLUMN gone, ALTER COLUMN id TYPE bigint, ALTER COLUMN w SET DEFAULT 'y', ADD CONSTRAINT named CHECK (id > 0)")
	})
}

// TestResume stops a run after its first chunk, and another process goes on from there.
func TestResume(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 3000) i; CREATE INDEX ON t (v)")
		const change = "ALTER COLUMN id TYPE bigint"
		stopped := stopInCopy(t, db, change)
		db.Exec(t, "UPDATE t SET v = 'w' WHERE id % 2 = 0; DELETE FROM t WHERE id <= 10; INSERT INTO t VALUES (-1, 'w')")
		if report := alter(t, db, change); report.RunID != stopped.RunID {
			t.Errorf("run %s is done, want %s", report.RunID, stopped.RunID)
		}
		const want = "2991 1496 bigint"
		if got := pgtest.Scalar[string](t, db, "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'w') || ' ' || pg_typeof(min(id)) FROM t"); got != want {
			t.Errorf("the table holds %s, want %s", got, want)
		}
	})
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	on(t, oldest, newest, func(t *testing.T, db *pgtest.DB) {
		db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE MATERIALIZED VIEW seen AS SELECT n FROM t")
		if says := refused(t, db, migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint"}}, "materialized view"); !strings.Contains(says, "seen") {
			t.Errorf("it says %s", says)
		}
	})
}
