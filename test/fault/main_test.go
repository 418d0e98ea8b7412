// Package fault breaks runs at every point that an observer can see, in every way that a server, a network or an operator
// can, and shows that each is told truly, and then resumes or is cleaned up.
//
// A run under test is a process of its own: this test binary, started again. Its observer tells every event and stops at
// those it was told to, so that a fault happens exactly there.
package fault

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
)

const (
	// childEnv holds the task of a process that is to be broken.
	childEnv = "PGSHADOW_FAULT_CHILD"
	// allEnv asks for all combinations when it is "all".
	allEnv = "PGSHADOW_FAULTS"
	// seedEnv repeats the random kills of another time.
	seedEnv = "PGSHADOW_FAULTS_SEED"
	// lanes is how many runs are broken at the same time; they mostly wait.
	lanes = "6"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(runChild(text))
	}
	if err := flag.Set("test.parallel", lanes); err != nil {
		panic(err)
	}
	code := m.Run()
	fmt.Println(tally.summary(code == 0))
	os.Exit(code)
}

func all() bool { return os.Getenv(allEnv) == "all" }

// count is what has been done.
type count struct {
	mu             sync.Mutex
	combinations   int
	points, faults map[string]bool
	random         map[string]int // kills, and what else came at random moments
	ends           map[string]int // how the broken processes ended
}

var tally = count{points: map[string]bool{}, faults: map[string]bool{}, ends: map[string]int{}, random: map[string]int{}}

func (c *count) combination(point, fault string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.combinations++
	c.points[point], c.faults[fault] = true, true
}

func (c *count) end(how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[how]++
}

func (c *count) struck(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.random[what]++
}

func (c *count) summary(passed bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	verdict := "all passed"
	if !passed {
		verdict = "NOT all passed"
	}
	return fmt.Sprintf("broken runs ended %v\nfault suite: %d combinations of %d points and %d faults, %d random kills, %d random server stops, %d sessions terminated at random: %s",
		c.ends, c.combinations, len(c.points), len(c.faults), c.random[kills], c.random[crashes], c.random[terminations], verdict)
}
