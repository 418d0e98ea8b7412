package migration

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

const (
	// hiddenLimit is for how long a transaction that the stream has brought may be
	// invisible before the run says so.
	hiddenLimit = 3 * time.Second
	// hiddenReminder is how often it says so again.
	hiddenReminder = 30 * time.Second
)

// hiddenWatch tells of transactions that are in the WAL and that no snapshot
// sees. Replay waits for them (INV-1), and so does whatever waits for replay; the
// application waits too, for a synchronous standby.
type hiddenWatch struct {
	m    *Migration
	told time.Time // zero: not of those of now
}

func (w *hiddenWatch) look(ctx context.Context, conn *pgx.Conn, now time.Time, l *live) error {
	length := l.InvisibleFor()
	if length < hiddenLimit {
		w.m.progress.hide("")
		w.told = time.Time{}
		return nil
	}
	if now.Sub(w.told) < hiddenReminder {
		return nil
	}
	reason, err := hiddenReason(ctx, conn, l.Invisible(), length)
	if err != nil {
		return err
	}
	w.told = now
	const what = "transactions to become visible"
	w.m.progress.hide(what + ": " + reason)
	w.m.config.Observer.Observe(Waiting{For: what, Reason: reason})
	return nil
}

// hiddenReason is as much of the reason as the role may see.
func hiddenReason(ctx context.Context, conn *pgx.Conn, keys int64, length time.Duration) (string, error) {
	reason := fmt.Sprintf("%d keys were written by transactions that have been committed to the WAL for %s and that no snapshot sees yet", keys, length.Round(time.Second))
	var sessions string
	err := conn.QueryRow(ctx, `SELECT coalesce(pg_catalog.string_agg(pg_catalog.format('pid %s (%s)', pid, application_name), ', '), '')
		FROM (SELECT pid, application_name FROM pg_catalog.pg_stat_activity
			WHERE wait_event = 'SyncRep' AND datname = pg_catalog.current_database() ORDER BY query_start LIMIT 5) s`).Scan(&sessions)
	if err != nil {
		return "", fmt.Errorf("looking whose commits wait: %w", err)
	}
	if sessions != "" {
		reason += "; commits that wait for a synchronous standby: " + sessions
	}
	standbys, err := pg.SynchronousStandbys(ctx, conn)
	if err != nil {
		return "", err
	}
	if standbys != "" {
		reason += "; " + standbys + ". The run goes on when the standby is back, or no longer named there"
	}
	return reason, nil
}
