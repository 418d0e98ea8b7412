package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// missingRight is a right that is taken away. The words are in braces: {login}, {owner}, {db}.
type missingRight struct {
	name   string
	revoke string
	check  string // default rights
	remedy string // as far as it is SQL; empty: says is all that can be said
	says   string
	alter  string
	grant  string // instead of the remedy
}

// missingRights are of a login role that does not inherit what the owner may.
var missingRights = []missingRight{
	{name: "REPLICATION", revoke: "ALTER ROLE {login} NOREPLICATION", remedy: `ALTER ROLE "{login}" REPLICATION`, says: "may not use replication"},
	{name: "membership", revoke: "REVOKE {owner} FROM {login}", remedy: `GRANT "{owner}" TO "{login}"`, says: "not a member of {owner}"},
	{name: "CREATE on the database", revoke: "REVOKE CREATE ON DATABASE {db} FROM {login}", remedy: `GRANT CREATE ON DATABASE "{db}" TO "{login}"`, says: "may not create schemas in database {db}"},
	{name: "CREATE on the database, of the owner", revoke: "REVOKE CREATE ON DATABASE {db} FROM {owner}", remedy: `GRANT CREATE ON DATABASE "{db}" TO "{owner}"`, says: "does not inherit the rights of {owner}"},
	{name: "CREATE on the schema", revoke: "REVOKE CREATE ON SCHEMA app FROM {owner}, {login}", remedy: `GRANT CREATE ON SCHEMA "app" TO "{owner}"`, says: "neither {owner} nor {login} may create in schema app"},
	{name: "CREATE on the schema, of the owner", revoke: "REVOKE CREATE ON SCHEMA app FROM {owner}; GRANT CREATE ON SCHEMA app TO {login}", remedy: `GRANT CREATE ON SCHEMA "app" TO "{owner}"`, says: "{login} does not inherit"},
	{name: "USAGE on the table's schema", revoke: "REVOKE USAGE ON SCHEMA app FROM {owner}", remedy: `GRANT USAGE ON SCHEMA app TO "{owner}"`, says: "{owner}, the owner of the table, lacks USAGE ON SCHEMA app"},
	{name: "USAGE on the schema of types", revoke: "REVOKE USAGE ON SCHEMA types FROM {owner}", remedy: `GRANT USAGE ON SCHEMA types TO "{owner}"`, says: "lacks USAGE ON SCHEMA types"},
	{name: "USAGE on the schema of functions", revoke: `REVOKE USAGE ON SCHEMA "Func tions" FROM {owner}`, remedy: `GRANT USAGE ON SCHEMA "Func tions" TO "{owner}"`, says: `lacks USAGE ON SCHEMA "Func tions"`},
	{name: "USAGE on a schema that the change names", revoke: `REVOKE USAGE ON SCHEMA later FROM {owner}`, remedy: `GRANT USAGE ON SCHEMA "later" TO "{owner}"`, says: "which the change names", alter: "ADD COLUMN x later.mood"},
	{name: "USAGE on a type", revoke: "REVOKE USAGE ON TYPE types.mood FROM PUBLIC, {owner}", remedy: `GRANT USAGE ON TYPE types.mood TO "{owner}"`, says: "lacks USAGE ON TYPE types.mood"},
	{name: "USAGE on a type of the change", revoke: "REVOKE USAGE ON TYPE later.mood FROM PUBLIC, {owner}", says: "permission denied for type", alter: "ADD COLUMN x later.mood", grant: "GRANT USAGE ON TYPE later.mood TO {owner}"},
	{name: "EXECUTE on a function", revoke: `REVOKE EXECUTE ON FUNCTION "Func tions".f FROM PUBLIC, {owner}`, remedy: `GRANT EXECUTE ON FUNCTION "Func tions".f(integer) TO "{owner}"`, says: "lacks EXECUTE"},
	{name: "CREATE on a tablespace", revoke: "REVOKE CREATE ON TABLESPACE elsewhere FROM {owner}", remedy: `GRANT CREATE ON TABLESPACE elsewhere TO "{owner}"`, says: "lacks CREATE ON TABLESPACE elsewhere"},
	{name: "SELECT on the table", revoke: "REVOKE SELECT ON app.t FROM {owner}", remedy: `GRANT SELECT ON app.t TO "{owner}"`, says: "lacks SELECT ON app.t"},
	{name: "writing to the table", revoke: "REVOKE UPDATE ON app.t FROM {owner}", remedy: `GRANT UPDATE ON app.t TO "{owner}"`, says: "lacks UPDATE ON app.t"},
	{name: "membership in the owner of what is attached", revoke: "REVOKE {other} FROM {login}", remedy: `GRANT "{other}" TO "{login}"`, says: "may not SET ROLE to {other}, which owns, or has granted, something that is attached"},
	{name: "CREATE on the schema of a view", revoke: "REVOKE CREATE ON SCHEMA later FROM {other}", remedy: `GRANT CREATE ON SCHEMA "later" TO "{other}"`, says: "{other}, the owner of view later.v, may not create it again in schema later"},
	{name: "REFERENCES on a table", revoke: "REVOKE REFERENCES ON app.parent FROM {owner}", remedy: `GRANT REFERENCES ON "app"."parent" TO "{owner}"`, says: "{owner}, the owner of the table, may not make foreign key t_n_fkey to app.parent again"},
	{name: "SELECT on a table whose policy speaks of the table", revoke: "REVOKE SELECT ON later.doc FROM {other}", remedy: `GRANT SELECT ON "later"."doc" TO "{other}"`, says: `{other}, the owner of later.doc, lacks SELECT ON "later"."doc"`},
	{name: "USAGE on the schema of what is spoken of", revoke: "REVOKE USAGE ON SCHEMA app FROM {other}", remedy: `GRANT USAGE ON SCHEMA "app" TO "{other}"`, says: `{other} lacks USAGE ON SCHEMA "app", to make again view later.v, foreign key child_id_fkey on app.child, the policies and rules of later.doc that speak of the table`},
	{name: "ownership of the statistics", revoke: "ALTER STATISTICS app.s OWNER TO postgres", check: "statistics of another role", says: "app.s (of postgres)", grant: "ALTER STATISTICS app.s OWNER TO {owner}"},
	// Inherited rights are asked for here: SET ROLE would not show the sessions to all of a run's.
	{name: "seeing other sessions", revoke: "REVOKE pg_read_all_stats FROM {login}; ALTER ROLE {login} INHERIT", check: "throttle", remedy: `GRANT pg_read_all_stats TO "{login}"`, says: "may not see"},
}

// TestMissingRights: without any one of the rights nothing is created, and it is
// named; the remedy, word for word, makes the same command succeed.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	db := pgtest.NewOn(t, server)
	in := createRights(t, db)
	for _, right := range missingRights {
		t.Run(right.name, func(t *testing.T) { right.run(t, db, in) })
	}
	t.Run("all at once", func(t *testing.T) {
		var missing []missingRight
		for _, right := range missingRights {
			// What the change names is looked at when the table's rights are there.
			if right.alter == "" && right.name != "CREATE on the schema, of the owner" {
				missing = append(missing, right)
				db.Exec(t, in(right.revoke))
			}
		}
		db.Exec(t, in("ALTER ROLE {login} NOINHERIT"))
		config := rightsConfig(db, "ADD COLUMN x int")
		config.Throttle.MaxActiveSessions = 50
		report := refused(t, db, config)
		if got := len(report.Error.Refusals); got != len(missing) {
			t.Errorf("%d rights are named at once, of %d: %s", got, len(missing), report.Error.Message)
		}
		for _, right := range missing {
			if !strings.Contains(report.Error.Message, in(right.says)) {
				t.Errorf("not named: %s (%s)", right.name, in(right.says))
			}
		}
		grantAll(t, db, in, report)
		mustRun(t, rightsConfig(db, "ADD COLUMN x int"))
	})
}

// createRights makes a table whose owner needs rights of every kind, and fills the
// names into texts.
func createRights(t *testing.T, db *pgtest.DB) func(string) string {
	t.Helper()
	owner, login, other := db.Role(t, "owner", ""), db.Role(t, "login", "LOGIN REPLICATION NOINHERIT"), db.Role(t, "other", "")
	in := func(text string) string {
		return strings.NewReplacer("{login}", login, "{owner}", owner, "{other}", other, "{db}", db.Name).Replace(text)
	}
	conn := db.Conn(t)
	for _, sql := range []string{
		"SET allow_in_place_tablespaces = on", "CREATE TABLESPACE elsewhere LOCATION ''",
		`CREATE SCHEMA app; CREATE SCHEMA types; CREATE SCHEMA "Func tions"; CREATE SCHEMA later;
		GRANT USAGE, CREATE ON SCHEMA app TO {owner}; GRANT USAGE ON SCHEMA types, "Func tions", later TO {owner};
		CREATE TYPE types.mood AS ENUM ('sad', 'ok'); CREATE TYPE later.mood AS ENUM ('sad', 'ok');
		CREATE FUNCTION "Func tions".f(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n';
		CREATE TABLE app.t (id int PRIMARY KEY, m types.mood[] DEFAULT '{ok}', n int DEFAULT "Func tions".f(1));
		CREATE INDEX t_n ON app.t (n) TABLESPACE elsewhere; CREATE STATISTICS app.s ON id, n FROM app.t; INSERT INTO app.t SELECT i FROM generate_series(1, 100) i;
		CREATE TABLE app.parent (id int PRIMARY KEY); INSERT INTO app.parent VALUES (1); ALTER TABLE app.t ADD FOREIGN KEY (n) REFERENCES app.parent; GRANT REFERENCES ON app.parent TO {owner};
		CREATE TABLE app.child (id int REFERENCES app.t); CREATE VIEW later.v AS SELECT id FROM app.t; GRANT USAGE ON SCHEMA app TO {other}; GRANT USAGE, CREATE ON SCHEMA later TO {other};
		ALTER TABLE app.parent OWNER TO {other}; ALTER TABLE app.child OWNER TO {other}; ALTER VIEW later.v OWNER TO {other}; CREATE TABLE later.doc (id int); CREATE POLICY p ON later.doc USING (id IN (SELECT id FROM app.t)); ALTER TABLE later.doc OWNER TO {other}; GRANT REFERENCES ON app.t TO {other};
		ALTER TABLE app.t OWNER TO {owner}; ALTER STATISTICS app.s OWNER TO {owner};
		GRANT CREATE ON TABLESPACE elsewhere TO {owner}; GRANT CREATE ON DATABASE {db} TO {owner}, {login}; GRANT {owner}, {other}, pg_read_all_stats TO {login}`,
	} {
		if _, err := conn.Exec(t.Context(), in(sql)); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return in
}

func rightsConfig(db *pgtest.DB, alter string) migration.Config {
	return migration.Config{DSN: db.As(db.Name + "_login"), Table: "app.t", Alters: []string{alter}}
}

func (r missingRight) run(t *testing.T, db *pgtest.DB, in func(string) string) {
	if r.alter == "" {
		r.alter = "ADD COLUMN x int"
	}
	if r.check == "" {
		r.check = "rights"
	}
	db.Exec(t, in(r.revoke))
	config := rightsConfig(db, r.alter)
	if r.check == "throttle" {
		config.Throttle.MaxActiveSessions = 50
	}
	report := refused(t, db, config)
	if report.Error.Check != r.check || !strings.Contains(report.Error.Message, in(r.says)) || len(report.Error.Refusals) != 0 {
		t.Errorf("refused by %q: %s", report.Error.Check, report.Error.Message)
	}
	if got := statement(report.Error.Remedy); r.remedy != "" && got != in(r.remedy) {
		t.Fatalf("the remedy is %q, want %q", got, in(r.remedy))
	}
	if r.grant != "" {
		r.remedy = r.grant
	}
	db.Exec(t, in(r.remedy))
	// What is granted must do for the whole run, and for taking it away again.
	done := mustRun(t, config)
	if removed, err := migration.Finish(t.Context(), config.DSN, config.Table); err != nil || len(removed) != 1 {
		t.Errorf("finishing run %s: %+v, %v", done.RunID, removed, err)
	}
	db.Exec(t, "ALTER TABLE app.t DROP COLUMN x")
}

// refused runs a change that must be refused and create nothing.
func refused(t *testing.T, db *pgtest.DB, config migration.Config) migration.Report {
	t.Helper()
	before := everything(t, db)
	report, err := migration.Run(t.Context(), config)
	if err == nil || report.Outcome != migration.Refused || report.ExitCode != 3 {
		t.Fatalf("not refused: %v, report %+v", err, report)
	}
	if after := everything(t, db); after != before {
		t.Errorf("something was created or changed:\n%s", lineDiff(before, after))
	}
	return report
}

var aside = regexp.MustCompile(` \(.*|, or .*`)

// statement is the SQL of a remedy, without what it says beside.
func statement(remedy string) string { return aside.ReplaceAllString(remedy, "") }

func grantAll(t *testing.T, db *pgtest.DB, in func(string) string, report migration.Report) {
	t.Helper()
	for _, refusal := range report.Error.Refusals {
		sql := statement(refusal.Remedy)
		if refusal.Check == "statistics of another role" {
			sql = in("ALTER STATISTICS app.s OWNER TO {owner}")
		}
		db.Exec(t, sql)
	}
}
