package migration

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

// RehearsalReport is what a rehearsal has found out. Its JSON form is a contract
// (docs/operations.md).
type RehearsalReport struct {
	Rows          int64     `json:"rows"`               // of the copy
	OriginalBytes int64     `json:"original_bytes"`     // with indexes and TOAST, as is the shadow
	ShadowBytes   int64     `json:"shadow_bytes"`       // of a native change the indexes that it adds
	WALBytes      int64     `json:"wal_bytes"`          // that the whole server wrote meanwhile
	LockHoldsMS   []float64 `json:"lock_holds_ms"`      // of every swap that was rolled back, shortest first; the cutover's is the median
	Estimate      *Estimate `json:"estimate,omitempty"` // of a run on this copy
	Scaled        *Estimate `json:"scaled,omitempty"`   // of one on a table of the size that was given
	AfterSwap     []string  `json:"after_swap"`         // what a run does after its swap, which a rehearsal cannot; it is not in the estimates

	empty    bool // no estimate can be made of it for another size
	reads    bool // a native change has read the rows
	fixedWAL bool // a native change has written nothing for a row

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

// What a scale may be at most: far beyond PostgreSQL's own limit, 32 TB for one table.
const (
	maxScaleRows  = 1e15
	maxScaleBytes = 1 << 60
)

// ParseScale reads a number of rows, such as 2000000000 or 2e9, or a size with a
// unit, such as 1.5TB.
func ParseScale(text string) (Scale, error) {
	text = strings.TrimSpace(text)
	tooLarge := fmt.Errorf("%q: want at most 1e15 rows, or 1024PB", text)
	if rows, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64); err == nil {
		switch {
		case rows > maxScaleRows:
			return Scale{}, tooLarge
		case !(rows >= 1): // not NaN either
			return Scale{}, fmt.Errorf("%q: want at least one row", text)
		}
		return Scale{Rows: int64(rows)}, nil
	}
	bytes, err := units.RAMInBytes(text)
	switch {
	case err != nil || bytes == 0 || !strings.HasSuffix(strings.ToLower(text), "b"):
		return Scale{}, fmt.Errorf("%q: want a number of rows such as 2e9, or a size such as 1.5TB", text)
	case bytes < 0 || bytes > maxScaleBytes: // it wraps
		return Scale{}, tooLarge
	default:
		return Scale{Bytes: bytes}, nil
	}
}

// factor is how many times as large as the copy the scale is; 0: unknown, since
// none is given or the copy is empty.
func (s Scale) factor(of RehearsalReport) float64 {
	switch {
	case of.empty:
		return 0
	case s.Rows > 0 && of.Rows > 0:
		return float64(s.Rows) / float64(of.Rows)
	case s.Bytes > 0 && of.OriginalBytes > 0:
		return float64(s.Bytes) / float64(of.OriginalBytes)
	default:
		return 0
	}
}

// unscalable says why nothing is scaled to the size that was given.
func (s Scale) unscalable(of RehearsalReport) []string {
	switch {
	case s == Scale{} || s.factor(of) > 0:
		return nil
	case of.empty:
		return []string{"the copy is empty: there is nothing to scale to the size that was given with --scale-to"}
	default:
		return []string{"the size of the copy is not known, so nothing is scaled to the size that was given with --scale-to: ANALYZE it, and rehearse again"}
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
	times := func(n int64) int64 { return saturated(float64(n) * factor) }
	e := Estimate{Factor: factor, Rows: times(r.Rows), OriginalBytes: times(r.OriginalBytes), ShadowBytes: times(r.ShadowBytes), WALBytes: r.WALBytes,
		LockHoldMS: whole.Cutover.LockHoldMS, Phases: []PhaseDuration{}}
	if !r.fixedWAL {
		e.WALBytes = times(r.WALBytes)
	}
	for _, phase := range passes(whole.Phases) {
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
			took = saturated(float64(took) * factor * math.Max(math.Log(rows*factor)/math.Log(rows), 0))
		}
		e.DurationMS += min(took, math.MaxInt64-e.DurationMS)
		e.Phases = append(e.Phases, PhaseDuration{Name: phase.Name, DurationMS: took})
	}
	return e
}

func saturated(n float64) int64 {
	if n >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(math.Round(n))
}

// passes has every phase once, as a run that is not interrupted goes through it. After
// a lost connection, when preflight comes again, some phases go on where they were: all of
// their time counts. Of the others the last pass does, and of all after a TRUNCATE, when
// only the copy comes again. The clean-up has dropped the shadow, which the swap puts in
// place.
func passes(phases []PhaseDuration) (once []PhaseDuration) {
	goOn := []string{Copy.String(), Index.String(), Native.String()}
	for i, phase := range phases {
		if phase.Name == CleanUp.String() {
			continue
		}
		if truncated := phase.Name == Copy.String() && i > 0 && !slices.Contains([]string{Preflight.String(), Prepare.String()}, phases[i-1].Name); truncated {
			for j := range once {
				if slices.Contains(goOn, once[j].Name) {
					once[j].DurationMS = 0
				}
			}
		}
		at := slices.IndexFunc(once, func(p PhaseDuration) bool { return p.Name == phase.Name })
		switch {
		case at < 0:
			once = append(once, phase)
		case slices.Contains(goOn, phase.Name):
			once[at].DurationMS += phase.DurationMS
		default:
			once[at] = phase
		}
	}
	return once
}
