package workload

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Stats count what a workload did. A transaction belongs to the phase in which its COMMIT was sent.
type Stats struct {
	// Seed to repeat the run with (as far as the server's timing lets it be repeated).
	Seed int64
	// Kinds that were to run by themselves.
	Kinds []Kind
	// Phases in the order they were entered; the first is [FirstPhase].
	Phases []string
	// Commits of every kind in every phase. For Abort: transactions rolled back as planned.
	Commits map[string]map[Kind]int
	// Columns counts committed UpdateEach by column; the key stands for its other spelling.
	Columns map[string]int
	// Aborts counts transactions the server refused for a reason that is to be expected, by SQLSTATE: unique violation
	// (23505), serialization failure (40001), deadlock (40P01), lock timeout (55P03).
	Aborts map[string]int
	// Misses counts transactions that were given up because no row was found to work on.
	Misses int
	// Reconnects counts connections lost and made again.
	Reconnects int
	// Slowest is the longest time that one turn of a writer took (LongOpen, Big and Truncate apart), from before BEGIN to
	// after COMMIT or a refusal, by the phase it began in: what an application notices of the change, waits for the writers'
	// own locks included.
	Slowest map[string]time.Duration
}

// Total returns the commits of a kind in all phases.
func (s Stats) Total(kind Kind) int {
	n := 0
	for _, kinds := range s.Commits {
		n += kinds[kind]
	}
	return n
}

// InPhase returns the commits of all kinds in a phase.
func (s Stats) InPhase(phase string) int {
	n := 0
	for _, c := range s.Commits[phase] {
		n += c
	}
	return n
}

// String returns a table for a test's log.
func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, misses %d, reconnects %d, aborts %v, updates by column %v", s.Seed, s.Misses, s.Reconnects, s.Aborts, s.Columns)
	for _, phase := range slices.Compact(slices.Sorted(slices.Values(s.Phases))) {
		fmt.Fprintf(&b, "\n%s: %d commits, slowest %v:", phase, s.InPhase(phase), s.Slowest[phase].Round(time.Microsecond))
		for _, kind := range slices.Sorted(maps.Keys(s.Commits[phase])) {
			fmt.Fprintf(&b, " %v %d", kind, s.Commits[phase][kind])
		}
	}
	return b.String()
}

func (s Stats) clone() Stats {
	c := s
	c.Kinds, c.Phases = slices.Clone(s.Kinds), slices.Clone(s.Phases)
	c.Columns, c.Aborts, c.Slowest = maps.Clone(s.Columns), maps.Clone(s.Aborts), maps.Clone(s.Slowest)
	c.Commits = make(map[string]map[Kind]int, len(s.Commits))
	for phase, kinds := range s.Commits {
		c.Commits[phase] = maps.Clone(kinds)
	}
	return c
}

// RequireRan returns an error if any kind that was to run never committed, if UpdateEach left out a column, or if any of
// the named phases had no commit at all: a test that passed without its workload proves nothing.
func RequireRan(s Stats, phases ...string) error {
	var errs []error
	for _, kind := range s.Kinds {
		if s.Total(kind) == 0 {
			errs = append(errs, fmt.Errorf("no %v committed", kind))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Columns)) {
		if s.Columns[name] == 0 {
			errs = append(errs, fmt.Errorf("no UpdateEach of column %q committed", name))
		}
	}
	for _, phase := range phases {
		if s.InPhase(phase) == 0 {
			errs = append(errs, fmt.Errorf("nothing committed in phase %q", phase))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("requiring that the workload ran (seed %d): %w", s.Seed, errors.Join(errs...))
	}
	return nil
}
