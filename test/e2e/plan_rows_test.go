package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

func notes(plan migration.PlanReport, parts ...string) bool {
	return slices.ContainsFunc(plan.Notices, func(n string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(n, part) })
	})
}

// TestPlanLeavesSequences: a plan runs no code that does what no ROLLBACK takes back, and says where it therefore tries no rows.
func TestPlanLeavesSequences(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema+`CREATE SEQUENCE us; CREATE FUNCTION numbered() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('us') $$;
		CREATE FUNCTION noted(int) RETURNS boolean LANGUAGE sql AS $$ SELECT nextval('us') > 0 $$; CREATE DOMAIN counted AS int CHECK (noted(VALUE)); CREATE DOMAIN deeper AS counted;
		CREATE OPERATOR !! (RIGHTARG = int, FUNCTION = noted)`)
	login(t, db)
	db.Exec(t, "GRANT USAGE ON SEQUENCE us TO PUBLIC")
	const sequences = "SELECT u.last_value || ' ' || u.is_called || ', ' || o.last_value || ' ' || o.is_called FROM us u, t_id_seq o"
	before := pgtest.Scalar[string](t, db, sequences)
	for alter, names := range map[string][]string{
		"ADD COLUMN z bigint DEFAULT nextval('us')":                                        {"column z", "nextval"},
		"ADD COLUMN z bigint DEFAULT nextval('us'::text)":                                  {"column z", "nextval"},
		"ADD COLUMN z text DEFAULT 'no. ' || nextval('us')":                                {"column z", "nextval"},
		"ADD COLUMN z bigint DEFAULT setval('us', 7)":                                      {"column z", "setval"},
		"ADD COLUMN z bigint DEFAULT numbered()":                                           {"column z", "numbered"},
		"ADD COLUMN z boolean DEFAULT (!! 3)":                                              {"column z", "noted"},
		"ADD COLUMN z deeper DEFAULT random()":                                             {"counted_check", "noted"},
		"ALTER COLUMN n TYPE bigint, ADD CONSTRAINT noting CHECK (noted(n::int))":          {"noting", "noted"},
		"ADD CONSTRAINT noting CHECK (noted(n))":                                           {"noting", "noted"},
		"ADD COLUMN z bigserial":                                                           nil,
		"ADD COLUMN z bigint GENERATED ALWAYS AS IDENTITY":                                 nil,
		"ADD COLUMN z uuid DEFAULT gen_random_uuid(), ADD COLUMN y float DEFAULT random()": nil,
	} {
		plan := planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{alter}}})
		if len(plan.Refusals) > 0 || plan.Method == "" {
			t.Fatalf("%s: refused %+v", alter, plan.Refusals[0])
		}
		if told := notes(plan, append(names, "rows are not tried")...); told != (names != nil) || (plan.Rows == nil) != told || (plan.Estimate == nil) != told {
			t.Errorf("%s: rows %+v, estimate %+v, notices %q", alter, plan.Rows, plan.Estimate, plan.Notices)
		}
		if after := pgtest.Scalar[string](t, db, sequences); after != before {
			t.Fatalf("%s: the sequences were %s, and are %s", alter, before, after)
		}
	}
}

// TestPlanOfAVolatileCast: a conversion that gives another value at each call is refused before it is run.
func TestPlanOfAVolatileCast(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1); CREATE SEQUENCE us; CREATE TYPE e AS (n bigint); CREATE FUNCTION counted(int) RETURNS e LANGUAGE sql AS $$ SELECT ROW(nextval('us'))::e $$;
		CREATE CAST (int AS e) WITH FUNCTION counted AS ASSIGNMENT`)
	plan := planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{"ALTER COLUMN n TYPE e"}, AllowLossy: true}})
	if len(plan.Refusals) != 1 || plan.Refusals[0].Check != "expression" || !strings.Contains(plan.Refusals[0].Reason, "counted(integer)") {
		t.Errorf("refusals: %+v", plan.Refusals)
	}
	if called := pgtest.Scalar[bool](t, db, "SELECT is_called FROM us"); called {
		t.Error("the function was called")
	}
}

// TestPlanOfAllRows: with CheckData what is lost is counted in all of the table, what was tried of a new unique index on the
// sample alone is said, and no lock on another table is held meanwhile.
func TestPlanOfAllRows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);"+
		"CREATE TABLE t (id int PRIMARY KEY, n numeric NOT NULL, p int NOT NULL DEFAULT 1 REFERENCES parent); INSERT INTO t SELECT i, i FROM generate_series(1, 60000) i;"+
		"UPDATE t SET n = n + 0.5 WHERE id IN (12345, 59000, 59001); UPDATE t SET n = 7 WHERE id = 59002; ANALYZE t")
	plan := planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{"ALTER COLUMN n TYPE numeric(10,0)"}, AllowLossy: true}})
	if len(plan.Losses) != 1 || plan.Losses[0].Rows == nil || *plan.Losses[0].Rows != 3 || !plan.Rows.All {
		t.Errorf("losses: %+v, rows %+v", plan.Losses, plan.Rows)
	}
	plan = planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{"ADD UNIQUE (n)"}}})
	if plan.Rows.All || !notes(plan, "t_n_key", "on the sample only") {
		t.Errorf("rows %+v, notices %q", plan.Rows, plan.Notices)
	}
	db.Exec(t, "CREATE FUNCTION looked(int) RETURNS boolean STABLE LANGUAGE sql AS $$ SELECT $1 < 59000 OR NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'public.parent'::regclass) $$")
	plan = planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{"ALTER COLUMN n TYPE numeric(12,1), ADD CHECK (looked(id))"}, AllowLossy: true}})
	if plan.Rows == nil || plan.Rows.Failing != 0 {
		t.Errorf("the table at the other end of the foreign key is locked while all rows are tried: %+v", plan.Rows)
	}
}

// TestPlanThatTakesTooLong: the plan is there all the same, and says that rows are not tried.
func TestPlanThatTakesTooLong(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema+"CREATE FUNCTION slow(bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$")
	plan := planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint, ADD CHECK (slow(id))"}}})
	if plan.Method != "shadow" || len(plan.Statements) == 0 || plan.Rows != nil || plan.Estimate != nil || !notes(plan, "rows are not tried", "30s") {
		t.Errorf("%q, rows %+v, notices %q, refusals %+v", plan.Method, plan.Rows, plan.Notices, plan.Refusals)
	}
}

// TestPlanOfALockedTable names who has it, after a bounded wait.
func TestPlanOfALockedTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	other := db.Conn(t)
	mustExec(t, other, "SET application_name = 'the other'; BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
	_, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: db.DSN, Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"}}})
	if err == nil || !strings.Contains(err.Error(), "the other") {
		t.Errorf("it is not told who has the lock: %v", err)
	}
}

// TestPlanWritesInFewSubtransactions (hazard H20): the transaction ids that a plan takes do not grow with the rows that do not fit.
func TestPlanWritesInFewSubtransactions(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}}))
	db.Exec(t, planSchema)
	login(t, db)
	for alter, failing := range map[string]int64{"ALTER COLUMN n TYPE bigint, ADD CHECK (id % 500 > 0)": 120, "ADD CHECK (id % 3 > 0)": 1000, "ADD CHECK (id < 0)": 1000} {
		began := pgtest.Scalar[int64](t, db, "SELECT pg_current_xact_id()::text::bigint")
		plan := planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{Alters: []string{alter}}})
		if plan.Rows == nil || plan.Rows.Failing != failing || plan.Rows.More != (failing == 1000) || plan.Rows.All == plan.Rows.More {
			t.Fatalf("%s: %+v", alter, plan.Rows)
		}
		if took := pgtest.Scalar[int64](t, db, "SELECT pg_current_xact_id()::text::bigint") - began; took > 64 {
			t.Errorf("%s: the plan took %d transaction ids", alter, took)
		}
	}
}

// TestPlanOfAForeignKey: rows without a partner are named and counted, as MATCH has them, and the other table is not locked.
func TestPlanOfAForeignKey(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE parent (a int, b text, PRIMARY KEY (a, b)); INSERT INTO parent SELECT i, 'b' || i FROM generate_series(0, 99) i;
		CREATE TABLE t (id bigint PRIMARY KEY, a int, b text);
		INSERT INTO t SELECT i, CASE i % 1000 WHEN 7 THEN -1 WHEN 8 THEN NULL ELSE i % 100 END, CASE i % 1000 WHEN 8 THEN NULL WHEN 9 THEN NULL ELSE 'b' || i % 100 END FROM generate_series(1, 60000) i;
		ANALYZE; ALTER TABLE t ADD CONSTRAINT late FOREIGN KEY (a, b) REFERENCES parent NOT VALID;
		CREATE TABLE closed (id int PRIMARY KEY)`)
	dsn := login(t, db)
	db.Exec(t, "ALTER TABLE closed OWNER TO "+pgtest.Scalar[string](t, db, "SELECT current_user::text")+"; GRANT REFERENCES ON closed TO PUBLIC")
	writer := db.Conn(t)
	if _, err := writer.Exec(t.Context(), "BEGIN; LOCK TABLE parent IN ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	for alter, failing := range map[string]int64{
		"ADD FOREIGN KEY (a, b) REFERENCES parent":                                      60,
		"ADD FOREIGN KEY (b, a) REFERENCES parent (b, a), ADD CHECK (id > 0)":           60,
		"ADD CONSTRAINT every FOREIGN KEY (a, b) REFERENCES public.parent MATCH FULL":   120,
		"VALIDATE CONSTRAINT late":                                                      60,
		"ADD FOREIGN KEY (a, b) REFERENCES parent, ADD CONSTRAINT fits CHECK (a <> -1)": 120,
		"ADD COLUMN z bigint DEFAULT 3, ADD FOREIGN KEY (a, b) REFERENCES parent":       60,
		"ADD COLUMN z bigint DEFAULT 3 REFERENCES t, ADD COLUMN y bigint REFERENCES t":  0,
		"ADD COLUMN z bigint DEFAULT -3 REFERENCES t":                                   1000,
	} {
		for _, all := range []bool{true, false}[:1+min(failing/120, 1)] { // a sample of some
			plan := planned(t, db, migration.PlanConfig{CheckData: all, Config: migration.Config{DSN: dsn, Alters: []string{alter}}})
			if plan.Method != "native" || plan.Rows == nil || plan.Estimate == nil || plan.Estimate.SampleRows < 10_000 || plan.Estimate.DiskBytes != 0 {
				t.Fatalf("%s: %s %+v, rows %+v, estimate %+v, notices %q", alter, plan.Method, plan.Refusals, plan.Rows, plan.Estimate, plan.Notices)
			}
			if got := plan.Rows.Failing; all && got != failing || (got > 0) != (failing > 0) || got > failing {
				t.Errorf("%s: %+v, want %d", alter, plan.Rows, failing)
			}
			if all && failing > 0 && failing < 1000 && (*plan.Rows.Failures[0].Key != keyset.NewKey("7") || plan.Rows.Tried != 60_000) {
				t.Errorf("%s: %+v", alter, plan.Rows)
			}
		}
	}
	plan := planned(t, db, migration.PlanConfig{CheckData: true, Config: migration.Config{DSN: dsn, Alters: []string{"ADD FOREIGN KEY (a) REFERENCES closed"}}})
	if !notes(plan, "foreign key (a)", "rows are not tried", "closed") {
		t.Errorf("of a table that the owner may not read: %+v %q", plan.Rows, plan.Notices)
	}
}

// TestPlanEstimatesARecipe: of a native change the new indexes count, and what reads rows, and no more.
func TestPlanEstimatesARecipe(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	login(t, db)
	for _, alter := range []string{"ADD CHECK (id > 0)", "ALTER COLUMN v SET NOT NULL"} {
		plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{alter}}})
		if e := plan.Estimate; e == nil || e.IndexMS != 0 || e.CopyMS != 0 || e.DiskBytes != 0 || e.WALBytes != 0 || e.DurationMS != e.VerifyMS {
			t.Errorf("%s: %+v", alter, e)
		}
	}
	plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{"ADD CONSTRAINT fresh UNIQUE (id, v)"}}})
	db.Exec(t, "ALTER TABLE t ADD CONSTRAINT fresh UNIQUE (id, v)")
	size := pgtest.Scalar[int64](t, db, "SELECT pg_relation_size('fresh')")
	if e := plan.Estimate; e == nil || e.DiskBytes < size/2 || e.DiskBytes > 2*size || e.WALBytes < size/2 || e.WALBytes > 2*size || e.CopyMS != 0 {
		t.Errorf("estimate %+v, and the index takes %d bytes", e, size)
	}
}

// TestPlanDespiteStatistics: what a table really holds counts, where its statistics say that it holds a lot more; no row is tried twice.
func TestPlanDespiteStatistics(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, n int, filler text DEFAULT repeat('x', 500))")
	login(t, db)
	for _, rows := range []int64{50, 8000} {
		db.Exec(t, "TRUNCATE t")
		db.Exec(t, "INSERT INTO t SELECT i, i FROM generate_series(1, $1::int) i", rows)
		db.Exec(t, "UPDATE pg_class SET reltuples = 200000, relpages = 10000 WHERE oid = 't'::regclass")
		plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{"ALTER COLUMN n TYPE bigint"}}})
		size := pgtest.Scalar[int64](t, db, "SELECT pg_total_relation_size('t')")
		if plan.Rows == nil || plan.Rows.Tried != rows || len(plan.Rows.Failures) > 0 || !plan.Rows.All {
			t.Errorf("%d rows: tried were %+v", rows, plan.Rows)
		}
		if e := plan.Estimate; e == nil || e.SampleRows != rows || e.DiskBytes > 2*size {
			t.Errorf("%d rows, %d bytes: %+v", rows, size, e)
		}
	}
}
