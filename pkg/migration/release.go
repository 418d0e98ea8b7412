package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// awaitRelease blocks while the cutover is the operator's to release. Replay goes
// on, and the tables are compared again and again, so that what is swapped in the
// end was verified lately.
func (m *Migration) awaitRelease(ctx context.Context, l *live) error {
	truncated := l.AwaitTruncation()
	rest := m.config.Cutover.CompareEvery
	for {
		released, changed := m.released()
		if released {
			m.waited()
			return nil
		}
		m.waits("the operator to release the cutover", fmt.Sprintf("the tables are in step and verified; pgshadow cutover --table %s swaps them", m.report.Table))
		timer := time.NewTimer(rest)
		select {
		case <-changed:
		case <-truncated:
			timer.Stop()
			return replay.ErrTruncated
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for the operator to release the cutover: %w", ctx.Err())
		case <-timer.C:
			began := time.Now()
			if err := m.compareUntilReleased(ctx, l); err != nil {
				return err
			}
			rest = max(time.Since(began), m.config.Cutover.CompareEvery)
		}
		timer.Stop()
	}
}

// released tells whether the cutover may begin, and when to ask again.
func (m *Migration) released() (bool, <-chan struct{}) {
	now, changed := m.steering.now()
	return m.current().Cutover.Mode != CutoverManual || now.Released != "", changed
}

// compareUntilReleased compares the tables once more. When the cutover is released
// meanwhile the comparison is given up: the last complete one counts.
func (m *Migration) compareUntilReleased(ctx context.Context, l *live) error {
	mode := m.current().Verify
	if mode == verify.Off {
		return nil
	}
	comparing, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			released, changed := m.released()
			if released {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-comparing.Done():
				return
			}
		}
	}()
	report, err := m.compare(comparing, l, mode)
	if err == nil {
		m.report.Verify = report
	}
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return nil
	}
	return err
}
