package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// The lines of pgshadow's log that are looked for.
const (
	phaseStarted = "phase started"
	swapped      = "swapped"
)

// runLog reads pgshadow's log as it is written, and notes when what happened. Its times are those of a line's arrival.
type runLog struct {
	mu     sync.Mutex
	line   []byte
	starts []start
	swap   time.Time
}

// start is the beginning of a phase.
type start struct {
	phase string
	at    time.Time
}

// Write implements io.Writer.
func (l *runLog) Write(text []byte) (int, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = append(l.line, text...)
	for {
		line, rest, whole := bytes.Cut(l.line, []byte("\n"))
		if !whole {
			return len(text), nil
		}
		l.line = rest
		var event struct{ Message, Phase string }
		if json.Unmarshal(line, &event) != nil {
			continue
		}
		switch event.Message {
		case phaseStarted:
			l.starts = append(l.starts, start{event.Phase, now})
		case swapped:
			l.swap = now
		}
	}
}

// swapped is when the cutover's COMMIT was known.
func (l *runLog) swapped() (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.swap.IsZero() {
		return l.swap, fmt.Errorf("reading pgshadow's log: it has no line %q", swapped)
	}
	return l.swap, nil
}

// phases are those that began, in their order.
func (l *runLog) phases() []start {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.starts
}
