package migration

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

// RehearsalReport is what a rehearsal has found out. Its JSON form is a contract
// (docs/operations.md).
type RehearsalReport struct {
	Rows          int64     `json:"rows"`           // of the copy
	OriginalBytes int64     `json:"original_bytes"` // with indexes and TOAST, as is the shadow
	ShadowBytes   int64     `json:"shadow_bytes"`
	WALBytes      int64     `json:"wal_bytes"`          // that the whole server wrote meanwhile
	LockHoldsMS   []float64 `json:"lock_holds_ms"`      // of every swap that was rolled back, shortest first; the cutover's is the median
	Estimate      *Estimate `json:"estimate,omitempty"` // of a run on this copy
	Scaled        *Estimate `json:"scaled,omitempty"`   // of one on a table of the size that was given
	AfterSwap     []string  `json:"after_swap"`         // what a run does after its swap, which a rehearsal cannot; it is not in the estimates

	reads bool // a native change has read the rows

	FailingRows         []FailingRow `json:"failing_rows"` // rows that the new schema refuses, the first ones found
	FailingRowsTotal    int64        `json:"failing_rows_total"`
	FailingRowsComplete bool         `json:"failing_rows_complete"` // every row was tried: the total is not only a least
}

// FailingRow is a row that the new schema refuses.
type FailingRow struct {
	Key      string `json:"key,omitempty"` // unknown where an index or constraint refuses it
	SQLState string `json:"sqlstate"`
	Message  string `json:"message"`
}

// Estimate is what a run would cost.
type Estimate struct {
	Factor        float64         `json:"factor"` // how many times as large as the copy
	Rows          int64           `json:"rows"`
	OriginalBytes int64           `json:"original_bytes"`
	ShadowBytes   int64           `json:"shadow_bytes"`
	WALBytes      int64           `json:"wal_bytes"`
	DurationMS    int64           `json:"duration_ms"`
	LockHoldMS    float64         `json:"lock_hold_ms"` // does not grow with the rows
	Phases        []PhaseDuration `json:"phases"`
}

// Scale is the size of a table, in rows or in bytes; the other one is zero.
type Scale struct {
	Rows  int64
	Bytes int64 // with indexes and TOAST
}

// ParseScale reads a number of rows, such as 2000000000 or 2e9, or a size with a
// unit, such as 1.5TB.
func ParseScale(text string) (Scale, error) {
	text = strings.TrimSpace(text)
	if rows, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64); err == nil {
		if !(rows >= 1 && rows < math.MaxInt64) { // not NaN either
			return Scale{}, fmt.Errorf("%q: want at least one row", text)
		}
		return Scale{Rows: int64(rows)}, nil
	}
	bytes, err := ParseBytes(text)
	if err != nil || !strings.HasSuffix(strings.ToLower(text), "b") {
		return Scale{}, fmt.Errorf("%q: want a number of rows such as 2e9, or a size such as 1.5TB", text)
	}
	return Scale{Bytes: bytes}, nil
}

// factor is how many times as large as the copy the scale is; 0: unknown, since
// none is given or the copy is empty.
func (s Scale) factor(of RehearsalReport) float64 {
	switch {
	case s.Rows > 0 && of.Rows > 0:
		return float64(s.Rows) / float64(of.Rows)
	case s.Bytes > 0 && of.Rows > 0:
		return float64(s.Bytes) / float64(of.OriginalBytes)
	default:
		return 0
	}
}

// conclude completes the report of a rehearsal that has ended with err.
func (r *rehearsal) conclude(whole Report, err error) *RehearsalReport {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.report
	report.AfterSwap = append([]string{}, report.AfterSwap...) // in JSON lists, whatever happened
	report.FailingRows = append([]FailingRow{}, report.FailingRows...)
	report.LockHoldsMS = append([]float64{}, report.LockHoldsMS...)
	report.FailingRowsTotal = int64(len(r.refusals))
	if len(r.refusals) == 0 && outcomeOf(err) == Aborted && pg.IsData(err) {
		report.FailingRows, report.FailingRowsTotal = append(report.FailingRows, failingRow("", err)), 1
	}
	report.FailingRowsComplete = report.FailingRowsComplete || r.measured
	if !r.measured {
		return &report
	}
	estimate := report.estimate(whole, 1)
	report.Estimate = &estimate
	if factor := r.scale.factor(report); factor > 0 {
		scaled := report.estimate(whole, factor)
		report.Scaled = &scaled
	}
	return &report
}

func failingRow(key string, err error) FailingRow {
	row := FailingRow{Key: key, Message: err.Error()}
	var data *copier.DataError
	if errors.As(err, &data) {
		row.Key, row.Message = data.Key.String(), data.Cause.Error()
	}
	if pgErr := pg.Server(err); pgErr != nil {
		row.SQLState, row.Message = pgErr.Code, strings.TrimSpace(pgErr.Message+" "+pgErr.Detail)
	}
	return row
}

// estimate reckons with a table that is factor times as large. What reads and
// writes rows takes as many times as long, sorting them for an index a little more;
// the rest, and the lock, does not depend on the rows.
func (r RehearsalReport) estimate(whole Report, factor float64) Estimate {
	times := func(n int64) int64 { return int64(math.Round(float64(n) * factor)) }
	e := Estimate{Factor: factor, Rows: times(r.Rows), OriginalBytes: times(r.OriginalBytes), ShadowBytes: times(r.ShadowBytes), WALBytes: times(r.WALBytes),
		LockHoldMS: whole.Cutover.LockHoldMS, Phases: []PhaseDuration{}}
	for _, phase := range whole.Phases {
		if phase.Name == CleanUp.String() {
			continue // it has dropped the shadow, which the swap puts in place
		}
		took := phase.DurationMS
		switch phase.Name {
		case Copy.String(), Verify.String():
			took = times(took)
		case Native.String():
			if r.reads {
				took = times(took)
			}
		case Cutover.String():
			took /= swapsRehearsed
		case Index.String():
			rows := math.Max(float64(r.Rows), 2)
			took = int64(math.Round(float64(took) * factor * math.Max(math.Log(rows*factor)/math.Log(rows), 0)))
		}
		e.DurationMS += took
		if i := slices.IndexFunc(e.Phases, func(p PhaseDuration) bool { return p.Name == phase.Name }); i >= 0 {
			e.Phases[i].DurationMS += took // it was gone through again
		} else {
			e.Phases = append(e.Phases, PhaseDuration{Name: phase.Name, DurationMS: took})
		}
	}
	return e
}
