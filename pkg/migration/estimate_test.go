package migration

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

func TestParseScale(t *testing.T) {
	for text, want := range map[string]Scale{
		"2000000000": {Rows: 2_000_000_000}, "2e9": {Rows: 2_000_000_000}, " 1.5e3 ": {Rows: 1500}, "2_000_000": {Rows: 2_000_000}, "1": {Rows: 1},
		"1.5TB": {Bytes: 3 << 39}, "500GB": {Bytes: 500 << 30}, "10 MB": {Bytes: 10 << 20}, "7kb": {Bytes: 7 << 10}, "1GiB": {Bytes: 1 << 30},
		"1e15": {Rows: 1e15}, "1024PB": {Bytes: 1 << 60},
	} {
		if got, err := ParseScale(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a lot", "0", "-5", "-5GB", "0GB", "nan", "inf", "1e30", "2e9 rows", "2M", "1.5T"} {
		if got, err := ParseScale(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"9e18", "1.1e15", "inf", "1025PB", "9000PB", "1e9PB"} {
		if got, err := ParseScale(text); err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "at most 1e15 rows, or 1024PB") {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

// TestEstimate: what reads rows grows with them, indexes a little more, the rest not
// at all; the clean-up of a rehearsal is none of a run's.
func TestEstimate(t *testing.T) {
	whole := Report{Cutover: cutover.Report{LockHoldMS: 12}, Phases: []PhaseDuration{
		{"preflight", 100}, {"prepare", 50}, {"copy", 1000}, {"index", 300}, {"catch_up", 5}, {"verify", 500}, {"cutover", 120}, {"clean_up", 999}}}
	r := &rehearsal{measured: true, report: RehearsalReport{Rows: 1000, OriginalBytes: 1 << 20, ShadowBytes: 100, WALBytes: 200}}
	for _, c := range []struct {
		scale                         Scale
		want                          bool
		rows, shadow, wal, copy, took int64
		index                         int64
	}{
		{Scale{Rows: 1_000_000}, true, 1_000_000, 100_000, 200_000, 1_000_000, 100 + 50 + 1_000_000 + 600_000 + 5 + 500_000 + 40, 600_000},
		{Scale{Bytes: 1 << 30}, true, 1_024_000, 102_400, 204_800, 1_024_000, 0, 0},
		{Scale{Rows: 500}, true, 500, 50, 100, 500, 0, 0},
		{Scale{}, false, 0, 0, 0, 0, 0, 0},
	} {
		r.scale = c.scale
		report := r.conclude(whole, nil)
		here := report.Estimate
		if here.Factor != 1 || here.DurationMS != 100+50+1000+300+5+500+40 || len(here.Phases) != 7 || here.LockHoldMS != 12 || here.Phases[2] != (PhaseDuration{"copy", 1000}) {
			t.Errorf("the estimate is %+v", here)
		}
		scaled := report.Scaled
		if (scaled != nil) != c.want {
			t.Fatalf("scaled to %+v: %+v", c.scale, scaled)
		}
		if scaled == nil {
			continue
		}
		if scaled.Rows != c.rows || scaled.ShadowBytes != c.shadow || scaled.WALBytes != c.wal || scaled.Phases[2].DurationMS != c.copy || scaled.LockHoldMS != 12 {
			t.Errorf("scaled to %+v: %+v", c.scale, scaled)
		}
		if c.took != 0 && (scaled.DurationMS != c.took || scaled.Phases[3].DurationMS != c.index) {
			t.Errorf("scaled to %+v: %+v", c.scale, scaled)
		}
	}
}

// TestNothingToScale: it is said, and what is known of the size is enough.
func TestNothingToScale(t *testing.T) {
	rows, bytes := Scale{Rows: 1000}, Scale{Bytes: 1 << 30}
	for name, c := range map[string]struct {
		scale  Scale
		of     RehearsalReport
		factor float64
		says   string
	}{
		"rows of bytes alone":  {rows, RehearsalReport{OriginalBytes: 8192}, 0, "not known"},
		"bytes of bytes alone": {bytes, RehearsalReport{OriginalBytes: 1 << 20}, 1024, ""},
		"bytes of rows alone":  {bytes, RehearsalReport{Rows: 5}, 0, "not known"},
		"empty, in rows":       {rows, RehearsalReport{OriginalBytes: 8192, empty: true}, 0, "the copy is empty: there is nothing to scale"},
		"empty, in bytes":      {bytes, RehearsalReport{OriginalBytes: 8192, empty: true}, 0, "the copy is empty: there is nothing to scale"},
		"empty, and no scale":  {Scale{}, RehearsalReport{empty: true}, 0, ""},
	} {
		r := &rehearsal{measured: true, report: c.of, scale: c.scale}
		report := r.conclude(Report{}, nil)
		if report.Estimate == nil || (report.Scaled != nil) != (c.factor > 0) || report.Scaled != nil && report.Scaled.Factor != c.factor {
			t.Errorf("%s: %+v", name, report)
		}
		if said := strings.Join(c.scale.unscalable(c.of), " "); (said != "") != (c.says != "") || !strings.Contains(said, c.says) {
			t.Errorf("%s: %q", name, said)
		}
	}
}

// TestEstimateDoesNotWrap: what is beyond every number is the largest.
func TestEstimateDoesNotWrap(t *testing.T) {
	whole := Report{Phases: []PhaseDuration{{"copy", 1e9}, {"index", 1e9}, {"verify", 1e9}, {"cutover", 3}}}
	e := RehearsalReport{Rows: 2, OriginalBytes: 1 << 20, ShadowBytes: 1 << 20, WALBytes: 1 << 20}.estimate(whole, maxScaleRows)
	for _, n := range []int64{e.OriginalBytes, e.ShadowBytes, e.WALBytes, e.DurationMS, e.Phases[0].DurationMS, e.Phases[1].DurationMS} {
		if n != math.MaxInt64 {
			t.Errorf("%+v", e)
		}
	}
}

// TestEstimateOfANativeChange: it grows with the rows as far as they are read, and its
// WAL where an index is built.
func TestEstimateOfANativeChange(t *testing.T) {
	whole := Report{Phases: []PhaseDuration{{"preflight", 10}, {"native", 100}}}
	for _, c := range []struct {
		report     RehearsalReport
		took, wal  int64
		shadowSize int64
	}{
		{RehearsalReport{WALBytes: 5, fixedWAL: true}, 110, 5, 0},
		{RehearsalReport{WALBytes: 5, fixedWAL: true, reads: true}, 100_010, 5, 0},
		{RehearsalReport{WALBytes: 5, ShadowBytes: 3, reads: true}, 100_010, 5000, 3000},
	} {
		if e := c.report.estimate(whole, 1000); e.DurationMS != c.took || e.WALBytes != c.wal || e.ShadowBytes != c.shadowSize {
			t.Errorf("%+v: %+v", c.report, e)
		}
	}
}

// TestEstimateOfPhasesGoneThroughAgain: a run that is not interrupted goes through each
// once. After preflight, a connection was lost; else there was a TRUNCATE.
func TestEstimateOfPhasesGoneThroughAgain(t *testing.T) {
	for name, c := range map[string]struct{ gone, want []PhaseDuration }{
		"lost in the copy": {[]PhaseDuration{{"preflight", 1}, {"prepare", 2}, {"copy", 600}, {"preflight", 3}, {"copy", 400}, {"index", 50}, {"verify", 7}},
			[]PhaseDuration{{"preflight", 3}, {"prepare", 2}, {"copy", 1000}, {"index", 50}, {"verify", 7}}},
		"lost in verify": {[]PhaseDuration{{"preflight", 1}, {"copy", 600}, {"index", 50}, {"catch_up", 9}, {"verify", 300}, {"preflight", 1}, {"copy", 1}, {"index", 0}, {"catch_up", 2}, {"verify", 700}},
			[]PhaseDuration{{"preflight", 1}, {"copy", 601}, {"index", 50}, {"catch_up", 2}, {"verify", 700}}},
		"truncated in verify": {[]PhaseDuration{{"preflight", 1}, {"prepare", 2}, {"copy", 600}, {"index", 50}, {"catch_up", 9}, {"verify", 300}, {"copy", 400}, {"index", 40}, {"catch_up", 2}, {"verify", 200}},
			[]PhaseDuration{{"preflight", 1}, {"prepare", 2}, {"copy", 400}, {"index", 40}, {"catch_up", 2}, {"verify", 200}}},
		"truncated, then lost": {[]PhaseDuration{{"prepare", 2}, {"copy", 600}, {"copy", 100}, {"preflight", 1}, {"copy", 300}},
			[]PhaseDuration{{"prepare", 2}, {"copy", 400}, {"preflight", 1}}},
		"native": {[]PhaseDuration{{"preflight", 1}, {"native", 60}, {"preflight", 2}, {"native", 40}, {"clean_up", 5}}, []PhaseDuration{{"preflight", 2}, {"native", 100}}},
	} {
		e := RehearsalReport{}.estimate(Report{Phases: c.gone}, 1)
		var total int64
		for _, phase := range c.want {
			total += phase.DurationMS
		}
		if !reflect.DeepEqual(e.Phases, c.want) || e.DurationMS != total {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestFailingRowsOfNoKey: what an index refuses is told too, and nothing that is not
// the data's.
func TestFailingRowsOfNoKey(t *testing.T) {
	duplicate := &pgconn.PgError{Code: "23505", Message: "could not create unique index", Detail: "Key (n)=(17) is duplicated."}
	for name, c := range map[string]struct {
		err  error
		want []FailingRow
	}{
		"a duplicate":      {shadow.Rejected(duplicate), []FailingRow{{SQLState: "23505", Message: "could not create unique index Key (n)=(17) is duplicated."}}},
		"the operator":     {&AbortError{By: "me"}, []FailingRow{}},
		"something failed": {errors.New("no"), []FailingRow{}},
		"done":             {nil, []FailingRow{}},
	} {
		got := newRehearsal(&Rehearsal{}).conclude(Report{}, c.err)
		if !reflect.DeepEqual(got.FailingRows, c.want) || got.FailingRowsTotal != int64(len(c.want)) || got.FailingRowsComplete || got.Estimate != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
