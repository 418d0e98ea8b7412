package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestEventTriggersAreNoted: whoever has event triggers is told which of them fire on the run's own statements.
func TestEventTriggersAreNoted(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	superuser(t, db, "event triggers are a superuser's to make")
	db.Exec(t, `CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1);
		CREATE TABLE seen (tag text); GRANT INSERT ON seen TO PUBLIC;
		CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (tg_tag); END $$;
		CREATE EVENT TRIGGER "Fires" ON ddl_command_end EXECUTE FUNCTION see();
		CREATE EVENT TRIGGER asleep ON sql_drop EXECUTE FUNCTION see(); ALTER EVENT TRIGGER asleep DISABLE`)
	report := mustRun(t, migration.Config{DSN: login(t, db), Table: "t", Alters: []string{"ALTER COLUMN n TYPE bigint"}})
	if !slices.ContainsFunc(report.Warnings, func(w string) bool { return strings.HasPrefix(w, `event trigger "Fires" fires on`) }) {
		t.Errorf("it warns %q", report.Warnings)
	}
	if n := pgtest.Scalar[int](t, db, "SELECT count(*) FROM seen WHERE tag = 'ALTER TABLE'"); n == 0 {
		t.Error("the event trigger has seen nothing of the run")
	}
}
