package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// plainWatcher logs to the builder, in JSON without times.
func plainWatcher(out io.Writer, level zerolog.Level) *watcher {
	screen := &screen{out: out, width: func() int { return 0 }}
	return newWatcher(zerolog.New(screen).Level(level), screen)
}

func TestOneLinePerEvent(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := plainWatcher(&out, zerolog.DebugLevel)
	for _, event := range []migration.Event{
		migration.PhaseStarted{Phase: migration.Preflight},
		migration.RunStarted{RunID: "r", Table: "public.t"},
		migration.RunStarted{RunID: "r", Table: "public.t", Resumed: true},
		migration.Waiting{For: "transactions", Reason: "backend 5"},
		migration.PhaseFinished{Phase: migration.CatchUp, Duration: 1500 * time.Millisecond},
		migration.ChunkCopied{Chunk: "(1, 2]", Rows: 5, Duration: time.Millisecond},
		migration.Throttled{Reason: "file"},
		migration.Throttled{},
		migration.AttemptFailed{Attempt: 2, Reason: "no lock", Backoff: time.Second},
		migration.Restarted{Reason: "truncated"},
		migration.Noted{Note: "a\nb"},
		migration.Swapped{Retired: "s.t"},
	} {
		w.Observe(event)
	}
	w.close()
	want := `{"level":"info","phase":"preflight","message":"phase started"}
{"level":"info","run_id":"r","table":"public.t","message":"run started"}
{"level":"info","run_id":"r","table":"public.t","message":"run resumed"}
{"level":"warn","waiting_for":"transactions","reason":"backend 5","message":"waiting"}
{"level":"info","phase":"catch_up","duration_ms":1500,"message":"phase finished"}
{"level":"debug","chunk":"(1, 2]","rows":5,"duration_ms":1,"message":"chunk copied"}
{"level":"info","reason":"file","message":"throttled"}
{"level":"info","message":"throttle released"}
{"level":"warn","attempt":2,"reason":"no lock","backoff_ms":1000,"message":"cutover attempt failed"}
{"level":"warn","reason":"truncated","message":"copy restarted"}
{"level":"warn","note":"a\nb","message":"noted"}
{"level":"info","retired_table":"s.t","message":"swapped"}
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// Without a terminal there is a progress line every ten seconds and no more,
// also in a phase that reports no progress.
func TestProgressLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		w := plainWatcher(&out, zerolog.InfoLevel)
		w.Observe(migration.PhaseStarted{Phase: migration.Prepare})
		w.Observe(migration.Waiting{For: "transactions", Reason: "backend 5"})
		<-time.After(25*time.Second + time.Millisecond)
		w.Observe(migration.PhaseStarted{Phase: migration.Copy})
		for second := range 20 {
			<-time.After(time.Second)
			w.Observe(migration.Progressed{Progress: migration.Progress{Phase: migration.Copy, Rows: int64(second) * 100, EstimatedRows: 2000,
				Percent: float64(second) * 5, RowsPerSecond: 100, ETA: time.Duration(20-second) * time.Second, LagBytes: 5, Confirmed: 1 << 32, Throttle: "held"}})
		}
		<-time.After(time.Millisecond)
		w.Observe(migration.PhaseStarted{Phase: migration.Index})
		w.close()
		want := `{"level":"info","phase":"prepare","message":"phase started"}
{"level":"warn","waiting_for":"transactions","reason":"backend 5","message":"waiting"}
{"level":"info","phase":"prepare","duration_ms":10000,"throttle":"waiting for transactions","message":"progress"}
{"level":"info","phase":"prepare","duration_ms":20000,"throttle":"waiting for transactions","message":"progress"}
{"level":"info","phase":"copy","message":"phase started"}
{"level":"info","phase":"copy","duration_ms":4999,"percent":15,"estimated_rows":2000,"eta_seconds":17,"rows":300,"rows_per_second":100,"lag_bytes":5,"dirty_keys":0,"invisible_keys":0,"changes_received":0,"confirmed_lsn":"1/0","throttle":"held","message":"progress"}
{"level":"info","phase":"copy","duration_ms":14999,"percent":65,"estimated_rows":2000,"eta_seconds":7,"rows":1300,"rows_per_second":100,"lag_bytes":5,"dirty_keys":0,"invisible_keys":0,"changes_received":0,"confirmed_lsn":"1/0","throttle":"held","message":"progress"}
{"level":"info","phase":"index","message":"phase started"}
`
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", out.String(), want)
		}
	})
}

func TestLiveDisplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := newTerminal(t, 60)
		screen := &screen{out: seen, live: true, width: func() int { return seen.width }}
		w := newWatcher(zerolog.New(zerolog.ConsoleWriter{Out: screen, NoColor: true, PartsExclude: []string{zerolog.TimestampFieldName}}), screen)
		look := func(after time.Duration, want string) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			screen.mu.Lock()
			defer screen.mu.Unlock()
			if got := seen.String(); got != want {
				t.Fatalf("there is\n%s\nwant\n%s", got, want)
			}
		}
		w.Observe(migration.PhaseStarted{Phase: migration.Copy})
		look(0, "INF phase started phase=copy\ncopy  0s")
		look(3*time.Second, "INF phase started phase=copy\ncopy  3s")
		w.Observe(migration.Progressed{Progress: migration.Progress{Phase: migration.Copy, Rows: 10, EstimatedRows: 100, Percent: 10, ETA: 27 * time.Second}})
		look(0, "INF phase started phase=copy\ncopy  3s  10.0%  10 of 100 rows  lag 0 B  ETA 27s")
		w.Observe(migration.Throttled{Reason: "file /tmp/stop is there"})
		look(0, "INF phase started phase=copy\nINF throttled reason=\"file /tmp/stop is there\"\ncopy  3s  10.0%  lag 0 B  ETA 27s  file /tmp/stop is there")
		w.Observe(migration.PhaseStarted{Phase: migration.Index})
		w.Observe(migration.Progressed{Progress: migration.Progress{Phase: migration.Copy, Rows: 100}}) // late
		look(0, "INF phase started phase=copy\nINF throttled reason=\"file /tmp/stop is there\"\nINF phase started phase=index\nindex  0s")
		w.close()
		look(0, "INF phase started phase=copy\nINF throttled reason=\"file /tmp/stop is there\"\nINF phase started phase=index\n")
		w.Observe(migration.PhaseStarted{Phase: migration.Verify}) // of a run that was abandoned
		look(5*time.Second, "INF phase started phase=copy\nINF throttled reason=\"file /tmp/stop is there\"\nINF phase started phase=index\n")
		if !seen.cursor {
			t.Error("the cursor is not back")
		}
	})
}

// stuck takes nothing until it is freed.
type stuck struct {
	free chan struct{}
	strings.Builder
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.Builder.Write(p)
}

// A run does not wait for a log that nobody reads, and what waits for the reader
// is bounded.
func TestObserveDoesNotBlock(t *testing.T) {
	t.Parallel()
	out := &stuck{free: make(chan struct{})}
	w := plainWatcher(out, zerolog.InfoLevel)
	var observers sync.WaitGroup
	for range 4 {
		observers.Go(func() {
			for i := range queueLimit {
				w.Observe(migration.Noted{Note: fmt.Sprint(i)})
				w.Observe(migration.Progressed{})
			}
		})
	}
	observers.Wait()
	w.mu.Lock()
	if len(w.queue) > queueLimit {
		t.Errorf("%d are queued", len(w.queue))
	}
	w.mu.Unlock()
	close(out.free)
	w.close()
	if !strings.Contains(out.String(), "events dropped, the log was not read in time") {
		t.Error("the log does not say that lines are missing")
	}
}

func TestAbandoned(t *testing.T) {
	t.Parallel()
	w := plainWatcher(io.Discard, zerolog.InfoLevel)
	defer w.close()
	for _, step := range []struct {
		event migration.Event
		want  string
	}{
		{migration.PhaseStarted{Phase: migration.Preflight}, "nothing is known to be left"},
		{migration.RunStarted{RunID: "abc", Table: "public.t"}, "run the same pgshadow alter again to resume, or pgshadow cleanup"},
		{migration.Swapped{}, "the swap is committed: t has the new form"},
	} {
		w.Observe(step.event)
		if got := w.abandoned("t"); got.ExitCode != 5 || !strings.Contains(got.Error.State, step.want) {
			t.Errorf("after %T: got %+v, %+v", step.event, got, got.Error)
		}
	}
}
