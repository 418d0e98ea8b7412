package cutover

import (
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestAutovacuumGivesWay although the cutover waits for the lock far shorter than
// the deadlock_timeout after which an autovacuum does so (hazard H49).
func TestAutovacuumGivesWay(t *testing.T) {
	for name, table := range map[string]string{"original": "public.t", "shadow": "pgshadow_test.t"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{
				"autovacuum": "off", "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "100ms", "autovacuum_vacuum_cost_limit": "1"}})
			r := newRig(t, pgtest.NewOn(t, server), rows+"; INSERT INTO t SELECT i, i * 100 FROM generate_series(11, 5000) i", toBigint)
			r.config.Attempts, r.config.LockTimeout = 1, 300*time.Millisecond
			r.DB.Exec(t, "ALTER TABLE "+table+" SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0); UPDATE "+table+" SET code = code")
			setAutovacuum(t, r.DB, "on")
			awaitAutovacuum(t, r.DB, table)
			setAutovacuum(t, r.DB, "off") // no other one begins; the one at work goes on
			_, err := r.run(t)
			r.requireSwapped(t, err)
		})
	}
}

func setAutovacuum(t *testing.T, db *pgtest.DB, value string) {
	t.Helper()
	db.Exec(t, "ALTER SYSTEM SET autovacuum = "+value)
	db.Exec(t, "SELECT pg_reload_conf()")
}

func awaitAutovacuum(t *testing.T, db *pgtest.DB, table string) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for pgtest.Scalar[int](t, db, `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE backend_type = 'autovacuum worker' AND relation = $1::text::regclass AND mode = 'ShareUpdateExclusiveLock' AND query LIKE '%VACUUM%'`, table) == 0 {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("no autovacuum of %s began", table)
		}
	}
}
