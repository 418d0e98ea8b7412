package migration

import (
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	var p progress
	p.estimate(1000)
	p.enter(Copy)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := p.measure(now, 0); got.Rows != 0 || got.Percent != 0 || got.ETA >= 0 || got.EstimatedRows != 1000 || got.Phase != Copy {
		t.Errorf("at the beginning: %+v", got)
	}
	got := p.measure(now.Add(2*time.Second), 200)
	if got.RowsPerSecond != 100 || got.Percent != 20 || got.ETA != 8*time.Second {
		t.Errorf("after two seconds: %+v", got)
	}
	for i := range 20 { // the rate is that of the last seconds
		got = p.measure(now.Add(time.Duration(3+i)*time.Second), int64(200+10*(i+1)))
	}
	if got.RowsPerSecond != 10 || got.Rows != 400 {
		t.Errorf("after the slow part: %+v", got)
	}
	if got := p.measure(now.Add(time.Hour), 5000); got.EstimatedRows != 5000 || got.Percent != 100 || got.ETA != 0 {
		t.Errorf("beyond the estimate: %+v", got)
	}
	p.enter(Index)
	if got := p.measure(now.Add(2*time.Hour), 5000); got.EstimatedRows != 5000 || got.ETA >= 0 || got.RowsPerSecond != 0 || got.Phase != Index {
		t.Errorf("in a phase without rows: %+v", got)
	}
}
