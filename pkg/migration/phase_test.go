package migration

import (
	"strings"
	"testing"
)

// TestTransitions holds every pair of phases against the table: each row lists
// what may follow.
func TestTransitions(t *testing.T) {
	want := map[Phase]string{
		Preflight: "prepare native copy index catch_up verify cutover", // a resumed run begins where it was
		Prepare:   "copy",
		Native:    "clean_up",
		Copy:      "copy index", // to itself, and back to it, after a TRUNCATE
		Index:     "copy catch_up",
		CatchUp:   "copy verify",
		Verify:    "copy cutover",
		Cutover:   "copy clean_up",
		CleanUp:   "ended",
		Ended:     "",
	}
	for from := Preflight; from <= Ended; from++ {
		var may []string
		for to := Preflight; to <= Ended; to++ {
			if from.mayFollow(to) {
				may = append(may, to.String())
			}
		}
		if got := strings.Join(may, " "); got != want[from] {
			t.Errorf("after %s may come %q, want %q", from, got, want[from])
		}
	}
	if Phase(99).mayFollow(Copy) || Phase(99).String() != "phase 99" {
		t.Error("there is a phase 99")
	}
}

func TestPhaseNames(t *testing.T) {
	seen := map[string]bool{}
	for p := Preflight; p <= Ended; p++ {
		back, err := parsePhase(p.String())
		if err != nil || back != p || seen[p.String()] {
			t.Errorf("%s comes back as %s, %v", p, back, err)
		}
		seen[p.String()] = true
	}
	for _, name := range []string{"", "Copy", "phase 9", "repair"} {
		if _, err := parsePhase(name); err == nil || !strings.Contains(err.Error(), "a newer pgshadow") {
			t.Errorf("phase %q is read with %v", name, err)
		}
	}
}
