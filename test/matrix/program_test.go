package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		events, line, says string
	}{
		"all pass": {`{"Action":"run","Package":"p","Test":"A"}
			{"Action":"output","Package":"p","Test":"A/x","Output":"quiet\n"}
			{"Action":"pass","Package":"p","Test":"A/x"}
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p"}`, "PostgreSQL 16.14: 2 tests passed (3s)", ""},
		"one fails": {`{"Action":"output","Package":"p","Test":"A","Output":"why\n"}
			{"Action":"output","Package":"p","Test":"B","Output":"quiet\n"}
			{"Action":"fail","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p","Test":"B"}
			{"Action":"skip","Package":"p","Test":"C"}
			{"Action":"fail","Package":"p"}`, "PostgreSQL 16.14: 1 tests passed, 1 failed, 1 skipped (3s)", "--- p A failed:\nwhy\n"},
		"the program breaks": {`{"Action":"output","Package":"p","Output":"panic: x\n"}
			{"Action":"fail","Package":"p"}`, "PostgreSQL 16.14: 0 tests passed, 1 failed (3s)", "--- p  failed:\npanic: x\n"},
	} {
		var out strings.Builder
		got, err := count(strings.NewReader(c.events), &out)
		if err != nil || got.line("16.14", 3*time.Second) != c.line || out.String() != c.says {
			t.Errorf("%s: %s, %v; it says %q", name, got.line("16.14", 3*time.Second), err, out.String())
		}
	}
	if _, err := count(strings.NewReader("{"), nil); err == nil {
		t.Error("half a line is no error")
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	all := []string{"TestA", "TestVerdicts", "TestB", "TestC", "TestD"}
	if got := whole.take(all); !slices.Equal(got, all) {
		t.Errorf("the whole is %v", got)
	}
	first, second := share{at: 0, of: 2}.take(all), share{at: 1, of: 2}.take(all)
	if !slices.Equal(first, []string{"TestA", "TestVerdicts", "TestB", "TestD"}) || !slices.Equal(second, []string{"TestVerdicts", "TestC"}) {
		t.Errorf("the shares are %v and %v", first, second)
	}
}
