package migration

import (
	"errors"
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
}

// TestEstimate: what reads rows grows with them, indexes a little more, the rest not
// at all; the clean-up of a rehearsal is none of a run's.
func TestEstimate(t *testing.T) {
	whole := Report{Cutover: cutover.Report{LockHoldMS: 12}, Phases: []PhaseDuration{
		{"preflight", 100}, {"prepare", 50}, {"copy", 600}, {"copy", 400}, {"index", 300}, {"catch_up", 5}, {"verify", 500}, {"cutover", 120}, {"clean_up", 999}}}
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
	for name, empty := range map[string]RehearsalReport{"no rows": {OriginalBytes: 8192}, "nothing": {}} {
		r := &rehearsal{measured: true, report: empty, scale: Scale{Bytes: 1 << 30}}
		if report := r.conclude(whole, nil); report.Scaled != nil || report.Estimate == nil {
			t.Errorf("%s: %+v", name, report)
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
