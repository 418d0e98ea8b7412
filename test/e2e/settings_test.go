package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// hostile are settings of a role or a database that must not change a result, the ways that pgshadow's sessions
// are pinned against among them.
var hostile = strings.Split(`statement_timeout = 1
lock_timeout = 1
idle_in_transaction_session_timeout = 1
idle_session_timeout = 1
default_transaction_isolation = 'serializable'
default_transaction_read_only = on
default_transaction_deferrable = on
session_replication_role = replica
search_path = evil, pg_catalog, public
role = bystander
standard_conforming_strings = off
escape_string_warning = on
backslash_quote = off
quote_all_identifiers = on
client_encoding = 'LATIN1'
client_min_messages = debug1
intervalstyle = 'sql_standard'
bytea_output = 'escape'
extra_float_digits = -15
xmlbinary = hex
check_function_bodies = off
default_toast_compression = 'pglz'
default_table_access_method = 'heap'
row_security = on
work_mem = '64kB'
maintenance_work_mem = '1MB'
enable_indexscan = off
enable_bitmapscan = off
enable_indexonlyscan = off
enable_sort = off
enable_hashjoin = off
enable_nestloop = off
plan_cache_mode = 'force_generic_plan'
jit = on
jit_above_cost = 0
synchronous_commit = off
constraint_exclusion = on`, "\n")

// own are settings of the login role that a conversion depends on by right: with them it must mean what a plain ALTER
// TABLE by the same role means.
var own = strings.Split(`DateStyle = 'German, MDY'
TimeZone = 'America/St_Johns'
array_nulls = off
transform_null_equals = on
xmloption = document
default_text_search_config = 'pg_catalog.german'`, "\n")

// evil shadows what pgshadow and the change use, by functions and operators of the same arguments.
const evil = `CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.caught (what text); GRANT ALL ON evil.caught TO PUBLIC;
	CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN ''evil''; END';
	CREATE FUNCTION evil.caught() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO evil.caught VALUES (TG_TAG); END';
	CREATE FUNCTION evil.no(int, int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN false; END';
	CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN false; END';
	CREATE FUNCTION evil.no(name, name) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN false; END';
	CREATE FUNCTION evil.no(name, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN false; END';
	CREATE FUNCTION evil.no(oid, oid) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN false; END';
	DO $$ DECLARE o text; a text; BEGIN FOREACH o IN ARRAY '{=,<>,<,<=,>,>=}'::text[] LOOP
		FOREACH a IN ARRAY '{"int,int","text,text","name,name","name,text","oid,oid"}'::text[] LOOP
			EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.no, LEFTARG = %s, RIGHTARG = %s)', o, split_part(a, ',', 1), split_part(a, ',', 2));
		END LOOP; END LOOP; END $$`

// hardTable has values that settings spell in many ways. Backslashes are in names, defaults, checks, comments and rows.
const hardTable = `CREATE TABLE t ("i\d" int PRIMARY KEY, k text UNIQUE DEFAULT E'a\\b''c' CHECK (k <> E'\\'), f float8, r real, b bytea, iv interval, ts timestamptz, d date,
		dt text, bt text, ft text, ivt text, tst text, m money, x xml, xt text, a text, n int, l text DEFAULT E'\t', j jsonb, fa float8[], iva interval[]);
	COMMENT ON COLUMN t.k IS E'back\\slash''s \\n'; COMMENT ON TABLE t IS E'\\'; CREATE INDEX "in\dex" ON t (k, f) WHERE k <> E'\\x';
	INSERT INTO t SELECT i, E'\\' || i || E'\n''', 1 / (i + 0.1::float8), (1 / (i + 0.1))::real, decode(lpad(to_hex(i * 7), 8, '0'), 'hex') || E'\\\\'::bytea,
		make_interval(years => i % 3, months => -(i % 5), days => i % 40, hours => -i, secs => i / 7.0::float8), timestamptz '2021-03-14 01:30:00+00' + i * interval '37 minutes 0.123456 s', date '2020-01-31' + i,
		to_char(date '2020-01-01' + i % 12, 'DD/MM/YYYY'), E'\\x' || to_hex(4096 + i), (1 / (i + 0.3::float8))::text, '-' || i || ' days -1:00:00', '05.06.2021 12:' || lpad((i % 60)::text, 2, '0'),
		(i * 1.25)::numeric::money, ('<a b="' || i || '">é</a>')::xml, '<x>' || i || '</x>', '{NULL,' || i || '}', NULLIF(i % 3, 0), 'Lower Ü' || i,
		jsonb_build_object('k', i / 7.0), ARRAY[1 / (i + 0.7::float8), 'NaN', '-0'], ARRAY[make_interval(secs => i / 3.0::float8)]
	FROM generate_series(1, 300) i`

// hardAlters convert in both directions. What a conversion to text is spelled like is not the role's affair.
var hardAlters = []string{
	`ALTER COLUMN "i\d" TYPE bigint, ALTER COLUMN f TYPE text, ALTER COLUMN r TYPE text, ALTER COLUMN b TYPE text, ALTER COLUMN iv TYPE text, ALTER COLUMN fa TYPE text[], ALTER COLUMN iva TYPE text[]`,
	`ALTER COLUMN ft TYPE float8 USING ft::float8, ALTER COLUMN bt TYPE bytea USING bt::bytea, ALTER COLUMN ivt TYPE interval USING ivt::interval, ALTER COLUMN l TYPE varchar(90) USING lower(l), ALTER COLUMN j TYPE text`,
	`ADD COLUMN c text DEFAULT 'a\nb', ADD CHECK (c <> '\'), ADD UNIQUE (l, k), ALTER COLUMN m TYPE numeric(20,4)`,
}

// ownAlters depend on the login role's own settings by right.
var ownAlters = []string{
	`ALTER COLUMN dt TYPE date USING dt::date, ALTER COLUMN tst TYPE timestamptz USING tst::timestamptz, ALTER COLUMN ts TYPE timestamp, ALTER COLUMN a TYPE text[] USING a::text[]`,
	`ALTER COLUMN l DROP DEFAULT`,
	`ALTER COLUMN n TYPE boolean USING (n = NULL), ALTER COLUMN xt TYPE xml USING xt::xml, ALTER COLUMN l TYPE tsvector USING to_tsvector('Der Häuser ' || l)`,
}

// TestSettingsDoNotChangeAResult compares a change by a role whose settings, and those of its database, are as bad as
// can be, value by value with a plain ALTER TABLE without any.
func TestSettingsDoNotChangeAResult(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{asOwner, asMember} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := settingsCase{alters: hardAlters, kind: kind}
			for i, setting := range hostile {
				if (i%2 == 0) == (kind == asOwner) || strings.HasPrefix(setting, "role") {
					c.role = append(c.role, setting)
				} else {
					c.database = append(c.database, setting)
				}
			}
			c.run(t)
		})
	}
}

// TestRolesOwnSettings: a conversion means what it means to the login role.
func TestRolesOwnSettings(t *testing.T) {
	t.Parallel()
	settingsCase{alters: ownAlters, kind: asOwner, role: own, plain: own}.run(t)
}

// TestDeferrableUnderReplica: a constraint that would not be checked is refused, and the remedy does.
func TestDeferrableUnderReplica(t *testing.T) {
	t.Parallel()
	db := createT(t)
	role := pgtest.Scalar[string](t, db, "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE $1 || '%'", db.Name)
	db.Exec(t, "ALTER ROLE "+role+" SET session_replication_role = replica")
	config := tableT(t, db, func(migration.Event) {})
	config.Alters = []string{"ADD UNIQUE (id, v) DEFERRABLE"}
	report := refused(t, db, config)
	if report.Error.Check != "session_replication_role" {
		t.Fatalf("refused by %q: %s", report.Error.Check, report.Error.Message)
	}
	db.Exec(t, report.Error.Remedy)
	requireClean(t, db, mustRun(t, config))
}

// settingsCase is a change under settings of the login role and of the database, and the settings of the plain ALTER TABLE
// that it is held against.
type settingsCase struct {
	alters                []string
	kind                  string
	role, database, plain []string
}

func (c settingsCase) run(t *testing.T) {
	shadowed, plain := pgtest.New(t), pgtest.New(t)
	bystander := shadowed.Role(t, "bystander", "")
	for _, db := range []*pgtest.DB{shadowed, plain} {
		db.Exec(t, hardTable)
		db.Exec(t, evil)
		db.Exec(t, "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION evil.caught()")
	}
	dsn := loginAs(t, shadowed, c.kind)
	owner := shadowed.Name + "_owner"
	reown(t, plain, owner)
	for _, alter := range c.alters {
		plain.Exec(t, setAll(c.plain)+"SET DateStyle = 'ISO'; SET ROLE "+owner+"; ALTER TABLE t "+alter)
	}
	login := shadowed.Name + map[string]string{asOwner: "_owner", asMember: "_login"}[c.kind]
	shadowed.Exec(t, "GRANT "+bystander+" TO "+login)
	for _, setting := range c.role {
		shadowed.Exec(t, "ALTER ROLE "+login+" SET "+strings.ReplaceAll(setting, "bystander", bystander))
	}
	for _, setting := range c.database {
		shadowed.Exec(t, "ALTER ROLE "+login+" IN DATABASE "+shadowed.Name+" SET "+setting)
	}
	config := migration.Config{AllowLossy: true, DSN: dsn, Table: "t", Alters: c.alters}
	config.Observer = migration.ObserverFunc(func(event migration.Event) {
		if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
			for _, db := range []*pgtest.DB{shadowed} {
				db.Exec(t, "UPDATE t SET k = k WHERE n = 1; DELETE FROM t WHERE \"i\\d\" = 7; INSERT INTO t SELECT (t.u).* FROM (SELECT jsonb_populate_record(t, '{\"i\\\\d\": 7}') u FROM t WHERE \"i\\d\" = 8) t ON CONFLICT DO NOTHING")
			}
		}
	})
	report := mustRun(t, config)
	requireClean(t, shadowed, report)
	plain.Exec(t, `DELETE FROM t WHERE "i\d" = 7`)
	for _, difference := range []struct{ what, got, want string }{
		{"dump", pgtest.Dump(t, shadowed), pgtest.Dump(t, plain)},
		{"rows", tableRows(t, shadowed), tableRows(t, plain)},
	} {
		if difference.got != difference.want {
			t.Errorf("the %s differs from that after a plain ALTER TABLE:\n%s", difference.what, lineDiff(difference.want, difference.got))
		}
	}
}

// setAll is settings as statements.
func setAll(settings []string) string {
	var all strings.Builder
	for _, setting := range settings {
		fmt.Fprintf(&all, "SET %s; ", setting)
	}
	return all.String()
}

// tableRows are the rows of t as a session with nothing but the server's own settings spells them.
func tableRows(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, `SELECT string_agg(t::text, E'\n' ORDER BY "i\d") FROM t`)
}

// TestEncodings has keys and values beyond ASCII in databases that are not UTF8.
func TestEncodings(t *testing.T) {
	t.Parallel()
	type encoding struct{ name, options, word, value, client string }
	cases := []encoding{
		{"LATIN1", "ENCODING 'LATIN1' LOCALE 'C'", "Grüße", "ÿ", "UTF8"},
		{"WIN1252", "ENCODING 'WIN1252' LOCALE 'C'", "Ärger €", "Œuvre", "UTF8"},
		{"EUC_JP", "ENCODING 'EUC_JP' LOCALE 'C'", "日本語", "漢字", "UTF8"},
		{"SQL_ASCII", "ENCODING 'SQL_ASCII' LOCALE 'C'", "Gr\xfc\xdfe", "ÿ", "SQL_ASCII"}, // the word is no UTF-8
		{"C.UTF-8", "ENCODING 'UTF8' LOCALE 'C.UTF-8'", "Grüße 日本 😀", "ÿ", "UTF8"},
	}
	if pgtest.Scalar[int](t, pgtest.New(t), "SELECT current_setting('server_version_num')::int") >= 150000 {
		cases = append(cases, encoding{"ICU", "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LOCALE 'C'", "Grüße 日本 😀", "ÿ", "UTF8"})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewWith(t, c.options)
			own := "&client_encoding=" + c.client
			db.DSN += own // of the test's own sessions
			db.Exec(t, fmt.Sprintf(`CREATE TABLE t ("kéy" text PRIMARY KEY, v text DEFAULT '%[2]s', w text, n int);
				INSERT INTO t SELECT '%[1]s' || i || '%[2]s', repeat('%[2]s', i %% 90), '%[1]s', i FROM generate_series(1, 3000) i`, c.word, c.value))
			config := migration.Config{AllowLossy: true, DSN: strings.TrimSuffix(login(t, db), own), Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint, ALTER COLUMN v TYPE varchar(900) USING v || '" + c.value + "'"}}
			config.Copy.ChunkTime = 1
			config.Observer = migration.ObserverFunc(func(event migration.Event) {
				if e, ok := event.(migration.PhaseStarted); ok && e.Phase == migration.Verify {
					db.Exec(t, fmt.Sprintf(`UPDATE t SET v = '%[2]s' WHERE n <= 5; DELETE FROM t WHERE n = 6; UPDATE t SET "kéy" = '%[2]s%[1]s' WHERE n = 7`, c.word, c.value))
				}
			})
			requireClean(t, db, mustRun(t, config))
			got := pgtest.Scalar[string](t, db, fmt.Sprintf(`SELECT format('%%s %%s %%s %%s', count(*) FILTER (WHERE w = '%[1]s'), count(*) FILTER (WHERE n > 5 AND v = repeat('%[2]s', (n %% 90)::int + 1)),
				count(*) FILTER (WHERE v = '%[2]s%[2]s' AND n <= 5), count(*) FILTER (WHERE "kéy" = '%[2]s%[1]s')) FROM t`, c.word, c.value))
			if got != "2999 2994 5 1" {
				t.Errorf("the table holds %s", got)
			}
		})
	}
}

// TestDefinitionOfNoEncoding: an expression that cannot be written down as it is, is refused.
func TestDefinitionOfNoEncoding(t *testing.T) {
	t.Parallel()
	db := pgtest.NewWith(t, "ENCODING 'SQL_ASCII' LOCALE 'C'")
	own := "&client_encoding=SQL_ASCII"
	db.DSN += own
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v text DEFAULT 'Gr\xfc\xdfe'); INSERT INTO t SELECT generate_series(2, 9)")
	config := tableT(t, db, func(migration.Event) {})
	config.DSN = strings.TrimSuffix(config.DSN, own)
	if report := refused(t, db, config); report.Error.Check != "encoding" {
		t.Fatalf("refused by %q: %s", report.Error.Check, report.Error.Message)
	}
	db.Exec(t, `ALTER TABLE t ALTER v SET DEFAULT convert_from('\xfc', 'SQL_ASCII')`)
	requireClean(t, db, mustRun(t, config))
	if got := pgtest.Scalar[string](t, db, "INSERT INTO t(id) VALUES (1) RETURNING encode(v::bytea, 'hex')"); got != "fc" {
		t.Errorf("the default is %s", got)
	}
}
