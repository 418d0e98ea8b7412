package migration

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/replication/replay"
)

// Outcome is how a run ended, in a word of the contract.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Failed  Outcome = "failed"
	Refused Outcome = "refused"
	Aborted Outcome = "aborted"
	Stopped Outcome = "stopped"
	Unknown Outcome = "unknown"
)

// ExitCode is the process exit code of an outcome.
func (o Outcome) ExitCode() int {
	switch o {
	case Done:
		return 0
	case Failed:
		return 1
	case Refused:
		return 3
	case Aborted:
		return 4
	case Stopped:
		return 5
	case Unknown:
		return 6
	default:
		return 1
	}
}

// outcomeOf decides, in one place, what an error makes of a run.
func outcomeOf(err error) Outcome {
	var refusal *shadow.Refusal
	var refusals Refusals
	var syntax *shadow.SyntaxError
	var attempts *cutover.AttemptsError
	var lost *lostError
	var taken *takenError
	switch {
	case err == nil:
		return Done
	case errors.Is(err, cutover.ErrUnknown):
		return Unknown
	case errors.Is(err, errNotRemoved):
		return Failed
	case errors.As(err, &lost), errors.As(err, &taken):
		return Stopped
	case errors.As(err, &refusal), errors.As(err, &refusals), errors.As(err, &syntax):
		return Refused
	case definite(err):
		return Aborted
	case errors.As(err, &attempts), errors.Is(err, context.Canceled), errors.Is(err, errSlotGone), pg.IsConnection(err):
		return Stopped
	default:
		return Failed
	}
}

// definite tells the errors after which the same run can never succeed: the
// data does not fit the new schema, the tables differ, or the original changed.
// Only these remove what the run has made; every other error keeps it.
func definite(err error) bool {
	var data *copier.DataError
	var conflict *replay.ConflictError
	var mismatch *verify.MismatchError
	var rejected *shadow.RejectedError
	var abort *AbortError
	var wal *WALError
	return errors.As(err, &data) || errors.As(err, &conflict) || errors.As(err, &mismatch) || errors.As(err, &abort) || errors.As(err, &wal) ||
		errors.Is(err, replication.ErrChanged) || errors.Is(err, errRemoved) || errors.As(err, &rejected)
}

// transient tells the errors after which the run is worth taking up again in this
// process: the session is gone, and another may be had. While the run is being
// taken up, whatever keeps it from streaming again may pass too: a server that
// starts, a standby that is about to be promoted, a lock that the server still
// holds for the session that was lost.
func transient(err error, takingUp bool) bool {
	var taken *takenError
	if errors.As(err, &taken) {
		return false
	}
	switch outcomeOf(err) {
	case Stopped:
		return pg.IsConnection(err) || errors.Is(err, errSlotGone)
	case Failed, Refused:
		return takingUp
	case Done, Aborted, Unknown:
		return false
	default:
		return false
	}
}

// errNotRemoved says that a run was to be aborted and something of it is left.
var errNotRemoved = errors.New("not everything that the run made could be removed")

// errRemoved says that somebody ended the run while this process had lost its
// connection, and with it the table's lock.
var errRemoved = errors.New("the run was removed by somebody else while the connection was lost")

// errSlotGone says that the slot went while the run was being taken up, or before
// its stream began. Taking it up anew makes another one and heals.
var errSlotGone = errors.New("the slot is gone or lost")

// byUs tells of a statement that the server has ended because ctx was.
func byUs(ctx context.Context, err error) error {
	if ctx.Err() != nil && pg.Is(err, pg.QueryCanceled) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}
