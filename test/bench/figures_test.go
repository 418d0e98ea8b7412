package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadLatencies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latency.1")
	// client, transaction, microseconds, script, seconds, microseconds, lag; the last line is cut off
	text := "0 1 1500 0 100 250000 500\n3 7 2000 0 101 0 0\n1 2 1700 0 101 5 1"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readLatencies(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []finished{
		{at: time.Unix(100, 250_000_000), took: 1500 * time.Microsecond, ran: time.Millisecond},
		{at: time.Unix(101, 0), took: 2 * time.Millisecond, ran: 2 * time.Millisecond},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("read %v, want %v", got, want)
	}
}

func TestLook(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	all := []finished{
		{at: at(100), took: ms(90), ran: ms(80)}, // over before the span
		{at: at(1010), took: ms(5), ran: ms(4)},
		{at: at(1500), took: ms(300), ran: ms(200)},
		{at: at(2100), took: ms(700), ran: ms(600)}, // open at the end of the span
		{at: at(3000), took: ms(900), ran: ms(900)}, // began after it
	}
	got := look(all, at(1000), at(2000))
	want := window{rate: 2, p99: 600, worst: 600, overdue: 700, gap: 910}
	if got != want {
		t.Errorf("look gives %+v, want %+v", got, want)
	}
}

func TestRunLog(t *testing.T) {
	log := &runLog{}
	for _, piece := range []string{`{"level":"info","phase":"copy","mess`, `age":"phase started"}` + "\n" + "no JSON\n", `{"message":"phase started","phase":"index"}` + "\n"} {
		if _, err := log.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if phases := log.phases(); len(phases) != 2 || phases[0].phase != "copy" || phases[1].phase != "index" {
		t.Errorf("phases are %v", phases)
	}
	if _, err := log.swapped(); err == nil {
		t.Error("there is a swap in a log that has none")
	}
	if _, err := log.Write([]byte(`{"message":"swapped"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if at, err := log.swapped(); err != nil || time.Since(at) > time.Minute {
		t.Errorf("swapped at %s, %v", at, err)
	}
}

func TestStatementLine(t *testing.T) {
	found := statement.FindStringSubmatch("2026-11-23 04:45:45.801 UTC [32463] 00000 postgres@postgres pgshadow hsdeigebox cutover LOG:  duration: 1029.526 ms  statement: commit")
	if len(found) != 4 || found[1] != "04:45:45.801" || found[2] != "1029.526" || found[3] != "statement: commit" {
		t.Errorf("the line is read as %q", found)
	}
}

func TestSheet(t *testing.T) {
	s := newSheet("run", "ms")
	s.add("1", 3)
	s.add("2", 1.25)
	s.summarize()
	want := "run   ms|1    3|2  1.2|median  2.1|min  1.2|max    3"
	got := strings.Join(strings.Fields(s.String()), " ")
	if want = strings.Join(strings.Fields(strings.ReplaceAll(want, "|", " ")), " "); got != want {
		t.Errorf("the table is %q, want %q", got, want)
	}
}
