package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestPlanScript runs the plan as SQL, and holds the dump and the rows against those
// after a plain ALTER TABLE.
func TestPlanScript(t *testing.T) {
	t.Parallel()
	for _, alter := range []string{"ALTER COLUMN n TYPE bigint, ADD COLUMN z int DEFAULT 3, DROP COLUMN at", "ADD CHECK (price > 0), ADD UNIQUE (id, v)"} {
		t.Run(alter, func(t *testing.T) {
			t.Parallel()
			scripted, plain := pgtest.New(t), pgtest.New(t)
			scripted.Exec(t, planSchema)
			plain.Exec(t, planSchema+"ALTER TABLE t "+alter)
			dsn := login(t, scripted)
			reown(t, plain, scripted.Name+"_owner")
			plan := planned(t, scripted, migration.PlanConfig{Config: migration.Config{Alters: []string{alter}}})
			if failed := runScript(t, dsn, plan.Script()); failed != "" {
				t.Fatal(failed)
			}
			if got, want := pgtest.Dump(t, scripted), pgtest.Dump(t, plain); got != want {
				t.Errorf("the dump differs from that after a plain ALTER TABLE:\n%s", lineDiff(want, got))
			}
			const rows = "SELECT md5(string_agg(t::text, ' ' ORDER BY id)) FROM (SELECT id, n, price, v FROM t) t"
			if pgtest.Scalar[string](t, scripted, rows) != pgtest.Scalar[string](t, plain, rows) {
				t.Error("the rows differ from those after a plain ALTER TABLE")
			}
		})
	}
}

// TestPlanScriptKeepsGrants: nobody gets a right by the script that a plain ALTER TABLE would not leave, or loses one.
func TestPlanScriptKeepsGrants(t *testing.T) {
	t.Parallel()
	scripted, plain := pgtest.New(t), pgtest.New(t)
	const alter = `ALTER COLUMN n TYPE bigint, ADD COLUMN z int[] DEFAULT ARRAY[1, 2], ADD CHECK (arr[1:"PORT"] IS NOT NULL)`
	reader, owner := scripted.Role(t, "reader", ""), scripted.Role(t, "shop", "")
	for _, db := range []*pgtest.DB{scripted, plain} {
		db.Exec(t, `CREATE TABLE secret (id int PRIMARY KEY, n int, "PORT" int DEFAULT 1, arr int[] DEFAULT '{1,2}'); INSERT INTO secret (id, n) VALUES (1, 1); CREATE INDEX ON secret ((arr[1:"PORT"]));`+
			"ALTER TABLE secret OWNER TO "+owner+"; GRANT CREATE ON SCHEMA public TO "+owner+"; GRANT SELECT ON secret TO "+reader+"; GRANT UPDATE (n) ON secret TO "+reader+
			"; ALTER DEFAULT PRIVILEGES FOR ROLE "+owner+" GRANT SELECT ON TABLES TO PUBLIC")
	}
	plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: scripted.DSN, Table: "secret", Alters: []string{alter}}})
	if err != nil || plan.Method != "shadow" {
		t.Fatalf("%v, %s %+v", err, plan.Method, plan.Refusals)
	}
	if failed := runScript(t, scripted.DSN, plan.Script()); failed != "" {
		t.Fatal(failed)
	}
	plain.Exec(t, "ALTER TABLE secret "+alter)
	if got, want := pgtest.Dump(t, scripted), pgtest.Dump(t, plain); got != want {
		t.Errorf("the dump differs from that after a plain ALTER TABLE:\n%s", lineDiff(want, got))
	}
}

// TestPlanScriptOfAnyName: what a name holds stays a name, in a script that is run and in one that is refused.
func TestPlanScriptOfAnyName(t *testing.T) {
	t.Parallel()
	for alter, wants := range map[string]struct {
		method migration.PlanMethod
		check  string
	}{
		"ALTER COLUMN n TYPE bigint -- wider": {"shadow", "SELECT atttypid = 'bigint'::regtype FROM pg_attribute WHERE attrelid = $1::oid AND attname = 'n'"},
		"ADD UNIQUE (n), ADD CHECK (n > 0)":   {"native", "SELECT count(*) = 2 AND bool_and(convalidated) FROM pg_constraint WHERE conrelid = $1::oid AND contype IN ('u', 'c')"},
		"ALTER COLUMN n TYPE smallint":        {"", "SELECT true WHERE $1::oid IS NOT NULL"},
	} {
		t.Run(alter, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			for i, breaks := range []string{"\n", "\r", "\r\n"} {
				name := `t'"$$` + breaks + `\! touch trap` + breaks + `SELECT 1/0;` + breaks + `\q`
				db.Exec(t, "CREATE SCHEMA "+pg.Ident("s"+name)+"; CREATE TABLE "+pg.Ident("s"+name, name)+" (id int PRIMARY KEY, n int); INSERT INTO "+pg.Ident("s"+name, name)+" SELECT i, i FROM generate_series(1, 100) i")
				if i > 0 {
					reown(t, db, db.Name+"_owner")
				}
				dsn := login(t, db)
				plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: migration.Config{DSN: dsn, Table: pg.Ident("s"+name, name), Alters: []string{alter}, Native: migration.NativeAuto}})
				if err != nil || plan.Method != wants.method {
					t.Fatalf("%v: %s %+v", err, plan.Method, plan.Refusals)
				}
				if failed := runScript(t, dsn, plan.Script()); failed != "" {
					t.Errorf("%q: %s", breaks, failed)
				}
				oid := pgtest.Scalar[uint32](t, db, "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = $1 AND nspname = 's' || relname", name)
				if !pgtest.Scalar[bool](t, db, wants.check, oid) {
					t.Errorf("%q: the script has not made the change", breaks)
				}
			}
		})
	}
}

// TestPlanScriptInItsSettings: what depends on the time zone, on the order of day and month, on the search_path or on the role
// comes to what a run makes of it, whatever the session has that runs the script.
func TestPlanScriptInItsSettings(t *testing.T) {
	t.Parallel()
	for _, alter := range []string{
		"ALTER COLUMN at TYPE timestamptz, ADD COLUMN d date DEFAULT '02/03/2020'",
		"ADD COLUMN z timestamptz DEFAULT '2020-01-01 00:00', ADD COLUMN d date DEFAULT '02/03/2020', ADD COLUMN f text DEFAULT whose(), ADD COLUMN who text DEFAULT current_user",
		"ADD COLUMN f text DEFAULT whose(), ADD CHECK (whose() = 'ours')",
	} {
		t.Run(alter, func(t *testing.T) {
			t.Parallel()
			dbs := [2]*pgtest.DB{pgtest.New(t), pgtest.New(t)}
			var results [2]string
			for i, db := range dbs {
				db.Exec(t, planSchema+`CREATE SCHEMA ours; CREATE FUNCTION ours.whose() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'ours'::text $$; CREATE FUNCTION whose() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'public'::text $$;
					GRANT USAGE ON SCHEMA ours TO PUBLIC`)
				dsn := login(t, db)
				config := migration.Config{DSN: with(dsn, "timezone", "Asia/Tokyo", "datestyle", "ISO,DMY", "search_path", "ours,public"), Table: "t", Alters: []string{alter}, Native: migration.NativeAuto, AllowLossy: true}
				if i == 0 {
					plan, err := migration.Plan(t.Context(), migration.PlanConfig{Config: config})
					if err != nil || len(plan.Refusals) > 0 {
						t.Fatalf("%v %+v", err, plan.Refusals)
					}
					if plan.Settings["TimeZone"] != "Asia/Tokyo" || plan.Settings["DateStyle"] != "ISO, DMY" || plan.Settings["IntervalStyle"] != "postgres" || !strings.HasPrefix(plan.Settings["search_path"], `"ours", "public"`) {
						t.Errorf("settings %q", plan.Settings)
					}
					if failed := runScript(t, with(dsn, "timezone", "America/New_York", "datestyle", "SQL,MDY"), plan.Script()); failed != "" {
						t.Fatal(failed)
					}
				} else {
					mustRun(t, config)
				}
				results[i] = pgtest.Scalar[string](t, db, "SELECT string_agg(to_jsonb(t)::text, ' ' ORDER BY id) FROM (SELECT * FROM t WHERE id % 1000 = 7) t") +
					pgtest.Scalar[string](t, db, "SELECT coalesce(string_agg(pg_get_expr(adbin, adrelid), ' ' ORDER BY adnum), '') FROM pg_attrdef WHERE adrelid = 't'::regclass") +
					pgtest.Scalar[string](t, db, "SELECT coalesce(string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conname), '') FROM pg_constraint WHERE conrelid = 't'::regclass")
				results[i] = regexp.MustCompile(db.Name+`|"(at|made)": "[^"]*"`).ReplaceAllString(results[i], "")
			}
			if results[0] != results[1] {
				t.Errorf("the script came to\n%.600s\na run to\n%.600s", results[0], results[1])
			}
		})
	}
}

// TestPlanScriptTakenBack: one that fails half way says what takes back what it has committed, and that does.
func TestPlanScriptTakenBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, planSchema)
	dsn := login(t, db)
	plan := planned(t, db, migration.PlanConfig{Config: migration.Config{Alters: []string{"ADD COLUMN y int DEFAULT 1 CHECK (y > 0), ADD UNIQUE (id, v), ADD CONSTRAINT fits CHECK (v NOT LIKE 'x%')"}}})
	before := everything(t, db)
	script := plan.Script()
	if failed := runScript(t, dsn, script); !strings.Contains(failed, "fits") {
		t.Fatalf("the script should fail at what does not fit: %s", failed)
	}
	if everything(t, db) == before {
		t.Fatal("nothing of it was committed: it proves nothing")
	}
	for _, header := range []string{"several transactions", "CREATE INDEX CONCURRENTLY", "code of its owner"} {
		if head, _, _ := strings.Cut(script, "SET ROLE"); !strings.Contains(head, header) {
			t.Errorf("the header does not speak of %s:\n%s", header, head)
		}
	}
	back := ""
	for _, line := range regexp.MustCompile(`(?m)^--   (.*;)$`).FindAllStringSubmatch(script, -1) {
		back += line[1] + "\n"
	}
	if strings.Count(back, "\n") != len(plan.Undo) || len(plan.Undo) != 4 {
		t.Errorf("to take it back: %+v, in the script\n%s", plan.Undo, back)
	}
	if failed := runScript(t, dsn, "SET ROLE "+pg.Ident(plan.Facts.Owner)+";\n"+back); failed != "" {
		t.Errorf("taking it back: %s", failed)
	}
	if after := everything(t, db); after != before {
		t.Errorf("it has not been taken back:\n%s", lineDiff(before, after))
	}
}

// with adds settings to a connection string.
func with(dsn string, settings ...string) string {
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	for i := 0; i < len(settings); i += 2 {
		dsn += separator + settings[i] + "=" + strings.ReplaceAll(settings[i+1], "/", "%2F")
		separator = "&"
	}
	return dsn
}

// runScript has psql run the script, where it is at hand, and says what failed. Else a
// connection is given the statements one by one.
func runScript(t *testing.T, dsn, script string) (failed string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if program, err := exec.LookPath("psql"); err == nil {
		folder := t.TempDir()
		file := filepath.Join(folder, "script.sql")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		options := "PGOPTIONS="
		for name, value := range config.RuntimeParams {
			options += " -c " + name + "=" + value
		}
		cmd := exec.CommandContext(t.Context(), program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, "-h", config.Host, "-p", strconv.Itoa(int(config.Port)), "-U", config.User, "-d", config.Database)
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "PGPASSWORD="+config.Password, options)
		output, err := cmd.CombinedOutput()
		if files, _ := os.ReadDir(folder); len(files) != 1 {
			t.Errorf("psql has run what is in a name:\n%s", script)
		}
		if err != nil {
			return err.Error() + ": " + string(output)
		}
		return ""
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // the test is over
	statement := ""
	for line := range strings.Lines(script) {
		statement += line
		if !strings.HasSuffix(line, ";\n") || strings.Count(statement, `"`)%2 == 1 || strings.Count(statement, "$$\nBEGIN")+strings.Count(statement, "$$\nDECLARE") > strings.Count(statement, "END\n$$") { // within a name, or a function
			continue
		}
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			return statement + ": " + err.Error()
		}
		statement = ""
	}
	return ""
}
