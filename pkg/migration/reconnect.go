package migration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

const (
	reconnectMin = 500 * time.Millisecond
	reconnectMax = 10 * time.Second
	// steady is how long the stream must have flowed for a lost connection to be
	// the first of its kind again.
	steady = time.Minute
)

// recovery is what one process remembers of the connections it lost.
type recovery struct {
	streaming time.Time  // since when the stream flows; zero: it does not yet
	control   pg.Backend // of the control session
	lost      pg.Backend // of the one before, which the server may still have
	again     bool       // the run is being taken up again
	owner     bool       // the run's record has named this process
	table     uint32     // OID of the original, then
}

// lostError says that the run could not be taken up again for too long.
type lostError struct {
	limit time.Duration
	cause error
}

func (e *lostError) Error() string {
	return fmt.Sprintf("the connection was lost, and the run could not be taken up again within %s: %v", e.limit, e.cause)
}

func (e *lostError) Unwrap() error { return e.cause }

// persist goes through the flow, and takes the run up again when a connection is
// lost, as another process would: from its checkpoint. It gives up when that has
// not worked for ReconnectFor.
func (m *Migration) persist(ctx context.Context) error {
	var outage outage
	for {
		m.recovery.streaming = time.Time{}
		err := m.flow(ctx)
		streamed := !m.recovery.streaming.IsZero()
		if err == nil || ctx.Err() != nil || m.report.RunID == "" || !transient(err, m.recovery.again && !streamed) {
			return err
		}
		m.recovery.again = true
		outage.lasts(streamed, m.recovery.streaming)
		if time.Since(outage.since) >= m.config.ReconnectFor {
			return &lostError{limit: m.config.ReconnectFor, cause: err}
		}
		m.config.Observer.Observe(Waiting{For: "the server to be reached again", Reason: err.Error()})
		m.hangUp(ctx)
		if err := pause(ctx, outage.backoff/2+rand.N(outage.backoff)); err != nil {
			return fmt.Errorf("waiting to connect again: %w", err)
		}
	}
}

// outage is the time without a stream that the run has not recovered from.
type outage struct {
	since   time.Time
	backoff time.Duration
}

// lasts takes a lost connection, or another attempt that did not last. What time the
// stream has flowed in between does not count; when it was steady it was the end.
func (o *outage) lasts(streamed bool, streaming time.Time) {
	o.backoff = min(2*o.backoff, reconnectMax)
	switch flowed := time.Since(streaming); {
	case o.since.IsZero() || streamed && flowed > steady:
		o.since, o.backoff = time.Now(), reconnectMin
	case streamed:
		o.since = o.since.Add(flowed)
	}
}

// takenError says that another process works, or has worked, on the run that this
// one lost its hold of. It is no longer this one's.
type takenError struct {
	runID string
	by    checkpoint.Owner
}

func (e *takenError) Error() string {
	return fmt.Sprintf("process %d on host %s has taken run %s up while the connection was lost", e.by.PID, e.by.Host, e.runID)
}

// endedElsewhere looks what became of the run while the connection was lost. A run
// that another process has ended well is done.
func (m *Migration) endedElsewhere(ctx context.Context) (done bool, err error) {
	if !m.recovery.again {
		return false, nil
	}
	exists, err := m.stateExists(ctx)
	if err != nil {
		return false, err
	}
	var now *checkpoint.Run
	if exists {
		if now, err = checkpoint.FindRun(ctx, m.control, m.report.RunID); err != nil {
			return false, err
		}
	}
	switch {
	case now == nil:
		return false, fmt.Errorf("%w: the record of run %s is gone", cutover.ErrUnknown, m.report.RunID)
	case now.EndedAt == nil && m.recovery.owner && now.Owner != m.owner():
		return false, &takenError{runID: now.ID, by: now.Owner}
	case now.EndedAt == nil:
		m.recovery.table = now.TableOID
		return false, nil
	case m.endedWell(now):
		return true, m.finishOwn(ctx, now)
	default:
		return false, fmt.Errorf("%w: run %s", errRemoved, now.ID)
	}
}

// finishOwn cleans up after a native run whose last COMMIT was not heard of.
func (m *Migration) finishOwn(ctx context.Context, done *checkpoint.Run) error {
	plan, err := planOf(done)
	if err != nil || plan == nil || plan.Recipe == nil || done.Outcome != string(Done) || done.Owner != m.owner() {
		return err
	}
	m.finishNative(ctx, done, plan)
	return nil
}

func (m *Migration) endedWell(now *checkpoint.Run) bool {
	switch now.Outcome {
	case rehearsed:
		return true // by this process, which did not come to know of it
	case string(Done):
		m.report.RetiredTable = retiredBy(now)
		if now.Owner == m.owner() {
			return true
		}
		m.config.Observer.Observe(Noted{Note: fmt.Sprintf("process %d on host %s has ended run %s well while the connection was lost", now.Owner.PID, now.Owner.Host, now.ID)})
		return true
	default:
		return false
	}
}

// retiredBy is the retired table of a run that is done; a native one has none.
func retiredBy(run *checkpoint.Run) string {
	if run.Method == checkpoint.MethodNative {
		return ""
	}
	return pg.Readable(shadow.Names{RunID: run.ID}.RetiredSchema(), run.TableName)
}

// hangUp forgets what the lost sessions stood for; what is in the database is
// read again.
func (m *Migration) hangUp(ctx context.Context) {
	if m.control != nil {
		m.recovery.lost = m.recovery.control
		_ = pg.Close(ctx, m.control) // it may be broken; the server ends it sooner or later
		m.control = nil
	}
	m.run, m.phase, m.target.found = run{}, Preflight, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
