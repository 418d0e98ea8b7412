package migration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication"
)

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

	Rehearsal *RehearsalReport `json:"rehearsal,omitempty"` // of a rehearsal alone
}

// remedySyntax is for a *shadow.SyntaxError.
const remedySyntax = "correct the text of --alter; it is what follows ALTER TABLE name, in the server's own grammar, up to PostgreSQL 18's"

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

// held says what the run's slot keeps on the server now.
func (m *Migration) held(ctx context.Context) string {
	unknown := "its slot holds WAL back"
	if m.target.resumes {
		unknown = "nothing holds WAL back"
	}
	if m.control == nil || m.run.store == nil {
		return unknown
	}
	asking, cancel := pg.Cleanup(ctx)
	defer cancel()
	slot, err := replication.LoadSlot(asking, m.control, m.run.names.Slot())
	switch {
	case err != nil:
		return unknown // the server cannot be asked: the error of the run says why
	case !slot.Exists:
		return "it has no slot, so nothing holds WAL back"
	default:
		return fmt.Sprintf("slot %s holds back %s of WAL, and more as the server goes on", m.run.names.Slot(), readableBytes(slot.Retained))
	}
}

// conclude completes the report. held says what the run's slot keeps.
func (m *Migration) conclude(err error, held string) Report {
	report := m.report
	report.Outcome = outcomeOf(err)
	report.ExitCode = report.Outcome.ExitCode()
	report.DurationMS = time.Since(m.began).Milliseconds()
	if report.Method == "" {
		report.Method = checkpoint.MethodShadow
	}
	report.Rehearsal = m.rehearsal.conclude(report, err)
	if err != nil {
		report.Error = m.describe(err, report.Outcome, held)
	}
	return report
}

func (m *Migration) describe(err error, outcome Outcome, held string) *ReportError {
	described := &ReportError{Message: err.Error(), State: m.state(outcome, held)}
	if pgErr := pg.Server(err); pgErr != nil {
		described.SQLState = pgErr.Code
	}
	var taken *takenError
	if errors.As(err, &taken) {
		described.State = fmt.Sprintf("the run is that process's now; pgshadow status --table %s says whether it works on it", m.report.Table)
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
		described.Check, described.Remedy = "alter", remedySyntax
	}
	return described
}

// state says what is left on the server, for a DBA who reads nothing else.
func (m *Migration) state(outcome Outcome, held string) string {
	table := m.report.Table
	switch outcome {
	case Done:
		return ""
	case Refused:
		return m.refusedState(held)
	case Aborted:
		if m.report.Method == checkpoint.MethodNative {
			return m.removedState()
		}
		return fmt.Sprintf("everything that the run made has been removed, %s is untouched", table)
	case Unknown:
		return fmt.Sprintf("nothing was dropped; look whether %s has the new schema, then run pgshadow cleanup --dry-run", table)
	case Stopped, Failed:
		return m.keptState(held)
	default:
		return ""
	}
}

func (m *Migration) refusedState(held string) string {
	switch table := m.report.Table; {
	case m.removed:
		return m.removedState()
	case m.report.RunID != "":
		return fmt.Sprintf("nothing was created, %s is untouched; run %s, which is not finished, is kept as it was, and %s: "+
			"resume it, or remove it with pgshadow abort --table %s", table, m.report.RunID, held, table)
	default:
		return fmt.Sprintf("nothing was created, %s is untouched", table)
	}
}

// keptState says what is left of a run that can go on.
func (m *Migration) keptState(held string) string {
	switch table := m.report.Table; {
	case m.report.RunID == "":
		return fmt.Sprintf("nothing was created, %s is untouched", table)
	case m.rehearsal != nil:
		return m.rehearsalState(held)
	case m.removed:
		return m.removedState()
	case m.undoing:
		return fmt.Sprintf("what run %s has made of the change is not taken back yet: pgshadow abort --table %s goes on with that, and so does pgshadow cleanup", m.report.RunID, table)
	case m.report.Method == checkpoint.MethodNative:
		return fmt.Sprintf("what run %s has made of the change is kept: run the same pgshadow alter again, which goes on with the rest, "+
			"or pgshadow abort --table %s (or pgshadow cleanup) to take it back", m.report.RunID, table)
	default:
		return fmt.Sprintf("%s is untouched; the shadow, the publication and the slot of run %s are kept; %s: "+
			"run the same pgshadow alter again to resume, or pgshadow abort --table %s (or pgshadow cleanup) to remove them", table, m.report.RunID, held, table)
	}
}

// removedState says what became of what a native run had made.
func (m *Migration) removedState() string {
	if len(m.kept) > 0 {
		return "what the run made has been taken back, but: " + strings.Join(m.kept, "; ")
	}
	return fmt.Sprintf("everything that the run made has been taken back, %s is as it was", m.report.Table)
}
