package fault

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// point is an event at which a fault happens, and what is there to be broken.
type point struct {
	name  string // of the event, and which of them
	stage stage  // what brings the event about
	has   has
	// worker is the session that does the work there, as the end of its
	// application_name in a LIKE pattern; empty: only the control session.
	worker string
	native bool // of a change without a copy
}

// has says what exists at a point.
type has int

const (
	nothing has = 0
	record  has = 1 << iota // the run is recorded: it can be taken up again
	slot                    // there is a slot
	stream                  // and a walsender that uses it
	copied                  // and rows in the shadow: a slot that is lost must be healed
	swapped                 // the swap, or the last step, is committed
)

// flowing is what there is while the phases from copy to cutover run.
const flowing = begun | copied

// begun is what there is when the stream flows and nothing is copied yet.
const begun = record | slot | stream

func points() []point {
	return []point{
		{name: "phase_started:preflight#1"},
		{name: "phase_finished:preflight#1"},
		{name: "phase_started:prepare#1"},
		{name: "run_started#1", has: record},
		{name: "waiting#1", stage: openTransaction, has: record, worker: "slot"},
		{name: "phase_finished:prepare#1", has: record | slot},
		{name: "phase_started:copy#1", has: begun, worker: "replay"},
		{name: "throttled#1", stage: throttleCopy, has: begun, worker: "copy _"},
		{name: "throttled#2", stage: throttleOver, has: begun, worker: "checkpoint"},
		{name: "chunk_copied#1", has: flowing, worker: "copy _"},
		{name: "chunk_copied#3", has: flowing, worker: "copy _"},
		{name: "phase_finished:copy#1", has: flowing, worker: "checkpoint"},
		{name: "phase_started:index#1", has: flowing, worker: "replay"},
		{name: "phase_finished:index#1", has: flowing, worker: "watch"},
		{name: "phase_started:catch_up#1", has: flowing, worker: "replay"},
		{name: "phase_finished:catch_up#1", has: flowing, worker: "checkpoint"},
		{name: "phase_started:verify#1", has: flowing, worker: "replay"},
		{name: "progressed:verify#1", stage: throttleVerify, has: flowing, worker: "verify _"},
		{name: "steered#1", stage: steer, has: flowing, worker: "steer"},
		{name: "restarted#1", stage: truncate, has: flowing, worker: "replay"},
		{name: "phase_finished:verify#1", has: flowing, worker: "checkpoint"},
		{name: "phase_started:cutover#1", has: flowing, worker: "replay"},
		{name: "attempt_failed#1", stage: holdLock, has: flowing, worker: "cutover"},
		{name: "swapped#1", has: flowing | swapped, worker: "replay"},
		{name: "phase_finished:cutover#1", has: flowing | swapped, worker: "checkpoint"},
		{name: "phase_started:clean_up#1", has: record | slot | swapped},
		{name: "phase_finished:clean_up#1", has: record | swapped},
		{name: "phase_started:native#1", native: true},
		{name: "step_started#1", native: true, has: record}, // a column, with its check
		{name: "step_started#3", native: true, has: record}, // its validation
		{name: "step_started#4", native: true, has: record}, // CREATE INDEX CONCURRENTLY
		{name: "step_started#5", native: true, has: record}, // the constraint
		{name: "phase_finished:native#1", native: true, has: record | swapped},
		{name: "noted#1", stage: loseSlot, has: record},                    // the slot is gone
		{name: "noted#2", stage: loseSlot, has: flowing, worker: "replay"}, // the comparison has found what it missed
	}
}

// stage is what brings an event about that does not come by itself.
type stage int

const (
	byItself        stage = iota
	openTransaction       // one that the slot has to wait for
	throttleCopy          // the throttle file is there from the start
	throttleOver          // and goes
	throttleVerify        // the throttle file comes in phase verify, which waits until the second's progress is told
	steer                 // the operator sets something in phase verify
	truncate              // the original is truncated in phase verify
	holdLock              // a session holds a lock on the original during the first attempt
	loseSlot              // an earlier process was killed in phase index, and the slot is lost
)

// neverEntered are phases without events: the mark in the checkpoint of a run that is over.
var neverEntered = []migration.Phase{migration.Ended}

// ofRehearsals are events that no run has which changes a table: a rehearsal goes through the same points otherwise.
var ofRehearsals = []string{"Rehearsed"}

// TestEveryEventIsAPoint has no event, and no phase, forgotten.
func TestEveryEventIsAPoint(t *testing.T) {
	t.Parallel()
	var names []string
	for _, p := range points() {
		name, _, _ := strings.Cut(p.name, "#")
		names = append(names, name)
	}
	require := func(name string) {
		if !slices.ContainsFunc(names, func(n string) bool { return n == name || strings.HasPrefix(n, name+":") }) {
			t.Errorf("no fault happens at %s", name)
		}
	}
	events := eventTypes(t)
	if len(events) < 11 {
		t.Errorf("only %v were found", events)
	}
	for _, typeName := range events {
		if slices.Contains(ofRehearsals, typeName) {
			continue
		}
		require(pointName(typeName))
	}
	for phase := migration.Preflight; !strings.HasPrefix(phase.String(), "phase "); phase++ {
		if slices.Contains(neverEntered, phase) {
			continue
		}
		require(eventName(migration.PhaseStarted{Phase: phase}))
		require(eventName(migration.PhaseFinished{Phase: phase}))
	}
}

// eventTypes are the types that implement migration.Event.
func eventTypes(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../pkg/migration/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, declaration := range file.Decls {
		if method, ok := declaration.(*ast.FuncDecl); ok && method.Recv != nil && method.Name.Name == "event" {
			if receiver, ok := method.Recv.List[0].Type.(*ast.Ident); ok {
				names = append(names, receiver.Name)
			}
		}
	}
	return names
}
