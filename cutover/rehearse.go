package cutover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// undo ends the swap of a rehearsal. A ROLLBACK does not wait for the disk as the
// COMMIT does that it stands for, so a COMMIT that has to is measured right after it,
// without the lock: what it flushes begins with the WAL of the swap itself. The hold
// is told as the sum.
func (c *Cutover) undo(ctx context.Context, tx pgx.Tx, report Report, locked time.Time) (Report, error) {
	if err := pg.Rollback(ctx, tx); err != nil {
		return report, err
	}
	held := time.Since(locked)
	recording, cancel := pg.Cleanup(ctx)
	defer cancel()
	record, err := tx.Conn().Begin(recording)
	if err != nil {
		return report, fmt.Errorf("beginning the record of the rehearsal: %w", err)
	}
	if err := c.undone(recording, record); err != nil {
		return report, errors.Join(err, pg.Rollback(recording, record))
	}
	began := time.Now()
	if err := record.Commit(recording); err != nil {
		return report, fmt.Errorf("committing the record of the rehearsal: %w", err)
	}
	committed := time.Since(began)
	report.CommitMS, report.LockHoldMS = milliseconds(committed), milliseconds(held+committed)
	return report, nil
}
