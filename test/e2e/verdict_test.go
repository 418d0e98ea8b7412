package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const verdictSchema = `CREATE DOMAIN small AS int CHECK (VALUE < 1000000);
	CREATE DOMAIN alias AS text;
	CREATE TYPE mood AS ENUM ('good', 'bad');
	CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other SELECT generate_series(1, 10);
	CREATE TABLE t (id int PRIMARY KEY, i int, s smallint, b bigint, n numeric(10,2), nn numeric, v varchar(20), vv varchar, c char(5), x text,
		f float8, r float4, ts timestamp, tz timestamptz, ts3 timestamp(3), tm time(3), iv interval(3), d date, j json, jb jsonb, vb varbit(5), bt bit(3),
		a varchar(5)[], ci cidr, ip inet, u uuid, m mood, al alias, sm small, o oid, by bytea, nl int NOT NULL, df int DEFAULT 5,
		chk int CHECK (chk < 100000), nv int, fk int, g int GENERATED ALWAYS AS (i + 1) STORED, k varchar(10) COLLATE "C", un int UNIQUE, nn2 int CHECK (nn2 IS NOT NULL),
		viewed int, watched int);
	ALTER TABLE t ADD CONSTRAINT nv_positive CHECK (nv > 0) NOT VALID;
	ALTER TABLE t ADD CONSTRAINT fk_other FOREIGN KEY (fk) REFERENCES other NOT VALID;
	CREATE INDEX t_x ON t (x); CREATE INDEX t_v ON t (v); CREATE INDEX t_part ON t (b) WHERE i > 5; CREATE INDEX t_expr ON t (lower(x)); CREATE UNIQUE INDEX t_u ON t (df, id);
	CREATE INDEX t_k ON t (k); CREATE INDEX t_chk ON t (chk);
	CREATE VIEW viewing AS SELECT viewed FROM t;
	CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER tr BEFORE UPDATE OF watched ON t FOR EACH ROW WHEN (NEW.watched > 5) EXECUTE FUNCTION tf();
	INSERT INTO t (id, i, s, b, n, nn, v, vv, c, x, ts, tz, ts3, tm, iv, d, j, jb, vb, bt, a, ci, ip, m, al, sm, o, nl, chk, nv, fk, k, un, nn2, viewed, watched, r, f)
		SELECT i, i, i, i, i, i, i, i, 'c', i, now(), now(), now(), now()::time, '1 s', now(), '{}', '{}', '101', '101', '{a}', '10.0.0.0/8', '10.0.0.1', 'good', i, i, i, i, i, 1, 1 + i % 10, i, i, i, i, i, i, i
		FROM generate_series(1, 500) i;`

type verdictCase struct {
	alter, want string
	since       int    // the first version that takes it; 0: all
	timezone    string // default: one with an offset
}

// verdicts are what PostgreSQL does with each change.
var verdicts = []verdictCase{
	{alter: "ADD COLUMN z int", want: "instant"},
	{alter: "ADD COLUMN z int DEFAULT 5", want: "instant"},
	{alter: "ADD COLUMN z int NOT NULL DEFAULT 5", want: "instant"},
	{alter: "ADD COLUMN z timestamptz DEFAULT now()", want: "instant"},
	{alter: "ADD COLUMN z text DEFAULT current_user", want: "instant"},
	{alter: "ADD COLUMN z uuid DEFAULT gen_random_uuid()", want: "rewrite"},
	{alter: "ADD COLUMN z float8 DEFAULT random()", want: "rewrite"},
	{alter: "ADD COLUMN z timestamptz DEFAULT clock_timestamp()", want: "rewrite"},
	{alter: "ADD COLUMN z serial", want: "rewrite"},
	{alter: "ADD COLUMN z int GENERATED ALWAYS AS IDENTITY", want: "rewrite"},
	{alter: "ADD COLUMN z int GENERATED ALWAYS AS (i * 2) STORED", want: "rewrite"},
	{alter: "ADD COLUMN z int GENERATED ALWAYS AS (i * 2) VIRTUAL", want: "instant", since: 18},
	{alter: "ADD COLUMN z small", want: "rewrite"},
	{alter: "ADD COLUMN z alias", want: "instant"},
	{alter: "ADD COLUMN z int CHECK (z > 0)", want: "scan"},
	{alter: "ADD COLUMN z int UNIQUE", want: "index_rebuild"},
	{alter: "ADD COLUMN z int REFERENCES other", want: "instant"},
	{alter: "ADD COLUMN z int DEFAULT 1 REFERENCES other", want: "scan"},
	{alter: "ADD COLUMN IF NOT EXISTS i int", want: "instant"},
	{alter: "DROP COLUMN f", want: "instant"},
	{alter: "DROP COLUMN x", want: "instant"},
	{alter: "DROP COLUMN IF EXISTS nowhere", want: "instant"},
	{alter: "DROP COLUMN g, DROP COLUMN i", want: "instant"},
	{alter: "DROP COLUMN viewed", want: "refused"},
	{alter: "RENAME COLUMN i TO ii", want: "instant"},
	{alter: "RENAME COLUMN viewed TO seen", want: "instant"},
	{alter: "RENAME CONSTRAINT t_pkey TO t_key", want: "instant"},
	{alter: "RENAME TO tt", want: "instant"},
	{alter: "ALTER COLUMN i SET DEFAULT 7", want: "instant"},
	{alter: "ALTER COLUMN df DROP DEFAULT", want: "instant"},
	{alter: "ALTER COLUMN nl DROP NOT NULL", want: "instant"},
	{alter: "ALTER COLUMN i SET NOT NULL", want: "scan"},
	{alter: "ALTER COLUMN nn2 SET NOT NULL", want: "instant"},
	{alter: "ALTER COLUMN nl SET NOT NULL", want: "instant"},
	{alter: "ALTER COLUMN i SET NOT NULL, ALTER COLUMN b SET NOT NULL", want: "scan"},
	{alter: "ALTER COLUMN g DROP EXPRESSION", want: "instant"},
	{alter: "ALTER COLUMN g SET EXPRESSION AS (i + 2)", want: "rewrite", since: 17},
	{alter: "ALTER COLUMN nl ADD GENERATED ALWAYS AS IDENTITY", want: "instant"},
	{alter: "ALTER COLUMN i SET STATISTICS 500", want: "instant"},
	{alter: "ALTER COLUMN i SET (n_distinct = 5)", want: "instant"},
	{alter: "ALTER COLUMN i RESET (n_distinct)", want: "instant"},
	{alter: "ALTER COLUMN x SET STORAGE EXTERNAL", want: "instant"},
	{alter: "ALTER COLUMN x SET COMPRESSION pglz", want: "instant"},
	{alter: "ADD CHECK (i > 0)", want: "scan"},
	{alter: "ADD CONSTRAINT positive CHECK (i > 0) NOT VALID", want: "instant"},
	{alter: "ADD CONSTRAINT positive CHECK (i > 0) NOT ENFORCED", want: "instant", since: 18},
	{alter: "ADD CONSTRAINT there NOT NULL i NOT VALID", want: "instant", since: 18},
	{alter: "ADD CONSTRAINT there NOT NULL i", want: "scan", since: 18},
	{alter: "VALIDATE CONSTRAINT nv_positive", want: "scan"},
	{alter: "VALIDATE CONSTRAINT fk_other", want: "scan"},
	{alter: "ADD FOREIGN KEY (i) REFERENCES other NOT VALID", want: "instant"},
	{alter: "ADD FOREIGN KEY (fk) REFERENCES other", want: "scan"},
	{alter: "ADD FOREIGN KEY (fk) REFERENCES other, ADD COLUMN z int DEFAULT 3", want: "scan"},
	{alter: "ADD FOREIGN KEY (fk) REFERENCES other, ALTER COLUMN i TYPE bigint", want: "refused"},
	{alter: "ADD FOREIGN KEY (fk) REFERENCES other, ALTER COLUMN b TYPE numeric", want: "rewrite"},
	{alter: "DROP CONSTRAINT fk_other", want: "instant"},
	{alter: "DROP CONSTRAINT t_pkey", want: "instant"},
	{alter: "DROP CONSTRAINT nv_positive", want: "instant"},
	{alter: "DROP CONSTRAINT IF EXISTS nowhere", want: "instant"},
	{alter: "ADD UNIQUE (b)", want: "index_rebuild"},
	{alter: "ADD CONSTRAINT t_u_key UNIQUE USING INDEX t_u", want: "instant"},
	{alter: "DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (nl)", want: "index_rebuild"},
	{alter: "DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (b)", want: "scan"},
	{alter: "ADD EXCLUDE USING btree (b WITH =)", want: "index_rebuild"},
	{alter: "ALTER COLUMN v TYPE varchar(30)", want: "instant"},
	{alter: "ALTER COLUMN v TYPE varchar(20)", want: "instant"},
	{alter: "ALTER COLUMN v TYPE varchar", want: "instant"},
	{alter: "ALTER COLUMN v TYPE text", want: "instant"},
	{alter: "ALTER COLUMN x TYPE varchar", want: "index_rebuild"}, // that on lower(x)
	{alter: "ALTER COLUMN v TYPE varchar(10)", want: "rewrite"},
	{alter: "ALTER COLUMN vv TYPE varchar(10)", want: "rewrite"},
	{alter: "ALTER COLUMN x TYPE varchar(10)", want: "rewrite"},
	{alter: "ALTER COLUMN c TYPE char(6)", want: "rewrite"},
	{alter: "ALTER COLUMN c TYPE text", want: "rewrite"},
	{alter: "ALTER COLUMN c TYPE varchar", want: "rewrite"},
	{alter: "ALTER COLUMN a TYPE varchar(6)[]", want: "rewrite"},
	{alter: "ALTER COLUMN b TYPE int", want: "rewrite"},
	{alter: "ALTER COLUMN id TYPE bigint", want: "rewrite"},
	{alter: "ALTER COLUMN s TYPE int", want: "rewrite"},
	{alter: "ALTER COLUMN i TYPE bigint", want: "refused"},
	{alter: "ALTER COLUMN viewed TYPE bigint", want: "refused"},
	{alter: "ALTER COLUMN watched TYPE bigint", want: "refused"},
	{alter: "ALTER COLUMN chk TYPE bigint", want: "rewrite"},
	{alter: "ALTER COLUMN b TYPE text", want: "rewrite"},
	{alter: "ALTER COLUMN b TYPE numeric", want: "rewrite"},
	{alter: "ALTER COLUMN n TYPE numeric(12,2)", want: "instant"},
	{alter: "ALTER COLUMN n TYPE numeric", want: "instant"},
	{alter: "ALTER COLUMN n TYPE numeric(12,3)", want: "rewrite"},
	{alter: "ALTER COLUMN n TYPE numeric(9,2)", want: "rewrite"},
	{alter: "ALTER COLUMN nn TYPE numeric(20,5)", want: "rewrite"},
	{alter: "ALTER COLUMN r TYPE float8", want: "rewrite"},
	{alter: "ALTER COLUMN f TYPE float4", want: "rewrite"},
	{alter: "ALTER COLUMN ts3 TYPE timestamp(4)", want: "instant"},
	{alter: "ALTER COLUMN ts3 TYPE timestamp(6)", want: "instant"},
	{alter: "ALTER COLUMN ts3 TYPE timestamp", want: "instant"},
	{alter: "ALTER COLUMN ts3 TYPE timestamp(2)", want: "rewrite"},
	{alter: "ALTER COLUMN ts TYPE timestamp(3)", want: "rewrite"},
	{alter: "ALTER COLUMN tm TYPE time(4)", want: "instant"},
	{alter: "ALTER COLUMN tm TYPE time(2)", want: "rewrite"},
	{alter: "ALTER COLUMN iv TYPE interval(4)", want: "instant"},
	{alter: "ALTER COLUMN iv TYPE interval(2)", want: "rewrite"},
	{alter: "ALTER COLUMN ts TYPE timestamptz", want: "rewrite", timezone: "Europe/Berlin"},
	{alter: "ALTER COLUMN ts TYPE timestamptz", want: "instant", timezone: "UTC"},
	{alter: "ALTER COLUMN tz TYPE timestamp", want: "rewrite", timezone: "Europe/Berlin"},
	{alter: "ALTER COLUMN tz TYPE timestamp", want: "instant", timezone: "UTC"},
	{alter: "ALTER COLUMN ts TYPE date", want: "rewrite"},
	{alter: "ALTER COLUMN d TYPE timestamp", want: "rewrite"},
	{alter: "ALTER COLUMN j TYPE jsonb USING j::jsonb", want: "rewrite"},
	{alter: "ALTER COLUMN jb TYPE json", want: "rewrite"},
	{alter: "ALTER COLUMN vb TYPE varbit(8)", want: "instant"},
	{alter: "ALTER COLUMN vb TYPE varbit(4)", want: "rewrite"},
	{alter: "ALTER COLUMN bt TYPE bit(4) USING bt::bit(4)", want: "rewrite"},
	{alter: "ALTER COLUMN ci TYPE inet", want: "instant"},
	{alter: "ALTER COLUMN ip TYPE cidr USING ip::cidr", want: "rewrite"},
	{alter: "ALTER COLUMN nl TYPE oid USING nl::oid", want: "instant"},
	{alter: "ALTER COLUMN o TYPE int USING o::int", want: "instant"},
	{alter: "ALTER COLUMN m TYPE text", want: "rewrite"},
	{alter: "ALTER COLUMN x TYPE mood USING 'good'::mood", want: "refused"}, // an index on lower(x)
	{alter: "ALTER COLUMN al TYPE text", want: "instant"},
	{alter: "ALTER COLUMN x TYPE alias", want: "index_rebuild"},
	{alter: "ALTER COLUMN sm TYPE int", want: "instant"},
	{alter: "ALTER COLUMN nl TYPE small", want: "rewrite"},
	{alter: "ALTER COLUMN k TYPE varchar(10) COLLATE \"POSIX\"", want: "index_rebuild"},
	{alter: "ALTER COLUMN k TYPE varchar(10) COLLATE \"C\"", want: "instant"},
	{alter: "ALTER COLUMN nl TYPE int USING nl + 1", want: "rewrite"},
	{alter: "ALTER COLUMN nl TYPE int USING nl", want: "instant"},
	{alter: "ALTER COLUMN u TYPE text USING u::text", want: "rewrite"},
	{alter: "ALTER COLUMN vv TYPE bytea USING vv::bytea", want: "rewrite"},
	{alter: "SET (fillfactor = 70)", want: "instant"},
	{alter: "SET (autovacuum_enabled = off)", want: "instant"},
	{alter: "RESET (fillfactor)", want: "instant"},
	{alter: "SET (toast.autovacuum_enabled = off)", want: "instant"},
	{alter: "SET TABLESPACE pg_default", want: "instant"},
	{alter: "SET UNLOGGED", want: "rewrite"},
	{alter: "SET LOGGED", want: "instant"},
	{alter: "SET ACCESS METHOD heap", want: "instant", since: 15},
	{alter: "SET WITHOUT CLUSTER", want: "instant"},
	{alter: "CLUSTER ON t_x", want: "instant"},
	{alter: "REPLICA IDENTITY FULL", want: "instant"},
	{alter: "REPLICA IDENTITY USING INDEX t_pkey", want: "instant"},
	{alter: "ENABLE ROW LEVEL SECURITY", want: "instant"},
	{alter: "FORCE ROW LEVEL SECURITY", want: "instant"},
	{alter: "DISABLE TRIGGER tr", want: "instant"},
	{alter: "ENABLE ALWAYS TRIGGER tr", want: "instant"},
	{alter: "SET SCHEMA elsewhere", want: "instant"},
	{alter: "ADD COLUMN z int, DROP COLUMN f, ALTER COLUMN v TYPE varchar(40)", want: "instant"},
	{alter: "ADD COLUMN z int, ALTER COLUMN b TYPE numeric, ADD CHECK (z IS NULL)", want: "rewrite"},
	{alter: "ALTER COLUMN nowhere TYPE int", want: "refused"},
	{alter: "ADD COLUMN i int", want: "refused"},
}

// TestVerdicts compares what plan says of a change with what PostgreSQL does when it
// makes it: which files are new, and how often the rows are read.
func TestVerdicts(t *testing.T) {
	const lanes = 4
	for lane := range lanes {
		t.Run(fmt.Sprint(lane+1), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			db.Exec(t, verdictSchema+"CREATE SCHEMA elsewhere")
			version := pgtest.Scalar[int](t, db, "SELECT current_setting('server_version_num')::int / 10000")
			conn := db.Conn(t)
			before := everything(t, db)
			for i, v := range verdicts {
				if i%lanes == lane && v.since <= version {
					v.compare(t, db, conn)
				}
			}
			if after := everything(t, db); after != before {
				t.Errorf("the plans have left something:\n%s", lineDiff(before, after))
			}
		})
	}
}

func (v verdictCase) compare(t *testing.T, db *pgtest.DB, conn *pgx.Conn) {
	t.Helper()
	if v.timezone == "" {
		v.timezone = "Europe/Berlin"
	}
	if done := v.inPlace(t, conn); done != v.want {
		t.Errorf("%s: PostgreSQL does %s, the test wants %s", v.alter, done, v.want)
	}
	plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: db.DSN + "&timezone=" + v.timezone, Table: "t", Alters: []string{v.alter}}})
	if err != nil {
		t.Errorf("%s: %v", v.alter, err)
	} else if plan.Verdict != v.want {
		t.Errorf("%s: plan says %s (%s), want %s", v.alter, plan.Verdict, plan.Reason, v.want)
	}
}

// inPlace makes a change and undoes it.
func (v verdictCase) inPlace(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // it has done its work
	scan := func(sql string, targets ...any) {
		t.Helper()
		if err := tx.QueryRow(t.Context(), sql).Scan(targets...); err != nil {
			t.Fatal(err)
		}
	}
	var oid uint32
	scan("SELECT 't'::regclass::oid FROM set_config('timezone', '"+v.timezone+"', true)", &oid)
	// An index reads the rows when it is built, and an exclusion constraint once more.
	state := fmt.Sprintf(`SELECT pg_relation_filenode(%[1]d), pg_stat_get_xact_numscans(%[1]d),
		ARRAY(SELECT pg_relation_filenode(indexrelid) FROM pg_index, generate_series(1, 1 + indisexclusion::int) WHERE indrelid = %[1]d)`, oid)
	var before, after uint32
	var scansBefore, scans int64
	var indexesBefore, indexes []uint32
	scan(state, &before, &scansBefore, &indexesBefore)
	if _, err := tx.Exec(t.Context(), "ALTER TABLE t "+v.alter); err != nil {
		return "refused"
	}
	scan(state, &after, &scans, &indexes)
	built := int64(len(slices.DeleteFunc(indexes, func(file uint32) bool { return slices.Contains(indexesBefore, file) })))
	switch {
	case after != before:
		return "rewrite"
	case scans-scansBefore > built:
		return "scan"
	case built > 0:
		return "index_rebuild"
	default:
		return "instant"
	}
}
