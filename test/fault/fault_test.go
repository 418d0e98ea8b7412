package fault

import (
	"testing"

	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// TestFaults breaks a run at every point in every way, or in the few combinations of every day.
func TestFaults(t *testing.T) {
	t.Parallel()
	chosen := few()
	if all() {
		chosen = pairs()
	}
	var shared, alone []pair
	for _, p := range chosen {
		if p.alone() {
			alone = append(alone, p)
		} else {
			shared = append(shared, p)
		}
	}
	t.Run("on a server of their own", func(t *testing.T) {
		t.Parallel()
		server := pgtest.NewServer(t, pgserver.Options{})
		for _, p := range alone {
			t.Run(p.String(), func(t *testing.T) { newCombination(t, p, server).run() })
		}
	})
	for _, p := range shared {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			newCombination(t, p, nil).run()
		})
	}
}
