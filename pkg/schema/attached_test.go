package schema_test

import (
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/schema"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestAttached attaches one thing after another to a table with odd names. Each is
// said to be new, by its name, and is no obstacle; taken off again it is gone.
func TestAttached(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE SCHEMA "S x"; CREATE TABLE "S x"."T t" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "n n" int UNIQUE);
		CREATE TABLE "S x".other (id int, o int PRIMARY KEY); CREATE VIEW "S x".apart AS SELECT 1 AS one; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	conn := session(t, db)
	bare := load(t, conn, "S x", "T t")
	for _, c := range []struct{ attach, said, detach string }{
		{`ALTER TABLE "S x"."T t" ADD CONSTRAINT "fk out" FOREIGN KEY ("n n") REFERENCES "S x".other`, `foreign key "fk out" ("S x".other) was created (FOREIGN KEY ("n n") REFERENCES "S x".other(o))`, `ALTER TABLE "S x"."T t" DROP CONSTRAINT "fk out"`},
		{`ALTER TABLE "S x".other ADD CONSTRAINT fk_in FOREIGN KEY (id) REFERENCES "S x"."T t" NOT VALID`, `foreign key fk_in ("S x".other) was created (FOREIGN KEY (id) REFERENCES "S x"."T t"(id) NOT VALID)`, `ALTER TABLE "S x".other DROP CONSTRAINT fk_in`},
		{`ALTER TABLE "S x"."T t" ADD CONSTRAINT fk_self FOREIGN KEY ("n n") REFERENCES "S x"."T t"`, `foreign key fk_self ("S x"."T t") was created`, `ALTER TABLE "S x"."T t" DROP CONSTRAINT fk_self`},
		{`CREATE VIEW "V v" AS SELECT id FROM "S x"."T t"`, `view public."V v" was created (SELECT`, `DROP VIEW "V v"`},
		{`CREATE RULE "r r" AS ON INSERT TO "S x"."T t" DO NOTHING`, `rule "r r" was created`, `DROP RULE "r r" ON "S x"."T t"`},
		{`CREATE TRIGGER "t t" BEFORE INSERT ON "S x"."T t" FOR EACH ROW EXECUTE FUNCTION f()`, `trigger "t t" was created (CREATE TRIGGER "t t" BEFORE INSERT`, `DROP TRIGGER "t t" ON "S x"."T t"`},
		{`CREATE POLICY p ON "S x"."T t" USING (id > 1)`, `policy p was created (permissive for ALL to PUBLIC USING ((id > 1)) WITH CHECK ())`, `DROP POLICY p ON "S x"."T t"`},
		{`ALTER TABLE "S x"."T t" ENABLE ROW LEVEL SECURITY`, `the table changed its row security from disabled to enabled`, `ALTER TABLE "S x"."T t" DISABLE ROW LEVEL SECURITY`},
		{`ALTER TABLE "S x"."T t" FORCE ROW LEVEL SECURITY`, `the table changed its row security for the owner from not forced to forced`, `ALTER TABLE "S x"."T t" NO FORCE ROW LEVEL SECURITY`},
		{`CREATE POLICY "o o" ON "S x".other AS RESTRICTIVE FOR DELETE USING (EXISTS (SELECT FROM "S x"."T t" x WHERE x.id = other.id))`,
			`policy "o o" on "S x".other was created (restrictive for DELETE to PUBLIC USING ((EXISTS ( SELECT`, `DROP POLICY "o o" ON "S x".other`},
		{`CREATE POLICY o ON "S x".other USING (o IS DISTINCT FROM currval('"S x"."T t_id_seq"'))`, `policy o on "S x".other was created`, `DROP POLICY o ON "S x".other`},
		{`CREATE POLICY o ON "S x".other USING (NULL::"S x"."T t" IS NULL)`, `policy o on "S x".other was created`, `DROP POLICY o ON "S x".other`},
		{`CREATE RULE "o r" AS ON INSERT TO "S x".other DO ALSO DELETE FROM "S x"."T t"`, `rule "o r" on "S x".other was created (CREATE RULE "o r" AS`, `DROP RULE "o r" ON "S x".other`},
		{`CREATE RULE o AS ON INSERT TO "S x".apart DO INSTEAD DELETE FROM "S x"."T t"`, `rule o on "S x".apart was created`, `DROP RULE o ON "S x".apart`},
		{`CREATE PUBLICATION "p p" FOR TABLE "S x"."T t"`, `publication "p p" was created (columns (all) where ())`, `DROP PUBLICATION "p p"`},
	} {
		db.Exec(t, c.attach)
		said := bare.Differences(load(t, conn, "S x", "T t"))
		if len(said) != 1 || !strings.HasPrefix(said[0], c.said) {
			t.Errorf("%s\nis said to be %q, want %s", c.attach, said, c.said)
		}
		if got := obstacles(t, conn, bare.OID); len(got) > 0 {
			t.Errorf("%s\nis an obstacle: %s", c.attach, got)
		}
		db.Exec(t, c.detach)
		if said := bare.Differences(load(t, conn, "S x", "T t")); said != nil {
			t.Errorf("%s\nleaves %q", c.detach, said)
		}
	}
}

// TestViewsInOrder: each view comes after all that it is made of.
func TestViewsInOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW z AS SELECT id FROM t; CREATE VIEW m AS SELECT z.id FROM z JOIN t USING (id); CREATE VIEW a AS SELECT m.id FROM m JOIN z USING (id)`)
	var names []string
	for _, view := range load(t, session(t, db), "public", "t").Attached.Views {
		names = append(names, schema.View.String(view))
	}
	if got := strings.Join(names, " "); got != "public.z public.m public.a" {
		t.Errorf("the views are %s", got)
	}
}
