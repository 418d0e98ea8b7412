package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/workload"
)

// load is what the clients did.
type load struct {
	workload.Stats
	after time.Duration // the time of the phase afterwards
}

// took is how long a phase lasted for the clients. Before it is recorded, a run is in preflight.
func (l load) took(phase string, phases []migration.PhaseDuration) time.Duration {
	switch phase {
	case workload.FirstPhase:
		return warmUp + sum(phases, migration.Preflight.String())
	case afterwards:
		return l.after
	default:
		return sum(phases, phase)
	}
}

func sum(phases []migration.PhaseDuration, name string) time.Duration {
	var all time.Duration
	for _, phase := range phases {
		if phase.Name == name {
			all += time.Duration(phase.DurationMS) * time.Millisecond
		}
	}
	return all
}

// summary counts what was committed. An error that a client must not see would have ended the demo.
func (l load) summary() string {
	commits, collisions := 0, 0
	for phase := range l.Commits {
		commits += l.InPhase(phase)
	}
	for n := range maps.Values(l.Aborts) {
		collisions += n
	}
	text := fmt.Sprintf("%s transactions, no error", grouped(commits))
	if collisions > 0 {
		text += fmt.Sprintf(" (collisions among themselves: %d, %s)", collisions, strings.Join(slices.Sorted(maps.Keys(l.Aborts)), ", "))
	}
	return text
}
