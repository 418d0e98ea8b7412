package cutover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestHangingCommit: what a session has committed to the WAL cannot be replayed
// while its commit waits for a standby that is away. The attempt is put off, and
// says for whom and for what.
func TestHangingCommit(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{Settings: map[string]string{"synchronous_standby_names": "away", "synchronous_commit": "local"}})
	r := newRig(t, pgtest.NewOn(t, server), rows, toBigint)
	writer := r.DB.Conn(t)
	_, err := writer.Exec(t.Context(), "SET synchronous_commit = on; SET application_name = 'shop'")
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := writer.Exec(t.Context(), "UPDATE t SET code = -1 WHERE id = 1")
		ended <- err
	}()
	c := r.cutover(t)
	c.settle = 300 * time.Millisecond
	r.onEvent = func(event Event) {
		if strings.Contains(event.Reason, "did not catch up") {
			r.DB.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = ''")
			r.DB.Exec(t, "SELECT pg_reload_conf()")
			c.settle = settleLimit
		}
	}
	for hangs := false; !hangs; {
		hangs = pgtest.Scalar[bool](t, r.DB, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')")
	}
	_, err = c.Run(t.Context())
	r.requireSwapped(t, err)
	must(t, <-ended)
	r.requireReason(t, fmt.Sprintf("replay did not catch up within 300ms; pid %d (postgres, shop, active, its commit waits for a synchronous standby); "+
		`synchronous_standby_names is "away", connected of those: none`, writer.PgConn().PID()))
}
