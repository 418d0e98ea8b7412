package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// Report is what a run came to. Its JSON form is a contract (docs/operations.md).
type Report struct {
	RunID           string          `json:"run_id,omitempty"`
	Table           string          `json:"table"`
	Method          string          `json:"method"`
	Outcome         Outcome         `json:"outcome"`
	ExitCode        int             `json:"exit_code"`
	Error           *ReportError    `json:"error,omitempty"`
	RowsCopied      int64           `json:"rows_copied"`
	ChangesReceived uint64          `json:"changes_received"`
	KeysReplayed    uint64          `json:"keys_replayed"`
	Healed          int64           `json:"healed,omitempty"` // rows read again because a lost slot had missed changes
	Verify          verify.Report   `json:"verify"`
	Cutover         cutover.Report  `json:"cutover"`
	RetiredTable    string          `json:"retired_table,omitempty"`
	Warnings        []string        `json:"warnings,omitempty"` // of a change that is done
	DurationMS      int64           `json:"duration_ms"`
	Phases          []PhaseDuration `json:"phases"`
}

// ReportError says why a run is not done. Check and Remedy stand where it was
// refused; Refusals lists every one when there are several.
type ReportError struct {
	Message  string            `json:"message"`
	Check    string            `json:"check,omitempty"`
	Remedy   string            `json:"remedy,omitempty"`
	SQLState string            `json:"sqlstate,omitempty"`
	State    string            `json:"state,omitempty"` // what is left, and what to do next
	Refusals []*shadow.Refusal `json:"refusals,omitempty"`
}

// PhaseDuration is how long a phase took.
type PhaseDuration struct {
	Name       string `json:"name"`
	DurationMS int64  `json:"duration_ms"`
}

// Refusals are all the reasons for which preflight says no.
type Refusals []*shadow.Refusal

func (r Refusals) Error() string {
	text := ""
	for i, refusal := range r {
		if i > 0 {
			text += "\n"
		}
		text += refusal.Error()
	}
	return text
}

// outcomeOf decides, in one place, what an error makes of a run.
func outcomeOf(err error) Outcome {
	var refusal *shadow.Refusal
	var refusals Refusals
	var syntax *shadow.SyntaxError
	var attempts *cutover.AttemptsError
	switch {
	case err == nil:
		return Done
	case errors.Is(err, cutover.ErrUnknown):
		return Unknown
	case errors.Is(err, errNotRemoved):
		return Failed
	case errors.As(err, &refusal), errors.As(err, &refusals), errors.As(err, &syntax):
		return Refused
	case definite(err):
		return Aborted
	case errors.As(err, &attempts), errors.Is(err, context.Canceled), pg.IsConnection(err):
		return Stopped
	default:
		return Failed
	}
}

// definite tells the errors after which the same run can never succeed: the
// data does not fit the new schema, the tables differ, or the original changed.
func definite(err error) bool {
	var data *copier.DataError
	var conflict *replay.ConflictError
	var mismatch *verify.MismatchError
	return errors.As(err, &data) || errors.As(err, &conflict) || errors.As(err, &mismatch) ||
		errors.Is(err, replication.ErrChanged) || pg.IsData(err)
}

// errNotRemoved says that a run was to be aborted and something of it is left.
var errNotRemoved = errors.New("not everything that the run made could be removed")

func (m *Migration) conclude(err error) Report {
	report := m.report
	report.Outcome = outcomeOf(err)
	report.ExitCode = report.Outcome.ExitCode()
	report.DurationMS = time.Since(m.began).Milliseconds()
	report.Method = "shadow"
	if err != nil {
		report.Error = m.describe(err, report.Outcome)
	}
	return report
}

func (m *Migration) describe(err error, outcome Outcome) *ReportError {
	described := &ReportError{Message: err.Error(), State: m.state(outcome)}
	if pgErr := pg.Server(err); pgErr != nil {
		described.SQLState = pgErr.Code
	}
	var refusal *shadow.Refusal
	var refusals Refusals
	var syntax *shadow.SyntaxError
	switch {
	case errors.As(err, &refusals):
		described.Refusals = refusals
		described.Check, described.Remedy = refusals[0].Check, refusals[0].Remedy
	case errors.As(err, &refusal):
		described.Check, described.Remedy = refusal.Check, refusal.Remedy
	case errors.As(err, &syntax):
		described.Check, described.Remedy = "alter", "correct the text of --alter; it is what follows ALTER TABLE name"
	}
	return described
}

// state says what is left on the server, for a DBA who reads nothing else.
func (m *Migration) state(outcome Outcome) string {
	table := m.report.Table
	switch outcome {
	case Done:
		return ""
	case Refused:
		return fmt.Sprintf("nothing was created, %s is untouched", table)
	case Aborted:
		return fmt.Sprintf("everything that the run made has been removed, %s is untouched", table)
	case Unknown:
		return fmt.Sprintf("nothing was dropped; look whether %s has the new schema, then run pgshadow cleanup --dry-run", table)
	case Stopped, Failed:
		if m.report.RunID == "" {
			return fmt.Sprintf("nothing was created, %s is untouched", table)
		}
		return fmt.Sprintf("%s is untouched; the shadow, the publication and the slot of run %s are kept, and the slot holds WAL back: "+
			"run the same pgshadow alter again to resume, or pgshadow cleanup to remove them", table, m.report.RunID)
	default:
		return ""
	}
}
