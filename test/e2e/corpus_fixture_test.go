package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// fixture is the schema of an application, as testdata/corpus/<name>.sql and the
// files <name>.<major>.sql for that server and later ones write it down. A file is
// paragraphs, separated by empty lines; each is one simple query, and all are run in
// one session of a superuser. {role}_x is a role, which the harness creates.
// {role}_owner owns the schema, and is a member of every other role that owns or grants
// something; pgshadow logs in as that role, or as a member of it. Lines that begin with "--" and a word of these mean:
//
//	--alter TABLE: ACTIONS    what is done to the table; more lines follow each other
//	--refused TABLE: CHECK    pgshadow refuses to change the table; CHECK before 18: on servers before that
//	--session                 the paragraph is what sets up the session
//	--view NAME               the paragraph creates the view, with all that is the view's
//	--attached TABLE          the paragraph creates the table's triggers, policies and rules,
//	                          or gives it to publications with columns or a row filter
//
// PostgreSQL refuses to change the type of a column that a view, a trigger's WHEN, a
// policy or a publication reads, and to drop it. What a DBA does then, by hand, is drop these, change
// the table, and create them again from their source. That is what the paragraphs are
// marked for: plainAlter does it.
type fixture struct {
	name     string
	template *pgtest.DB // nobody is connected to it
	major    int        // of the server
	session  string
	parts    []part
	alters   map[string][]string // by the table's name, as pgtest and pgshadow get it
	refused  map[string]string
	tables   []string
	dump     string
}

// part is a paragraph that can be run again for one view or table.
type part struct{ kind, name, sql string }

var (
	placeholder = regexp.MustCompile(`\{role\}_(\w+)`)
	mark        = regexp.MustCompile(`(?m)^--(alter|refused|session|view|attached)(?: (.*))?$`)
)

// loadFixture makes the template database.
func loadFixture(t *testing.T, name string) *fixture {
	t.Helper()
	f := &fixture{name: name, template: pgtest.New(t), alters: map[string][]string{}, refused: map[string]string{}}
	f.major = pgtest.Scalar[int](t, f.template, "SELECT current_setting('server_version_num')::int / 10000")
	text := readFixture(t, f.major, name)
	f.createRoles(t, text)
	text = strings.ReplaceAll(text, "{role}", f.template.Name)
	conn := f.template.Conn(t)
	for _, paragraph := range strings.Split(text, "\n\n") {
		execute(t, conn, paragraph)
	}
	for _, paragraph := range strings.Split(text, "\n\n") {
		f.readMarks(t, paragraph)
	}
	for table := range f.refused {
		delete(f.alters, table) // that of a server which does not refuse it
	}
	f.tables = pgtest.Scalar[[]string](t, f.template, tablesSQL)
	for _, table := range f.tables {
		if _, refused := f.refused[table]; !refused && f.alters[table] == nil {
			t.Errorf("%s has neither an --alter nor a --refused", table)
		}
	}
	if marked := len(f.alters) + len(f.refused); marked != len(f.tables) && !t.Failed() {
		t.Errorf("%d tables are marked, some that are not there; there are %d", marked, len(f.tables))
	}
	f.dump = pgtest.Dump(t, f.template)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

const tablesSQL = `SELECT array_agg(n ORDER BY n) FROM (SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace
	WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pgshadow') AS t(n)`

// readFixture joins the files that are for the server's version.
func readFixture(t *testing.T, major int, name string) string {
	t.Helper()
	folder := filepath.Join("testdata", "corpus")
	files, err := filepath.Glob(filepath.Join(folder, name+".*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	files = slices.DeleteFunc(files, func(file string) bool {
		from, err := strconv.Atoi(strings.Split(filepath.Base(file), ".")[1])
		if err != nil {
			t.Fatalf("reading the version in the name of %s: %v", file, err)
		}
		return major < from
	})
	var text []string
	for _, file := range append([]string{filepath.Join(folder, name+".sql")}, files...) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, strings.TrimSpace(string(content)))
	}
	return strings.Join(text, "\n\n")
}

// createRoles creates the roles of the text, and those that log in: the owner itself
// and two members of it.
func (f *fixture) createRoles(t *testing.T, text string) {
	t.Helper()
	db := f.template
	created := map[string]bool{}
	for _, match := range placeholder.FindAllStringSubmatch(text, -1) {
		if suffix := match[1]; !created[suffix] {
			created[suffix] = true
			attributes := ""
			if suffix == asOwner {
				attributes = "LOGIN REPLICATION"
			}
			db.Exec(t, "GRANT CREATE ON DATABASE "+db.Name+" TO "+db.Role(t, suffix, attributes))
		}
	}
	db.Exec(t, fmt.Sprintf("GRANT %s_owner TO %s, %s", db.Name,
		db.Role(t, asMember, "LOGIN REPLICATION INHERIT"), db.Role(t, asNoInherit, "LOGIN REPLICATION NOINHERIT")))
}

// readMarks keeps what the lines that begin with a mark say.
func (f *fixture) readMarks(t *testing.T, paragraph string) {
	t.Helper()
	for _, found := range mark.FindAllStringSubmatch(paragraph, -1) {
		kind, argument := found[1], found[2]
		name, rest, _ := strings.Cut(argument, ": ")
		if kind == "session" {
			f.session = paragraph
			continue
		}
		name = pgtest.Scalar[string](t, f.template, `SELECT format('%s.%I', relnamespace::regnamespace, relname) FROM pg_class WHERE oid = $1::regclass`, f.qualify(name))
		switch kind {
		case "alter":
			f.alters[name] = append(f.alters[name], rest)
		case "refused":
			check, before, limited := strings.Cut(rest, " before ")
			if !limited || fmt.Sprint(f.major) < before {
				f.refused[name] = check
			}
		default:
			f.parts = append(f.parts, part{kind, name, paragraph})
		}
	}
}

// qualify puts the fixture's schema before a name that has none.
func (f *fixture) qualify(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return f.name + "." + name
}

// copy is a database with the fixture, where the roles may do what pgshadow needs.
func (f *fixture) copy(t *testing.T) *pgtest.DB {
	t.Helper()
	db := f.template.Copy(t)
	for _, suffix := range []string{asOwner, asMember, asNoInherit} {
		db.Exec(t, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s_%s", db.Name, f.template.Name, suffix))
	}
	owners := pgtest.Scalar[string](t, db, "SELECT string_agg(DISTINCT relowner::regrole::text, ', ') FROM pg_class WHERE relowner >= 16384")
	db.Exec(t, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", db.Name, owners))
	return db
}

// plainAlter changes the table as PostgreSQL does it, in a transaction that the caller
// ends.
func (f *fixture) plainAlter(t *testing.T, conn *pgx.Conn, table string) (recreated bool) {
	t.Helper()
	execute(t, conn, "BEGIN")
	for _, actions := range f.alters[table] {
		recreated = f.plainAction(t, conn, table, actions) || recreated
	}
	return recreated
}

// plainAction is one ALTER TABLE. Where PostgreSQL refuses it because of what hangs on
// the table, this is dropped, and created again after from the fixture's text.
func (f *fixture) plainAction(t *testing.T, conn *pgx.Conn, table, actions string) (recreated bool) {
	t.Helper()
	owner := scalar[string](t, conn, "SELECT relowner::regrole::text FROM pg_class WHERE oid = $1::regclass", table)
	alter := fmt.Sprintf("SET ROLE %s; SET search_path = %s, public; ALTER TABLE %s %s; RESET ROLE; RESET search_path;\n", owner, pg.Ident(f.name), table, actions)
	execute(t, conn, "SAVEPOINT plain")
	_, err := conn.Exec(t.Context(), alter)
	if err == nil {
		return false
	}
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || !slices.Contains([]string{featureNotSupported, dependentObjects}, refused.Code) {
		t.Fatalf("executing %s: %v", alter, err)
	}
	execute(t, conn, "ROLLBACK TO plain")
	before := scalar[string](t, conn, hangingSQL)
	views := scalar[[]string](t, conn, viewsSQL, table)
	again := scalar[string](t, conn, detachSQL, table)
	if len(views) > 0 {
		again += "DROP VIEW " + strings.Join(views, ", ") + " CASCADE;\n"
	}
	again += alter
	for _, part := range f.parts {
		if part.kind == "view" && slices.Contains(views, part.name) || part.kind == "attached" && part.name == table {
			again += f.session + "\n" + part.sql + ";\n"
		}
	}
	execute(t, conn, again+"RESET ROLE; RESET search_path")
	if after := scalar[string](t, conn, hangingSQL); after != before {
		t.Fatalf("not everything was created again:\n%s", lineDiff(before, after))
	}
	return true
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("executing %s: %v", sql, err)
	}
}

func scalar[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) (value T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("querying %q: %v", sql, err)
	}
	return value
}

// The SQLSTATEs of a column whose type cannot be changed, or that cannot be dropped,
// because something reads it.
const (
	featureNotSupported = "0A000"
	dependentObjects    = "2BP01"
)

// viewsSQL gives the views that read a table, and those that read them.
const viewsSQL = `WITH RECURSIVE v(oid) AS (SELECT $1::regclass::oid UNION SELECT r.ev_class FROM v JOIN pg_depend d ON d.refobjid = v.oid AND d.refclassid = 'pg_class'::regclass
		AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v')
	SELECT coalesce(array_agg(format('%s.%I', relnamespace::regnamespace, relname)), '{}') FROM v JOIN pg_class USING (oid) WHERE relkind = 'v'`

// detachSQL drops the triggers, policies and rules of a table, and takes it out of the
// publications that have a part of it.
const detachSQL = `SELECT coalesce(string_agg(format(command, name, $1::regclass), E'\n'), '') || E'\n' FROM (
	SELECT 'DROP TRIGGER %I ON %s;', tgname FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal
	UNION ALL SELECT 'DROP POLICY %I ON %s;', polname FROM pg_policy WHERE polrelid = $1::regclass
	UNION ALL SELECT 'DROP RULE %I ON %s;', rulename FROM pg_rewrite WHERE ev_class = $1::regclass
	UNION ALL SELECT 'ALTER PUBLICATION %I DROP TABLE %s;', pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = prpubid
		WHERE prrelid = $1::regclass AND concat(to_jsonb(r) -> 'prattrs', to_jsonb(r) -> 'prqual') NOT IN ('', 'nullnull')) AS o(command, name)`

// hangingSQL names everything that plainAlter may have dropped.
const hangingSQL = `SELECT string_agg(n, E'\n' ORDER BY n) FROM (
	SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal
	UNION ALL SELECT 'policy ' || polname || ' on ' || polrelid::regclass FROM pg_policy
	UNION ALL SELECT 'rule ' || rulename || ' on ' || ev_class::regclass FROM pg_rewrite WHERE ev_class >= 16384
	UNION ALL SELECT 'publication ' || prpubid || ' of ' || prrelid::regclass FROM pg_publication_rel) AS o(n)`

// login is the DSN of the role that pgshadow logs in as; the kind follows from the
// test's name.
func (f *fixture) login(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	kind := cmp.Or(os.Getenv(roleEnv), plainRole(t))
	t.Logf("pgshadow logs in as %s", kind)
	if kind == asSuperuser {
		return db.DSN
	}
	return db.As(f.template.Name + "_" + kind)
}
