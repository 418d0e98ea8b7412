package pgserver

import "testing"

// TestStandby follows its primary, stopped and started too, and is promoted when the primary is gone.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := begin(t, Options{Settings: map[string]string{"max_connections": "210", "wal_keep_size": "7MB"}})
	ask(t, primary.DSN("postgres"), "ALTER SYSTEM SET work_mem = '5MB'")
	ask(t, primary.DSN("postgres"), "CREATE TABLE t AS SELECT 1 AS v")
	standby, err := primary.StartStandby(t.Context(), "s1", map[string]string{"wal_keep_size": "9MB"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	for sql, want := range map[string]string{
		"SELECT pg_is_in_recovery()": "t", "SHOW max_connections": "210", "SHOW wal_keep_size": "9MB", "SHOW work_mem": "4MB",
	} {
		if got := ask(t, standby.DSN("postgres"), sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	follows := func(rows string) {
		t.Helper()
		await(t, "the standby to have "+rows+" rows", func() bool {
			return ask(t, standby.DSN("postgres"), "SELECT count(*) FROM t") == rows
		})
	}
	follows("1")
	ask(t, primary.DSN("postgres"), "INSERT INTO t VALUES (2)")
	follows("2")
	if err := standby.Stop(Fast); err != nil {
		t.Fatal(err)
	}
	ask(t, primary.DSN("postgres"), "INSERT INTO t VALUES (3)")
	if err := standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	follows("3")
	if got := ask(t, primary.DSN("postgres"), "SELECT application_name FROM pg_stat_replication"); got != "s1" {
		t.Errorf("the primary knows the standby as %q", got)
	}
	if err := primary.Stop(Immediate); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, standby.DSN("postgres"), "SELECT pg_promote()"); got != "t" {
		t.Errorf("promoting gives %q", got)
	}
	ask(t, standby.DSN("postgres"), "INSERT INTO t VALUES (4)")
	follows("4")
}
