package shadow

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/schema"
)

// TestRecipes: the statements of each step with the lock that they take, and what the first step would have to take
// back. In brackets is what a step is: one that reads rows beside writers, or builds an index outside of a transaction.
func TestRecipes(t *testing.T) {
	t.Parallel()
	table := &schema.Table{Schema: "public", Name: "t", Owner: "shop", Columns: []schema.Column{
		{Name: "id", NotNull: true}, {Name: "n"}, {Name: "b"}}}
	for alter, want := range map[string]string{
		"ADD CHECK (n > 0)": `ACCESS EXCLUSIVE makes constraint t_n_check: ALTER TABLE "public"."t" ADD CONSTRAINT "t_n_check" CHECK (n > 0) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_n_check"`,
		"add check ((array[n, b])[1] > 0)": `ACCESS EXCLUSIVE makes constraint t_check: ALTER TABLE "public"."t" ADD CONSTRAINT "t_check" check ((array[n, b])[1] > 0) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_check"`,
		"ADD CHECK (t IS NOT NULL)": `ACCESS EXCLUSIVE makes constraint t_check: ALTER TABLE "public"."t" ADD CONSTRAINT "t_check" CHECK (t IS NOT NULL) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_check"`,
		"ADD FOREIGN KEY (n) REFERENCES other ON DELETE SET NULL (n)": `SHARE ROW EXCLUSIVE makes constraint t_n_fkey: ALTER TABLE "public"."t" ADD CONSTRAINT "t_n_fkey" FOREIGN KEY (n) REFERENCES other ON DELETE SET NULL (n) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_n_fkey"`,
		"ADD CONSTRAINT late CHECK (n > 0) NOT VALID, ADD CHECK (b > 0)": `ACCESS EXCLUSIVE makes constraint late, constraint t_b_check: ALTER TABLE "public"."t" ADD CONSTRAINT late CHECK (n > 0) NOT VALID; ALTER TABLE "public"."t" ADD CONSTRAINT "t_b_check" CHECK (b > 0) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_b_check"`,
		"ALTER n SET NOT NULL, ALTER id SET NOT NULL": `ACCESS EXCLUSIVE makes constraint pgshadow_n_not_null: ALTER TABLE "public"."t" ADD CONSTRAINT "pgshadow_n_not_null" CHECK ("n" IS NOT NULL) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "pgshadow_n_not_null"
ACCESS EXCLUSIVE: ALTER TABLE "public"."t" ALTER COLUMN "n" SET NOT NULL; ALTER TABLE "public"."t" DROP CONSTRAINT "pgshadow_n_not_null"`,
		"ALTER n SET NOT NULL, ADD PRIMARY KEY (n)": `ACCESS EXCLUSIVE makes constraint pgshadow_n_not_null: ALTER TABLE "public"."t" ADD CONSTRAINT "pgshadow_n_not_null" CHECK ("n" IS NOT NULL) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "pgshadow_n_not_null"
SHARE UPDATE EXCLUSIVE [reads, index pgshadow_run_key1]: CREATE UNIQUE INDEX CONCURRENTLY "pgshadow_run_key1" ON "public"."t" USING btree (n)
ACCESS EXCLUSIVE: ALTER TABLE "public"."t" ALTER COLUMN "n" SET NOT NULL; ALTER TABLE "public"."t" DROP CONSTRAINT "pgshadow_n_not_null"; ALTER TABLE "public"."t" ADD CONSTRAINT "t_pkey" PRIMARY KEY USING INDEX "pgshadow_run_key1"`,
		"ADD UNIQUE (b) INCLUDE (b) DEFERRABLE": `SHARE UPDATE EXCLUSIVE [reads, index pgshadow_run_key1]: CREATE UNIQUE INDEX CONCURRENTLY "pgshadow_run_key1" ON "public"."t" USING btree (b) INCLUDE (b)
ACCESS EXCLUSIVE: ALTER TABLE "public"."t" ADD CONSTRAINT "t_b_b1_key" UNIQUE USING INDEX "pgshadow_run_key1" DEFERRABLE`,
		"ADD COLUMN c int DEFAULT 3, ADD CHECK (n > 0)": `ACCESS EXCLUSIVE makes constraint t_n_check: ALTER TABLE "public"."t" ADD CONSTRAINT "t_n_check" CHECK (n > 0) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_n_check"
ACCESS EXCLUSIVE: ALTER TABLE "public"."t" ADD COLUMN c int DEFAULT 3`,
		"ADD COLUMN c int DEFAULT 3 CHECK (c > 2)": `ACCESS EXCLUSIVE makes column c, constraint t_c_check: ALTER TABLE "public"."t" ADD COLUMN c int DEFAULT 3; ALTER TABLE "public"."t" ADD CONSTRAINT "t_c_check" CHECK (c > 2) NOT VALID
SHARE UPDATE EXCLUSIVE [reads]: ALTER TABLE "public"."t" VALIDATE CONSTRAINT "t_c_check"`,
		// Written from the tree, the type would be another one.
		"ADD COLUMN c pg_catalog.bpchar CHECK (c > '')": "none",
		"ADD CHECK (n > 0), DROP COLUMN b":              "none",
	} {
		change, err := Parse("t", []string{alter}, nil)
		if err != nil {
			t.Errorf("%s: %v", alter, err)
			continue
		}
		recipe, err := NewRecipe(Names{RunID: "run", Table: "t"}, table, change, Taken{})
		if got := recipeText(recipe); err != nil || got != want {
			t.Errorf("%s: %v\ngot:\n%s\nwant:\n%s", alter, err, got, want)
		}
	}
}

func recipeText(recipe *Recipe) string {
	if recipe == nil {
		return "none"
	}
	var lines []string
	for _, step := range recipe.Steps {
		line := step.Lock
		var is, makes, statements []string
		if step.Reads {
			is = append(is, "reads")
		}
		if step.Index != "" {
			is = append(is, "index "+step.Index)
		}
		for _, object := range step.Makes {
			makes = append(makes, fmt.Sprintf("%s %s", object.Kind, object.Name))
		}
		for _, statement := range step.Statements {
			statements = append(statements, statement.SQL)
		}
		if len(is) > 0 {
			line += " [" + strings.Join(is, ", ") + "]"
		}
		if len(makes) > 0 {
			line += " makes " + strings.Join(makes, ", ")
		}
		lines = append(lines, line+": "+strings.Join(statements, "; "))
	}
	return strings.Join(lines, "\n")
}

// TestAlterConstraint: it speaks of a constraint that there is, and adds none.
func TestAlterConstraint(t *testing.T) {
	t.Parallel()
	for _, alter := range []string{"ALTER CONSTRAINT fk DEFERRABLE", "ALTER CONSTRAINT fk NOT ENFORCED"} {
		change, err := Parse("t", []string{alter}, nil)
		if err != nil || len(change.References) != 0 || change.InPlace[0].ValidatesKey || change.InPlace[0].Trial != alter {
			t.Errorf("%s: %v, %+v", alter, err, change)
		}
	}
}

// TestUnlikeExpressions: what cannot be written faithfully is refused, and not made otherwise.
func TestUnlikeExpressions(t *testing.T) {
	t.Parallel()
	for _, alter := range []string{"ALTER n TYPE text USING n::pg_catalog.bpchar", "ADD COLUMN c pg_catalog.bpchar REFERENCES other"} {
		_, err := Parse("t", []string{alter}, nil)
		if refusal, is := err.(*Refusal); !is || !slices.Contains([]string{"expression", "alter"}, refusal.Check) { //nolint:errorlint // as it is returned
			t.Errorf("%s: %v", alter, err)
		}
	}
}

// TestMutedTraces: where the owner's code has turned the server's messages off, nothing is concluded from their absence.
func TestMutedTraces(t *testing.T) {
	t.Parallel()
	if got := (Traces{Muted: true}).Verdict(); got != Scan {
		t.Errorf("the verdict is %s", got)
	}
}
