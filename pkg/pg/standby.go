package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CommitWaits is an SQL expression over a row of pg_stat_activity, by its alias:
// text to follow a session's state when its commit waits for a synchronous
// standby, else an empty one. The commit is in the WAL, it is not visible, and
// the session keeps its locks until a standby has answered. Of other roles'
// sessions only pg_read_all_stats shows it.
func CommitWaits(alias string) string {
	return fmt.Sprintf("CASE WHEN %s.wait_event = 'SyncRep' THEN ', its commit waits for a synchronous standby' ELSE '' END", alias)
}

// SynchronousStandbys tells which standbys commits wait for, and which of them
// are connected, for messages. It is empty when commits wait for none.
func SynchronousStandbys(ctx context.Context, conn *pgx.Conn) (string, error) {
	var names, connected string
	err := conn.QueryRow(ctx, `SELECT pg_catalog.current_setting('synchronous_standby_names'),
			CASE WHEN pg_catalog.bool_or(state IS NULL) THEN 'which, only pg_read_all_stats shows'
				ELSE coalesce(pg_catalog.string_agg(application_name, ', ' ORDER BY application_name) FILTER (WHERE sync_state IN ('sync', 'quorum')), 'none') END
		FROM pg_catalog.pg_stat_replication`).Scan(&names, &connected)
	if err != nil {
		return "", fmt.Errorf("looking for synchronous standbys: %w", err)
	}
	if names == "" {
		return "", nil
	}
	return fmt.Sprintf("synchronous_standby_names is %q, connected of those: %s", names, connected), nil
}
