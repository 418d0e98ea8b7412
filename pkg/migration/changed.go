package migration

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgshadow/pgshadow/replication"
)

// blameChange looks whether the original was changed when a run has failed: then
// that is the reason, whatever was met first, be it a table that is gone or a
// value that a changed type made unfit. A run after such a change can never
// succeed, so the error becomes replication.ErrChanged, with err behind it.
func (m *Migration) blameChange(ctx context.Context, err error) error {
	outcome := outcomeOf(err)
	if ctx.Err() != nil || errors.Is(err, replication.ErrChanged) || (outcome != Failed && outcome != Aborted) {
		return err
	}
	switch changed := m.unchanged(ctx, m.control); {
	case changed == nil:
		return err
	case errors.Is(changed, replication.ErrChanged):
		return fmt.Errorf("%w (met as: %w)", changed, err)
	default:
		return errors.Join(err, changed)
	}
}
