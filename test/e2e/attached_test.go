package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// attachedCases are of dumpCase's kind, each with objects that hang on the table.
var attachedCases = []dumpCase{
	{name: "foreign keys out", setup: `CREATE SCHEMA "Far away"; CREATE TABLE "Far away"."Cust" (id int PRIMARY KEY, code text UNIQUE, a int, b int, UNIQUE (a, b)); INSERT INTO "Far away"."Cust" SELECT i, 'c' || i, i, i FROM generate_series(1, 50) i;
		CREATE TABLE t (id int PRIMARY KEY, c int REFERENCES "Far away"."Cust" ON DELETE SET NULL ON UPDATE CASCADE, d text, a int, b int, up int CONSTRAINT "self ref" REFERENCES t DEFERRABLE INITIALLY DEFERRED);
		SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO t SELECT i, 1 + i % 50, 'c' || (1 + i % 50), NULL, NULL, i FROM generate_series(1, 500) i; COMMENT ON CONSTRAINT "self ref" ON t IS 'up';
		ALTER TABLE t ADD CONSTRAINT full_match FOREIGN KEY (a, b) REFERENCES "Far away"."Cust" (a, b) MATCH FULL;
		INSERT INTO t (id, d) VALUES (1000, 'none'); SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE t ADD CONSTRAINT lax FOREIGN KEY (d) REFERENCES "Far away"."Cust" (code) DEFERRABLE NOT VALID`,
		alters: []string{"ALTER COLUMN id TYPE bigint, ALTER COLUMN c TYPE bigint"}},
	{name: "foreign keys in", setup: `CREATE SCHEMA "S 2"; CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE, a int, b int, UNIQUE (a, b)); INSERT INTO t SELECT i, 'c' || i, i, i FROM generate_series(1, 500) i;
		CREATE TABLE line (id int PRIMARY KEY, t int NOT NULL REFERENCES t ON DELETE CASCADE, t2 int REFERENCES t DEFERRABLE); INSERT INTO line SELECT i, 1 + i % 500, 1 + i % 500 FROM generate_series(1, 600) i;
		CREATE TABLE "S 2"."Line ""x" (code text CONSTRAINT "fk 1" REFERENCES t (code) ON UPDATE CASCADE); INSERT INTO "S 2"."Line ""x" VALUES ('c1'), (NULL);
		CREATE TABLE loose (a int, b int); INSERT INTO loose VALUES (7, 8); ALTER TABLE loose ADD CONSTRAINT loose_fk FOREIGN KEY (a, b) REFERENCES t (a, b) MATCH FULL NOT VALID; COMMENT ON CONSTRAINT loose_fk ON loose IS 'old rows'`,
		alters: []string{"ALTER COLUMN id TYPE bigint", "RENAME COLUMN code TO tag"}},
	{name: "triggers in every state", setup: `CREATE TABLE log (n int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (TG_NARGS); RETURN NULL; END';
		CREATE TABLE t (id int PRIMARY KEY, v text, w text); INSERT INTO t SELECT i, 'v', 'w' FROM generate_series(1, 500) i;
		CREATE TRIGGER "t 1" AFTER INSERT OR DELETE OR UPDATE OF v, w ON t FOR EACH ROW WHEN (pg_trigger_depth() < 3) EXECUTE FUNCTION note('a', 'it''s public.t'); COMMENT ON TRIGGER "t 1" ON t IS 'first';
		CREATE TRIGGER "t ON public.t" AFTER UPDATE ON t REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note();
		CREATE TRIGGER off AFTER TRUNCATE ON t EXECUTE FUNCTION note(); ALTER TABLE t DISABLE TRIGGER off;
		CREATE TRIGGER rep AFTER INSERT ON t FOR EACH ROW WHEN (NEW.v <> 'x') EXECUTE FUNCTION note(); ALTER TABLE t ENABLE REPLICA TRIGGER rep;
		CREATE TRIGGER alw AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE ALWAYS TRIGGER alw;
		CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()`,
		alters: []string{"ALTER COLUMN id TYPE bigint", "RENAME COLUMN v TO vv", "ADD COLUMN x int"}},
	{name: "policies", setup: `CREATE TABLE member (who text, t int); CREATE TABLE t (id int PRIMARY KEY, who text DEFAULT current_user, n int); INSERT INTO t SELECT i, 'w' || i % 3, i FROM generate_series(1, 500) i; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
		CREATE POLICY "p 1" ON t USING (who = current_user) WITH CHECK (n > 0); COMMENT ON POLICY "p 1" ON t IS 'own';
		CREATE POLICY r ON t AS RESTRICTIVE FOR SELECT TO {role}_reader, PUBLIC USING (EXISTS (SELECT FROM member m WHERE m.t = t.id AND m.who = t.who));
		CREATE POLICY i ON t FOR INSERT WITH CHECK (id > 0)`,
		alters: []string{"ALTER COLUMN n SET DEFAULT 7", "RENAME COLUMN who TO owner"}},
	{name: "policies of other tables", setup: `CREATE SCHEMA "Far away"; GRANT ALL ON SCHEMA "Far away", public TO {role}_holder; CREATE TABLE t (id int PRIMARY KEY, who text, n int, pad int); INSERT INTO t SELECT i, 'w' || i % 3, i, i FROM generate_series(1, 500) i;
		CREATE VIEW seen AS SELECT id, who AS name FROM t WHERE n > 0; CREATE VIEW "Twice" AS SELECT a.id, b.name FROM seen a JOIN seen b USING (id);
		CREATE TABLE doc (id int PRIMARY KEY, t int REFERENCES t, up int); ALTER TABLE doc ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE FUNCTION mine(doc) RETURNS boolean LANGUAGE sql RETURN true;
		CREATE POLICY "p 1" ON doc USING (EXISTS (SELECT FROM t WHERE t.id = doc.t AND t.who = current_user)) WITH CHECK (t IN (SELECT id FROM "Twice")); COMMENT ON POLICY "p 1" ON doc IS 'it''s theirs';
		CREATE POLICY r ON doc AS RESTRICTIVE FOR UPDATE TO {role}_reader, PUBLIC USING (mine(doc) AND (SELECT max(t.n) FROM t JOIN doc d ON d.t = t.id WHERE d.up = doc.id GROUP BY t.who LIMIT 1) > id);
		CREATE POLICY alone ON doc FOR SELECT USING (id > 0); CREATE POLICY rows ON doc FOR INSERT TO {role}_holder WITH CHECK ((SELECT t FROM t WHERE t.id = doc.t) IS NOT NULL);
		CREATE TABLE "Far away"."Part ed" (id int, t int) PARTITION BY RANGE (id); CREATE TABLE "Far away"."Leaf" PARTITION OF "Far away"."Part ed" DEFAULT; CREATE TABLE down (t int REFERENCES doc) PARTITION BY LIST (t);
		CREATE POLICY p ON "Far away"."Part ed" FOR SELECT USING (t = ANY (SELECT id FROM seen)); CREATE POLICY p ON "Far away"."Leaf" FOR DELETE USING ((SELECT count(*) FROM public.t x WHERE x.id > "Leaf".t) > "Leaf".id);
		 ALTER TABLE "Far away"."Part ed" OWNER TO {role}_holder; ALTER TABLE "Far away"."Leaf" OWNER TO {role}_holder`,
		alters: []string{"ALTER COLUMN pad TYPE bigint", "RENAME COLUMN who TO owner", "ADD COLUMN x int"}},
	{name: "rules of other tables", setup: `CREATE SCHEMA "Far away"; GRANT ALL ON SCHEMA "Far away", public TO {role}_holder; CREATE TABLE t (id int PRIMARY KEY, ident int GENERATED ALWAYS AS IDENTITY, v text UNIQUE, pad int); INSERT INTO t (id, v) SELECT i, 'v' || i FROM generate_series(1, 500) i;
		CREATE VIEW seen AS SELECT id, v AS name FROM t; CREATE TABLE doc (id int PRIMARY KEY, v text); CREATE TABLE log (n int);
		CREATE RULE " TO public.doc" AS ON INSERT TO doc WHERE new.id > (SELECT max(id) FROM t) DO ALSO (INSERT INTO t (id, v) VALUES (new.id, new.v) ON CONFLICT (v) DO UPDATE SET v = excluded.v; DELETE FROM log WHERE n = 7; UPDATE doc SET v = s.name FROM seen s WHERE s.id = doc.id); CREATE RULE told AS ON INSERT TO doc DO ALSO (NOTIFY x; DELETE FROM t WHERE id = new.id);
		COMMENT ON RULE " TO public.doc" ON doc IS 'it''s told'; CREATE RULE off AS ON DELETE TO doc DO INSTEAD DELETE FROM t WHERE id = old.id RETURNING id, v; ALTER TABLE doc DISABLE RULE off;
		CREATE RULE rep AS ON UPDATE TO doc DO ALSO SELECT new.* FROM t; ALTER TABLE doc ENABLE REPLICA RULE rep; CREATE RULE alw AS ON UPDATE TO doc DO ALSO UPDATE seen SET name = new.v WHERE id = new.id; ALTER TABLE doc ENABLE ALWAYS RULE alw;
		CREATE RULE ident AS ON INSERT TO log DO ALSO UPDATE log SET n = currval('t_ident_seq'); CREATE RULE none AS ON DELETE TO log DO INSTEAD NOTHING;
		CREATE VIEW apart AS SELECT id, v FROM doc; CREATE RULE put AS ON INSERT TO apart DO INSTEAD INSERT INTO t (id, v) VALUES (new.id, new.v) RETURNING t.id, t.v; CREATE FUNCTION told(apart) RETURNS int LANGUAGE sql RETURN 1; CREATE RULE row AS ON DELETE TO apart DO INSTEAD SELECT told(old), t.id FROM t;
		CREATE TABLE "Far away"."Doc" (LIKE t) PARTITION BY LIST (id); CREATE RULE "r r" AS ON INSERT TO "Far away"."Doc" DO INSTEAD INSERT INTO t (id, v) SELECT new.id, new.v; ALTER TABLE "Far away"."Doc" OWNER TO {role}_holder`,
		alters: []string{"ALTER COLUMN pad SET DEFAULT 3", "RENAME COLUMN v TO vv", "ADD COLUMN x int"}},
	{name: "forced row security", bypass: true, setup: `CREATE TABLE t (id int PRIMARY KEY, who text, n int); INSERT INTO t SELECT i, 'w' || i % 3, i FROM generate_series(1, 500) i; ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY own ON t USING (who = 'w1')`,
		alters: []string{"ALTER COLUMN id TYPE bigint", "RENAME COLUMN who TO owner"}},
	{name: "row security forced and off", setup: `CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 500) i; ALTER TABLE t FORCE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (n > 1)`,
		alters: []string{"ALTER COLUMN id TYPE bigint"}},
	{name: "rules", setup: `CREATE TABLE log (n int); CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i;
		CREATE RULE "r 1" AS ON DELETE TO t WHERE old.id > 100000 DO ALSO INSERT INTO log (n) VALUES (old.id); COMMENT ON RULE "r 1" ON t IS 'gone'; CREATE RULE off AS ON INSERT TO t DO ALSO NOTIFY x; ALTER TABLE t DISABLE RULE off`,
		alters: []string{"ADD COLUMN x int", "RENAME COLUMN id TO ident"}, order: "ident"},
	{name: "views", setup: `CREATE SCHEMA api; GRANT ALL ON SCHEMA api TO PUBLIC; CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, 'v', i FROM generate_series(1, 500) i;
		CREATE VIEW api.t WITH (security_barrier) AS SELECT * FROM public.t WHERE n > 0; CREATE VIEW "V 2" AS SELECT id, count(*) AS c FROM api.t GROUP BY id;
		CREATE VIEW narrow AS SELECT id, v AS "Text" FROM t WHERE v <> 'public.t' WITH LOCAL CHECK OPTION; COMMENT ON VIEW narrow IS 'n'; COMMENT ON COLUMN narrow."Text" IS 'c'; ALTER VIEW narrow ALTER COLUMN "Text" SET DEFAULT 'd';
		CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER instead INSTEAD OF INSERT ON "V 2" FOR EACH ROW EXECUTE FUNCTION put();
		CREATE RULE up AS ON UPDATE TO api.t DO INSTEAD UPDATE public.t SET v = new.v WHERE id = old.id;
		GRANT SELECT ON api.t, "V 2" TO {role}_reader; GRANT UPDATE (v) ON api.t TO PUBLIC; REVOKE INSERT ON "V 2" FROM CURRENT_USER;
		CREATE VIEW pk AS SELECT t.id, t.v, t.n FROM t LEFT JOIN "V 2" USING (id) GROUP BY t.id`,
		alters: []string{"ADD COLUMN x int", "RENAME COLUMN n TO num", "ALTER COLUMN v SET STATISTICS 10"}},
	{name: "materialized views", matviews: true, setup: `CREATE SCHEMA api; CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, 'v', i FROM generate_series(1, 500) i;
		CREATE MATERIALIZED VIEW api.t WITH (fillfactor = 70) AS SELECT id, n, v FROM public.t; CREATE UNIQUE INDEX "by id" ON api.t (id); CREATE INDEX by_expr ON api.t ((n + 1), (n * 2)); ALTER INDEX api.by_expr ALTER COLUMN 2 SET STATISTICS 7;
		COMMENT ON INDEX api."by id" IS 'i'; ALTER MATERIALIZED VIEW api.t CLUSTER ON "by id"; ALTER MATERIALIZED VIEW api.t ALTER COLUMN n SET STATISTICS 5, ALTER COLUMN v SET STORAGE EXTERNAL, ALTER COLUMN v SET (n_distinct = 3);
		COMMENT ON MATERIALIZED VIEW api.t IS 'm'; COMMENT ON COLUMN api.t.n IS 'n'; GRANT SELECT ON api.t TO PUBLIC; CREATE VIEW over AS SELECT count(*) FROM api.t; CREATE MATERIALIZED VIEW twice AS SELECT * FROM api.t JOIN over ON true;
		CREATE MATERIALIZED VIEW blank AS SELECT id FROM t WITH NO DATA`,
		alters: []string{"ADD COLUMN x int", "RENAME COLUMN n TO m"}},
	{name: "publications", setup: `CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE o (id int PRIMARY KEY); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i; CREATE PUBLICATION "p 1" FOR TABLE t, o WITH (publish = 'insert'); CREATE PUBLICATION one FOR TABLE ONLY t`,
		alters: []string{"ALTER COLUMN id TYPE bigint", "RENAME COLUMN v TO vv"}},
	{name: "a publication of all tables that nobody reads", setup: `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i; CREATE PUBLICATION "all of it" FOR ALL TABLES`,
		alters: []string{"ALTER COLUMN id TYPE bigint", "RENAME COLUMN v TO vv"}},
	{name: "grants by others", setup: `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i; GRANT SELECT, UPDATE (v) ON t TO {role}_holder WITH GRANT OPTION;
		SET ROLE {role}_holder; GRANT SELECT, UPDATE (v) ON t TO {role}_reader; RESET ROLE`,
		alters: []string{"ALTER COLUMN id TYPE bigint"}},
}

func TestAttachedDumpEqualsPlainAlter(t *testing.T) {
	for _, c := range attachedCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

// referenced is a table with a foreign key to its text column, and a materialized view.
const referenced = `CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE); INSERT INTO t SELECT i, 'c' || i FROM generate_series(1, 100) i;
	CREATE TABLE line (code text CONSTRAINT "of t" REFERENCES t (code)); INSERT INTO line VALUES ('c1'); CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t`

// completed tells whether the foreign key is validated and the materialized view populated.
func completed(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	return pgtest.Scalar[string](t, db, "SELECT format('%s %s', convalidated, relispopulated) FROM pg_constraint, pg_class WHERE conname = 'of t' AND relname = 'mv'")
}

// TestCompletionsAreMadeUpFor: what a run that is told to stop right after its swap has left to do is in its report, and
// the same command does it.
func TestCompletionsAreMadeUpFor(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, referenced)
	ctx, stop := context.WithCancel(t.Context())
	config := migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN id TYPE bigint"}, MatViews: migration.RecreateMatViews,
		Observer: migration.ObserverFunc(func(event migration.Event) {
			if _, swapped := event.(migration.Swapped); swapped {
				stop()
			}
		})}
	report, err := migration.Run(ctx, config)
	if err != nil || report.Outcome != migration.Done {
		t.Fatalf("%v, report %+v", err, report)
	}
	if got := completed(t, db); got != "f f" {
		t.Fatalf("foreign key validated, view populated: %s", got)
	}
	for i, want := range []string{`refreshing materialized view public.mv is left to do`, `validating foreign key "of t" on public.line is left to do; until then it is enforced, and not validated`} {
		if len(report.Warnings) != 2 || !strings.Contains(report.Warnings[i], want) {
			t.Errorf("it warns %q, want %q", report.Warnings, want)
		}
	}
	config.Observer = nil
	if report, err = migration.Run(t.Context(), config); err != nil || len(report.Warnings) > 0 {
		t.Fatalf("again: %v, report %+v", err, report)
	}
	if got := completed(t, db); got != "t t" {
		t.Errorf("foreign key validated, view populated: %s", got)
	}
}

// TestForeignKeyThatTheChangeBreaks stays NOT VALID, and the report says so.
func TestForeignKeyThatTheChangeBreaks(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, referenced)
	report := mustRun(t, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN code TYPE text USING upper(code)"}, AllowLossy: true, MatViews: migration.RecreateMatViews})
	if got := completed(t, db); got != "f t" {
		t.Errorf("foreign key validated, view populated: %s", got)
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], `Key (code)=(c1) is not present in table "t"`) {
		t.Errorf("it warns %q", report.Warnings)
	}
}
