package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pooler"
)

// ignored are the startup parameters of every session of pgshadow: a pooler that is
// told so takes them and does not pass them on.
var ignored = strings.Fields(`search_path extra_float_digits statement_timeout lock_timeout idle_in_transaction_session_timeout
	idle_session_timeout default_transaction_isolation default_transaction_read_only row_security synchronous_commit bytea_output
	intervalstyle jit plan_cache_mode client_min_messages role quote_all_identifiers default_transaction_deferrable replication`)

// TestPooler: no command works through a pooler that does not give it sessions of
// its own as it asks for them. Nothing is created or removed, also of an unfinished
// run. Beside the pooler all is well.
func TestPooler(t *testing.T) {
	t.Parallel()
	db := createT(t)
	behind := *db
	behind.DSN = login(t, db)
	stopped := stopAt(t, db, migration.Verify)
	before := everything(t, db)
	for name, c := range map[string]struct {
		options pooler.Options
		says    string
	}{
		"transaction":           {pooler.Options{Mode: "transaction"}, "transaction mode"},
		"transaction, ignoring": {pooler.Options{Mode: "transaction", Ignore: ignored}, "transaction mode"},
		"statement":             {pooler.Options{Mode: "statement"}, "statement mode"},
		"session":               {pooler.Options{Mode: "session"}, "unsupported startup parameter"},
		"session, ignoring":     {pooler.Options{Mode: "session", Ignore: ignored}, "synchronous_commit"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := pooler.Start(t, &behind, c.options)
			config := tableT(t, db, func(migration.Event) {})
			config.DSN = dsn
			report, err := migration.Run(t.Context(), config)
			if report.Outcome != migration.Refused || report.ExitCode != 3 || report.Error.Check != "pooler" || !strings.Contains(report.Error.Remedy, "server itself") {
				t.Errorf("not refused: %v, report %+v", err, report)
			}
			_, errCleanup := migration.Cleanup(t.Context(), dsn, false)
			_, errFinish := migration.Finish(t.Context(), dsn, "t")
			for command, err := range map[string]error{"alter": err, "cleanup": errCleanup, "finish": errFinish} {
				var refusal *shadow.Refusal
				if !errors.As(err, &refusal) || refusal.Check != "pooler" || !strings.Contains(refusal.Reason, c.says) {
					t.Errorf("%s ends with %v, want a refusal that says %q", command, err, c.says)
				}
			}
			if after := everything(t, db); after != before {
				t.Errorf("something was created or removed:\n%s", lineDiff(before, after))
			}
		})
	}
	if report := mustRun(t, tableT(t, db, func(migration.Event) {})); report.RunID != stopped.RunID {
		t.Errorf("run %s is done, want %s", report.RunID, stopped.RunID)
	}
}

// TestPoolerThatDropsSettings: the sessions of preflight pass, for the server gives
// them by itself what the pooler drops. Later ones would not, and that is found out
// before anything is created.
func TestPoolerThatDropsSettings(t *testing.T) {
	t.Parallel()
	db := createT(t)
	database, err := pg.Open(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := database.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range ignored {
		if name == "replication" {
			continue
		}
		if _, err := conn.Exec(t.Context(), "ALTER DATABASE "+pg.Ident(db.Name)+" SET "+name+" FROM CURRENT"); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	behind := *db
	behind.DSN = login(t, db)
	dsn := pooler.Start(t, &behind, pooler.Options{Mode: "session", Ignore: ignored})
	before := everything(t, db)
	config := tableT(t, db, func(migration.Event) {})
	config.DSN = dsn
	config.Table = "public.t" // the login's own search_path is pinned too
	report, err := migration.Run(t.Context(), config)
	if report.Outcome != migration.Refused || report.Error.Check != "pooler" || report.RunID != "" || !strings.Contains(err.Error(), "lock_timeout") {
		t.Errorf("not refused: %v, report %+v", err, report)
	}
	if after := everything(t, db); after != before {
		t.Errorf("something was created:\n%s", lineDiff(before, after))
	}
	if left, err := migration.Cleanup(t.Context(), config.DSN, true); err != nil || len(left) != 0 {
		t.Errorf("cleanup, which has no other sessions, ends with %v and %+v", err, left)
	}
}
