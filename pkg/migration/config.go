// Package migration owns the flow of one run: its phases and their order, what
// runs side by side, how it resumes, and what is cleaned up. Start with run.go.
package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/throttle"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

// Retire says what becomes of the original after the swap.
type Retire string

// The values of --retire.
const (
	Keep Retire = "keep"
	Drop Retire = "drop"
)

// ParseFunc parses the user's ALTERs: shadow.Parse, or the same in another
// process, which keeps the parser's memory out of this one.
type ParseFunc func(ctx context.Context, table string, alters []string, set map[string]string) (*shadow.Change, error)

// Config of a run.
type Config struct {
	DSN    string            // connection string; empty: libpq's environment variables
	Table  string            // [schema.]name, with SQL's rules for quoting and case
	Alters []string          // what follows ALTER TABLE name; applied in this order
	Set    map[string]string // value of a new column, over the original's columns

	Copy    CopyConfig
	Cutover CutoverConfig
	Verify  verify.Mode // default full
	Retire  Retire      // default keep
	Restart bool        // drop an unfinished run of the table first

	Throttle throttle.Config
	Parse    ParseFunc // default: shadow.Parse in this process
	Observer Observer  // default: nobody
}

// CopyConfig says how the rows get into the shadow.
type CopyConfig struct {
	Workers      int           // sessions that copy and verify; default 2
	IndexWorkers int           // sessions that build indexes; default 2
	ChunkTime    time.Duration // target time of one chunk; default 500 ms
	DirtyMemory  int           // bytes that dirty keys may take before the stream waits; default 32 MB
}

// CutoverConfig says how the swap is tried.
type CutoverConfig struct {
	LockTimeout time.Duration // wait for the lock; default 500 ms
	MaxLockHold time.Duration // then ROLLBACK; default 1 s
	Attempts    int           // default 60
}

// Observer is told what happens, in order, from several goroutines. It must not
// block for long: the run waits for it.
type Observer interface{ Observe(event Event) }

// ObserverFunc makes a function an Observer.
type ObserverFunc func(event Event)

// Observe implements Observer.
func (f ObserverFunc) Observe(event Event) { f(event) }

func (c Config) withDefaults() Config {
	setDefault(&c.Copy.Workers, 2)
	setDefault(&c.Copy.IndexWorkers, 2)
	setDefault(&c.Copy.ChunkTime, 500*time.Millisecond)
	setDefault(&c.Copy.DirtyMemory, 32<<20)
	setDefault(&c.Cutover.LockTimeout, 500*time.Millisecond)
	setDefault(&c.Cutover.MaxLockHold, time.Second)
	setDefault(&c.Cutover.Attempts, 60)
	setDefault(&c.Verify, verify.Full)
	setDefault(&c.Retire, Keep)
	if c.Parse == nil {
		c.Parse = func(_ context.Context, table string, alters []string, set map[string]string) (*shadow.Change, error) {
			return shadow.Parse(table, alters, set)
		}
	}
	if c.Observer == nil {
		c.Observer = ObserverFunc(func(Event) {})
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns all problems of the configuration, joined. Zero values mean
// the defaults and are right.
func (c Config) Validate() error {
	var problems []error
	problem := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	problem(strings.TrimSpace(c.Table) == "", "table is missing: say which with --table [schema.]name")
	problem(len(c.Alters) == 0, "alter is missing: say what to change with --alter \"...\"")
	problem(slices.ContainsFunc(c.Alters, func(text string) bool { return strings.TrimSpace(text) == "" }), "alter is empty")
	problem(c.Copy.Workers < 0 || c.Copy.Workers > 32, "copy-workers is %d: want 1 to 32", c.Copy.Workers)
	problem(c.Copy.IndexWorkers < 0 || c.Copy.IndexWorkers > 32, "index-workers is %d: want 1 to 32", c.Copy.IndexWorkers)
	problem(c.Copy.ChunkTime < 0 || c.Copy.ChunkTime > time.Minute, "chunk-time is %s: want more than zero and at most 1m", c.Copy.ChunkTime)
	problem(c.Cutover.LockTimeout < 0, "lock-timeout is %s: want more than zero", c.Cutover.LockTimeout)
	problem(c.Cutover.MaxLockHold < 0, "max-lock-hold is %s: want more than zero", c.Cutover.MaxLockHold)
	problem(c.Cutover.Attempts < 0, "cutover-attempts is %d: want at least 1", c.Cutover.Attempts)
	problem(!slices.Contains([]verify.Mode{"", verify.Full, verify.Sample, verify.Off}, c.Verify), "verify is %q: want full, sample or off", c.Verify)
	problem(!slices.Contains([]Retire{"", Keep, Drop}, c.Retire), "retire is %q: want keep or drop", c.Retire)
	return errors.Join(append(problems, c.Throttle.Validate())...)
}
