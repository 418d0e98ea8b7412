package e2e

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// planned makes a plan, which must leave no trace.
func planned(t *testing.T, db *pgtest.DB, config migration.PlanConfig) migration.PlanReport {
	t.Helper()
	config.Table = "t"
	if config.DSN == "" {
		config.DSN = login(t, db)
	}
	if config.Native == "" {
		config.Native = migration.NativeAuto
	}
	before := everything(t, db)
	plan, err := migration.Plan(t.Context(), config)
	if err != nil {
		t.Fatalf("%s: %v", config.Alters, err)
	}
	if after := everything(t, db); after != before {
		t.Errorf("the plan of %s has left something:\n%s", config.Alters, lineDiff(before, after))
	}
	return plan
}

const planSchema = `CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1);
	CREATE TABLE t (id bigserial PRIMARY KEY, n int DEFAULT 1 REFERENCES other, price numeric(10,3), v text, at timestamp DEFAULT now(), CHECK (n > 0));
	CREATE INDEX t_v ON t (v); CREATE UNIQUE INDEX t_price ON t (price); CREATE VIEW seen AS SELECT id, v FROM t; COMMENT ON TABLE t IS 'of t';
	CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
	INSERT INTO t (price, v) SELECT i / 8.0, CASE WHEN i % 1000 = 7 THEN 'x' || i ELSE i::text END FROM generate_series(1, 60000) i; ANALYZE t;
	CREATE TABLE child (id bigint REFERENCES t); INSERT INTO child VALUES (1);`

// TestPlanOfAShadow: what the plan of a copy tells.
func TestPlanOfAShadow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{"ALTER COLUMN price TYPE numeric(12,4)"}}})
	if plan.Verdict != "rewrite" || plan.Method != "shadow" || plan.ExitCode != 0 || len(plan.Refusals) > 0 {
		t.Fatalf("the plan: %+v", plan)
	}
	if plan.Sizes.Rows < 50_000 || plan.Sizes.Rows > 70_000 || plan.Sizes.TotalBytes != plan.Sizes.HeapBytes+plan.Sizes.ToastBytes+plan.Sizes.IndexBytes || plan.Sizes.IndexBytes == 0 {
		t.Errorf("sizes: %+v", plan.Sizes)
	}
	e := plan.Estimate
	if e == nil || e.SampleRows < 10_000 || e.SampleRows > 25_000 || e.DiskBytes < plan.Sizes.TotalBytes/2 || e.DiskBytes > 2*plan.Sizes.TotalBytes || e.WALBytes < e.DiskBytes/3 {
		t.Errorf("estimate: %+v of sizes %+v", e, plan.Sizes)
	}
	if plan.Rows == nil || plan.Rows.All || plan.Rows.Failing > 0 || plan.Rows.Tried != e.SampleRows {
		t.Errorf("rows: %+v", plan.Rows)
	}
	phases := map[string]int{}
	for _, statement := range plan.Statements {
		phases[statement.Phase]++
		if statement.SQL == "" || statement.Why == "" {
			t.Errorf("a statement lacks something: %+v", statement)
		}
		if takesTheTable := strings.Contains(statement.Lock, `ACCESS EXCLUSIVE on "public"."t"`); takesTheTable && (statement.LockTimeoutMS != 500 || statement.ExpectedWait == "") {
			t.Errorf("a lock on the table without a limit: %+v", statement)
		}
	}
	for _, phase := range []string{"prepare", "copy", "index", "verify", "cutover", "clean_up"} {
		if phases[phase] == 0 {
			t.Errorf("no statement of phase %s", phase)
		}
	}
	if !slices.ContainsFunc(plan.Notices, func(n string) bool { return strings.Contains(n, "cached plan must not change result type") }) {
		t.Errorf("nothing of prepared statements: %q", plan.Notices)
	}
}

// TestPlanListsTheRun: replay, fences and verification are in the list, where a run has them, with the SQL that a run
// sends, and not in the script.
func TestPlanListsTheRun(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{"ALTER COLUMN price TYPE numeric(12,4)"}}})
	var listed []string
	for _, statement := range plan.Statements {
		for what, like := range map[string]string{"replay, deleting": `^DELETE FROM ONLY "pgshadow_.* NOT EXISTS \(SELECT FROM ONLY "public"."t" AS o`, "replay, writing": "^INSERT INTO .* ON CONFLICT .* DO UPDATE SET",
			"fence": `^SELECT pg_catalog.pg_logical_emit_message\(true, \$1, \$2\)$`, "verification": `^SELECT count\(\*\), coalesce\(pg_catalog.bit_xor\(.*FROM ONLY "(public|pgshadow_.*)"."t" AS`,
			"lock": "^LOCK TABLE .*ACCESS EXCLUSIVE MODE", "swap": `^ALTER TABLE .* SET SCHEMA "public"`} {
			if !regexp.MustCompile(like).MatchString(statement.SQL) {
				continue
			}
			if listed = append(listed, statement.Phase+": "+what); statement.Online == (what == "lock" || what == "swap") {
				t.Errorf("%s is online: %t", what, statement.Online)
			}
		}
	}
	want := []string{"copy: replay, deleting", "copy: replay, writing", "catch_up: fence", "verify: verification", "verify: verification",
		"cutover: lock", "cutover: fence", "cutover: replay, deleting", "cutover: replay, writing", "cutover: swap"}
	if listed = slices.Compact(listed); !slices.Equal(slices.Compact(want), listed) {
		t.Errorf("listed are %q", listed)
	}
	if script := plan.Script(); strings.Contains(script, "ON CONFLICT") || strings.Contains(script, "emit_message") || strings.Contains(script, "bit_xor") || strings.Contains(script, "PUBLICATION") {
		t.Errorf("the script has what only a run needs:\n%s", script)
	}
}

// TestPlanOfColumnsInPlace: a native change of the columns breaks prepared statements, as the plan says and the server
// does; one of anything else does not.
func TestPlanOfColumnsInPlace(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	const says = "cached plan must not change result type"
	for alter, breaks := range map[string]bool{
		"ADD COLUMN z int": true, "DROP COLUMN at": true, "ALTER COLUMN price TYPE numeric(12,3)": true, "RENAME COLUMN at TO made": true,
		"ADD COLUMN y int DEFAULT 1 CHECK (y > 0)": true, "ALTER COLUMN at SET STATISTICS 100": false, "ADD CHECK (id > 0)": false,
	} {
		plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{alter}}})
		told := slices.ContainsFunc(plan.Notices, func(n string) bool { return strings.Contains(n, says) })
		if plan.Method != "native" || told != breaks {
			t.Errorf("%s: %s %+v, notices %q", alter, plan.Method, plan.Refusals, plan.Notices)
		}
		conn := db.Conn(t)
		_, err := conn.Exec(t.Context(), "PREPARE all_of_it AS SELECT * FROM t LIMIT 1; EXECUTE all_of_it; BEGIN; ALTER TABLE t "+alter)
		if err != nil {
			t.Fatalf("%s: %v", alter, err)
		}
		if _, err = conn.Exec(t.Context(), "EXECUTE all_of_it"); (err != nil && strings.Contains(err.Error(), says)) != breaks {
			t.Errorf("%s: the prepared statement says %v", alter, err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPlanOfRowsThatDoNotFit: they are named by key, and counted; and so are values that
// lose something.
func TestPlanOfRowsThatDoNotFit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	for _, all := range []bool{false, true} {
		for alter, method := range map[string]migration.PlanMethod{"ALTER COLUMN v TYPE int USING v::int": "shadow", "ADD CONSTRAINT fits CHECK (v NOT LIKE 'x%')": "native"} {
			plan := planned(t, db, migration.PlanConfig{CheckData: all, Config: migration.Config{Alters: []string{alter}, AllowLossy: true}})
			if plan.Method != method || plan.Rows == nil || plan.Rows.Failing == 0 || len(plan.Rows.Failures) == 0 || plan.Rows.Failures[0].Key == nil || plan.Rows.All != all {
				t.Fatalf("%s: %s, rows %+v", alter, plan.Method, plan.Rows)
			}
			if key := plan.Rows.Failures[0].Key; all && (*key != keyset.NewKey("7") || plan.Rows.Failing != 60 || plan.Rows.Tried != 60_000 || len(plan.Rows.Failures) != 10) {
				t.Errorf("%s: rows %+v, the first %s", alter, plan.Rows, key)
			}
		}
	}
	plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{"ALTER COLUMN price TYPE numeric(10,0)"}, AllowLossy: true}})
	if len(plan.Losses) != 1 || plan.Losses[0].Column != "price" || plan.Losses[0].Rows == nil || *plan.Losses[0].Rows < plan.Rows.Tried/2 {
		t.Errorf("losses: %+v", plan.Losses)
	}
	if !slices.ContainsFunc(plan.Rows.Failures, func(f migration.PlanFailure) bool { return f.Index == "t_price" && f.SQLState == "23505" }) {
		t.Errorf("the index on what is rounded: %+v", plan.Rows.Failures)
	}
}

// TestPlanRefused: the plan of a change that would be refused says why, and as what.
func TestPlanRefused(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema+"CREATE DOMAIN whole AS numeric(10,0)")
	for alter, check := range map[string]string{
		"ALTER COLUMN price TYPE numeric(10,1)":                                                           "lossy",
		"ALTER COLUMN price TYPE whole":                                                                   "lossy",
		"ALTER COLUMN v TYPE text USING v::varchar(3)":                                                    "lossy",
		"ALTER COLUMN at TYPE timestamp USING at AT TIME ZONE 'UTC'":                                      "lossy",
		"ALTER COLUMN at TYPE timestamptz USING CASE WHEN n > 5 THEN NULL ELSE at END AT TIME ZONE 'UTC'": "lossy",
		"DROP COLUMN id":             "alter",
		"ALTER COLUMN none TYPE int": "alter",
		"ALTER COLUMN v TYP int":     "alter",
		"SET UNLOGGED":               "alter",
		"ALTER COLUMN n TYPE bigint, ADD FOREIGN KEY (id) REFERENCES other": "foreign key",
	} {
		plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{alter}}})
		if plan.ExitCode != migration.Refused.ExitCode() || len(plan.Refusals) == 0 || plan.Refusals[0].Check != check || plan.Refusals[0].Remedy == "" || plan.Method != "" {
			t.Errorf("%s: %+v", alter, plan.Refusals)
		}
	}
}

// TestPlanOfNoLoss: what loses nothing asks for no leave.
func TestPlanOfNoLoss(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema+"ALTER TABLE t ADD code char(5) DEFAULT 'ab'")
	for _, alter := range []string{"ALTER COLUMN at TYPE timestamptz USING at AT TIME ZONE 'UTC'", "ALTER COLUMN code TYPE varchar(5)", "ALTER COLUMN id TYPE numeric(19,0) USING id::numeric(19,0)"} {
		plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{alter}}})
		if plan.Method != "shadow" || plan.ExitCode != 0 || len(plan.Losses) > 0 {
			t.Errorf("%s: %s, losses %+v, refusals %+v", alter, plan.Method, plan.Losses, plan.Refusals)
		}
	}
}

// TestExpectPlan: a plan that was read again is that of the same table, until it changes.
func TestExpectPlan(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	alters := []string{"ADD COLUMN z int DEFAULT 3"}
	document, err := json.Marshal(planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: alters}}))
	if err != nil {
		t.Fatal(err)
	}
	var plan migration.PlanReport
	if err := json.Unmarshal(document, &plan); err != nil {
		t.Fatal(err)
	}
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: alters, Native: migration.NativeAuto, Expect: &plan}
	other := config
	other.Alters = []string{"ADD COLUMN y int"}
	if says := refused(t, db, other); says.Error.Check != "plan" || !strings.Contains(says.Error.Message, "another change") {
		t.Errorf("another change: %+v", says.Error)
	}
	dry := planned(t, db, migration.PlanConfig{Config: other})
	if len(dry.Refusals) != 1 || dry.Refusals[0].Check != "plan" || dry.ExitCode != migration.Refused.ExitCode() {
		t.Errorf("the plan of another change: %+v", dry.Refusals)
	}
	elsewhere := config
	elsewhere.Table = "other"
	if says := refused(t, db, elsewhere); says.Error.Check != "plan" || !strings.Contains(says.Error.Message, "it is the plan of public.t, and not of public.other") {
		t.Errorf("another table: %+v", says.Error)
	}
	db.Exec(t, "COMMENT ON COLUMN t.v IS 'new'")
	if dry = planned(t, db, migration.PlanConfig{Config: config}); len(dry.Refusals) != 1 || dry.Refusals[0].Check != "plan" {
		t.Errorf("the plan of a changed table: %+v", dry.Refusals)
	}
	if says := refused(t, db, config); says.Error.Check != "plan" || !strings.Contains(says.Error.Message, "v") {
		t.Errorf("a changed table: %+v", says.Error)
	}
	db.Exec(t, "COMMENT ON COLUMN t.v IS NULL")
	if report := mustRun(t, config); report.Method != "native" {
		t.Errorf("report %+v", report)
	}
}

// TestPlanOnAStandby: it says what it cannot, and refuses what it can.
func TestPlanOnAStandby(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.db.Exec(t, planSchema+"CREATE MATERIALIZED VIEW kept AS SELECT v FROM t; CREATE VIEW one AS SELECT 1 AS x")
	p.awaitReplay(t)
	dsn := p.db.At(p.standby).DSN
	plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: dsn, Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"}}})
	if err != nil || plan.Verdict != "unknown" || len(plan.NeedsPrimary) == 0 || plan.ExitCode != 0 || plan.Sizes.TotalBytes == 0 || len(plan.Fingerprint) == 0 {
		t.Errorf("%v: %+v", err, plan)
	}
	if !slices.ContainsFunc(plan.Notices, func(n string) bool { return strings.Contains(n, "materialized view") }) {
		t.Errorf("nothing of what is in the way: %q", plan.Notices)
	}
	expecting := migration.Config{DSN: dsn, Table: "t", Alters: plan.Alters, Expect: &plan}
	if again, err := migration.Plan(t.Context(), migration.PlanConfig{Config: expecting}); err != nil || len(again.Refusals) > 0 {
		t.Errorf("as planned: %v %+v", err, again.Refusals)
	}
	p.db.Exec(t, "COMMENT ON COLUMN t.v IS 'new'")
	p.awaitReplay(t)
	if again, err := migration.Plan(t.Context(), migration.PlanConfig{Config: expecting}); err != nil || len(again.Refusals) != 1 || again.Refusals[0].Check != "plan" {
		t.Errorf("a changed table: %v %+v", err, again.Refusals)
	}
	if plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: dsn, Table: "one", Alters: []string{"ADD COLUMN y int"}}}); err != nil || plan.ExitCode != migration.Refused.ExitCode() {
		t.Errorf("a view: %v %+v", err, plan.Refusals)
	}
}
