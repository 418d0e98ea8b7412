package throttle

import (
	"errors"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

func TestHistoryBounds(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var h history
	for _, s := range []struct {
		at  int
		lsn pg.LSN
	}{{0, 100}, {10, 100}, {20, 100}, {21, 200}, {30, 300}} {
		h.add(at(s.at), s.lsn)
	}
	if len(h.samples) != 3 {
		t.Fatalf("%d samples of 3 positions", len(h.samples))
	}
	for _, c := range []struct {
		lsn         pg.LSN
		least, most int
		known       bool
	}{
		{lsn: 99, least: 30, known: false}, // behind since before the history
		{lsn: 100, least: 9, most: 10, known: true},
		{lsn: 150, least: 9, most: 10, known: true},
		{lsn: 200, least: 0, most: 9, known: true},
		{lsn: 300, least: 0, most: 0, known: true},
		{lsn: 999, least: 0, most: 0, known: true},
	} {
		least, most, known := h.bounds(at(30), c.lsn)
		if least != time.Duration(c.least)*time.Second || most != time.Duration(c.most)*time.Second || known != c.known {
			t.Errorf("at %d: %v to %v (%t), want %ds to %ds (%t)", c.lsn, least, most, known, c.least, c.most, c.known)
		}
	}
	h.add(at(31), 50) // another server's positions say nothing here
	if least, _, known := h.bounds(at(40), 49); least != 9*time.Second || known {
		t.Errorf("after the position went back: %v (%t)", least, known)
	}
	for i := range 3 * historySize {
		h.add(at(i), pg.LSN(1000+i))
	}
	if least, _, known := h.bounds(at(3*historySize), 0); len(h.samples) != historySize || known || least != historySize*time.Second {
		t.Errorf("a full history has %d samples and bounds %v (%t)", len(h.samples), least, known)
	}
}

// step is what one check finds.
type step struct {
	at       int // seconds
	flushed  pg.LSN
	replicas []replica
	want     string
	err      bool
	gone     []string
}

func standby(name, replayed string, lag ...time.Duration) replica {
	r := replica{Name: name, Reported: replayed != ""}
	if replayed != "" {
		r.Replayed = &replayed
	}
	for _, l := range lag {
		us := l.Microseconds()
		r.LagUS = &us
	}
	return r
}

// judged are the checks of one source in a row, by what they show.
func judged() map[string][]step {
	address := "10.0.0.3"
	nameless := standby("walreceiver", "0/1", 11*time.Second)
	nameless.Address = &address
	archiver := replica{Name: "pg_receivewal", Reported: true}
	return map[string][]step{
		"none":             {{flushed: 9}},
		"within the limit": {{flushed: 9, replicas: []replica{standby("a", "0/1", 10*time.Second)}}},
		"above the limit": {{flushed: 9, replicas: []replica{standby("a", "0/1", 12440*time.Millisecond)},
			want: "replica a lags 12.4s (limit 10s)"}},
		"the worst": {{flushed: 9, replicas: []replica{standby("a", "0/1", 11*time.Second), standby("b", "0/1", 13*time.Second),
			standby("c", "0/1", 12*time.Second), standby("d", "0/9")}, want: "replica b lags 13s (limit 10s)"}},
		"a default name":    {{flushed: 9, replicas: []replica{nameless}, want: "replica walreceiver at 10.0.0.3 lags 11s (limit 10s)"}},
		"archiver":          {{flushed: 9, replicas: []replica{archiver}}, {flushed: 9}},
		"nothing reported":  {{flushed: 9, replicas: []replica{standby("a", "")}, want: "replica a has not reported a position yet"}},
		"hidden":            {{flushed: 9, replicas: []replica{{Name: "a", Hidden: true, Viewer: "weak"}}, err: true}},
		"caught up, idle":   {{flushed: 9, replicas: []replica{standby("a", "0/9")}}},
		"caught up, stale":  {{flushed: 9, replicas: []replica{standby("a", "0/9", time.Hour)}}},
		"behind, no figure": {{flushed: 9, replicas: []replica{standby("a", "0/4")}, want: "replica a is 5 bytes of WAL behind, for how long is not known yet"}},
		"unknown yields to a figure": {{flushed: 9, replicas: []replica{standby("a", "0/4"), standby("b", "0/4", time.Minute)},
			want: "replica b lags 1m0s (limit 10s)"}},
		"frozen figure": {
			{at: 0, flushed: 4, replicas: []replica{standby("a", "0/4", time.Millisecond)}},
			{at: 1, flushed: 9, replicas: []replica{standby("a", "0/4", time.Millisecond)}},
			{at: 11, flushed: 9, replicas: []replica{standby("a", "0/4", time.Millisecond)}},
			{at: 12, flushed: 9, replicas: []replica{standby("a", "0/4", time.Millisecond)}, want: "replica a lags 11s (limit 10s)"},
		},
		"old figure": {
			{at: 0, flushed: 4, replicas: []replica{standby("a", "0/1", time.Minute)}, want: "replica a lags 1m0s (limit 10s)"},
			{at: 1, flushed: 9, replicas: []replica{standby("a", "0/4", time.Minute)}},
		},
		"no figure, seen before": {
			{at: 0, flushed: 4, replicas: []replica{standby("a", "0/4")}},
			{at: 100, flushed: 4, replicas: []replica{standby("a", "0/4")}},
			{at: 101, flushed: 9, replicas: []replica{standby("a", "0/4")}},
			{at: 110, flushed: 9, replicas: []replica{standby("a", "0/4")}},
			{at: 111, flushed: 9, replicas: []replica{standby("a", "0/4")}, want: "replica a lags 11s (limit 10s)"},
			{at: 112, flushed: 9, replicas: []replica{standby("a", "0/9")}},
		},
		"gone": {
			{flushed: 9, replicas: []replica{standby("a", "0/9"), standby("b", "0/9"), standby("b", "0/9"), archiver}},
			{flushed: 9, replicas: []replica{standby("b", "0/1", time.Minute)}, want: "replica b lags 1m0s (limit 10s)",
				gone: []string{"replica a", "replica b"}},
			{flushed: 9, gone: []string{"replica b"}},
			{flushed: 9, replicas: []replica{standby("a", "0/9")}},
		},
		"not a position": {{flushed: 9, replicas: []replica{standby("a", "nine")}, err: true}},
	}
}

func TestJudgeReplicas(t *testing.T) {
	t.Parallel()
	for name, steps := range judged() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := newReplicaLag(nil, 10*time.Second, nil)
			for i, s := range steps {
				reason, gone, err := source.judge(time.Unix(int64(s.at), 0), s.flushed, s.replicas)
				if reason != s.want || (err != nil) != s.err || len(gone) != len(s.gone) {
					t.Fatalf("check %d: %q, gone %q, error %v; want %q, gone %q", i, reason, gone, err, s.want, s.gone)
				}
				for j := range gone {
					if gone[j] != s.gone[j] {
						t.Errorf("check %d: gone %q, want %q", i, gone, s.gone)
					}
				}
			}
		})
	}
}

func TestRightsError(t *testing.T) {
	t.Parallel()
	source := newReplicaLag(nil, time.Second, nil)
	_, _, err := source.judge(time.Now(), 9, []replica{standby("ok", "0/9"), {Name: "a", Hidden: true, Viewer: "weak"}})
	var rights *RightsError
	if !errors.As(err, &rights) || rights.Role != "weak" || rights.Hidden != "the lag of replica a" {
		t.Errorf("got %v", err)
	}
}
