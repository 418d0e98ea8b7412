package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

func TestLiveLine(t *testing.T) {
	t.Parallel()
	copying := &migration.Progress{Phase: migration.Copy, Rows: 4_520_000, EstimatedRows: 10_000_000, Percent: 45.2, RowsPerSecond: 12_345,
		ETA: 444 * time.Second, LagBytes: 3 << 19, DirtyKeys: 340}
	past := *copying
	past.EstimatedRows, past.Percent, past.ETA = past.Rows, 100, 0
	indexing := &migration.Progress{Phase: migration.Index, Rows: 4_520_000, EstimatedRows: 4_520_000, ETA: -1, LagBytes: 17}
	for name, c := range map[string]struct {
		now   situation
		width int
		want  string
	}{
		"wide":       {situation{migration.Copy, 61 * time.Second, copying, ""}, 200, "copy  1m01s  45.2%  4.5M of 10.0M rows  12.3k rows/s  lag 1.5 MB  340 dirty keys  ETA 7m24s"},
		"throttled":  {situation{migration.Copy, 61 * time.Second, copying, "held to 5 rows/s"}, 200, "copy  1m01s  45.2%  4.5M of 10.0M rows  12.3k rows/s  lag 1.5 MB  340 dirty keys  ETA 7m24s  held to 5 rows/s"},
		"narrower":   {situation{migration.Copy, 61 * time.Second, copying, "held to 5 rows/s"}, 80, "copy  1m01s  45.2%  4.5M of 10.0M rows  lag 1.5 MB  ETA 7m24s  held to 5 rows/s"},
		"narrow":     {situation{migration.Copy, 61 * time.Second, copying, "held to 5 rows/s"}, 40, "copy  45.2%  ETA 7m24s  held to 5 rows/s"},
		"very":       {situation{migration.Copy, 61 * time.Second, copying, "held to 5 rows/s"}, 24, "copy  45.2%  held to 5…"},
		"hardly any": {situation{migration.Copy, 61 * time.Second, copying, "held to 5 rows/s"}, 3, "co…"},
		"none":       {situation{migration.Copy, 61 * time.Second, copying, "held to 5 rows/s"}, 0, "…"},
		"past it":    {situation{migration.Copy, 61 * time.Second, &past, ""}, 200, "copy  1m01s  4.5M rows  12.3k rows/s  lag 1.5 MB  340 dirty keys"},
		"index":      {situation{migration.Index, time.Second, indexing, ""}, 200, "index  1s  4.5M rows  lag 17 B  0 dirty keys"},
		"waiting":    {situation{migration.Prepare, 3 * time.Hour, nil, "waiting for transactions"}, 200, "prepare  3h00m00s  waiting for transactions"},
		"escapes":    {situation{migration.Copy, 0, nil, "a\x1b[2Jb\nc"}, 200, "copy  0s  a [2Jb c"},
		"wide runes": {situation{migration.Copy, 0, nil, "日本語"}, 11, "copy  日本…"},
	} {
		if got := liveLine(c.now, c.width); got != c.want {
			t.Errorf("%s: got  %q\nwant %q", name, got, c.want)
		}
	}
	for width := 1; width < 150; width++ {
		got := liveLine(situation{migration.Copy, time.Minute, copying, "replica 日本 lags 12 s"}, width)
		if columns(got) > width || strings.ContainsAny(got, "\r\n") {
			t.Errorf("of %d columns it takes %d: %q", width, columns(got), got)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{0: "0", 999: "999", 999.7: "1.0k", 1000: "1.0k", 99_949: "99.9k", 123_456: "123k", 999_999: "1.0M", 2.5e9: "2.5G", 1e20: "100000P"} {
		if got := count(n); got != want {
			t.Errorf("count %v: got %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 kB", 1 << 20: "1.0 MB", 5<<40 + 1: "5.0 TB", math.MaxInt64: "8192 PB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytes %d: got %s", n, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 59*time.Second + 600*time.Millisecond: "1m00s", time.Hour + time.Second: "1h00m01s", 50*time.Hour + time.Minute: "2d02h01m"} {
		if got := clock(d); got != want {
			t.Errorf("clock %s: got %s", d, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1_234_567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped %d: got %s", n, got)
		}
	}
}
