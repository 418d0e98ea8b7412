package migration

import (
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Event is something that happened: one of the structs below.
type Event interface{ event() }

// RunStarted begins a run, or resumes one.
type RunStarted struct {
	RunID     string
	Table     string
	Resumed   bool
	Rehearsal bool
}

// PhaseStarted begins a phase.
type PhaseStarted struct{ Phase Phase }

// PhaseFinished ends a phase that succeeded.
type PhaseFinished struct {
	Phase    Phase
	Duration time.Duration
}

// StepStarted begins a step of a native run.
type StepStarted struct{ SQL string }

// ChunkCopied says that a chunk is committed.
type ChunkCopied struct {
	Chunk    string // (lo, hi]
	Rows     int64
	Duration time.Duration
}

// Waiting says what the run waits for, and who holds it up.
type Waiting struct {
	For    string
	Reason string
}

// Throttled says that the run began to wait, or with an empty reason that it
// goes on.
type Throttled struct{ Reason string }

// AttemptFailed says that a cutover attempt was given up and another will come.
type AttemptFailed struct {
	Attempt int
	Reason  string
	Backoff time.Duration
}

// Restarted says that the copy starts again, and why.
type Restarted struct{ Reason string }

// Noted is something an operator should know that does not stop the run.
type Noted struct{ Note string }

// Steered says that a command of the operator has been carried out.
type Steered struct {
	Command  string
	Argument string // of set: NAME=VALUE
	By       string // the role that issued it
}

// Progressed comes once a second while the stream flows.
type Progressed struct{ Progress Progress }

// Swapped says that the swap is committed: from here on the new table is in place.
type Swapped struct{ Retired string }

// Rehearsed says that everything of a rehearsal's swap but its COMMIT is done, and
// that it is rolled back.
type Rehearsed struct{}

func (RunStarted) event()    {}
func (PhaseStarted) event()  {}
func (PhaseFinished) event() {}
func (StepStarted) event()   {}
func (ChunkCopied) event()   {}
func (Waiting) event()       {}
func (Throttled) event()     {}
func (AttemptFailed) event() {}
func (Restarted) event()     {}
func (Noted) event()         {}
func (Steered) event()       {}
func (Progressed) event()    {}
func (Swapped) event()       {}
func (Rehearsed) event()     {}

// Progress is how far a run is. As JSON it stands in the run's state row.
type Progress struct {
	Phase           Phase         `json:"phase"`
	Rows            int64         `json:"rows"`            // copied, or compared in phase verify
	EstimatedRows   int64         `json:"estimated_rows"`  // the planner's estimate of all
	Percent         float64       `json:"percent"`         // of the phase, 0 to 100
	RowsPerSecond   float64       `json:"rows_per_second"` // over the last seconds
	ETA             time.Duration `json:"eta"`             // of the phase; negative when unknown
	LagBytes        int64         `json:"lag_bytes"`       // WAL written and not yet replayed
	DirtyKeys       int           `json:"dirty_keys"`
	InvisibleKeys   int64         `json:"invisible_keys"` // wait for their transaction to become visible
	ChangesReceived uint64        `json:"changes_received"`
	Confirmed       pg.LSN        `json:"confirmed_lsn"`
	WALRetained     int64         `json:"wal_retained"` // bytes that the slot holds back, as last measured
	Throttle        string        `json:"throttle"`     // reason; empty when it does not wait
	Waiting         string        `json:"waiting"`      // what else it waits for, and why; empty when it does not
}
