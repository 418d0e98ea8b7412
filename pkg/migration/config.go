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

// NativeMode says when PostgreSQL's own ALTER TABLE makes the change.
type NativeMode string

// The values of --native.
const (
	NativeAuto  NativeMode = "auto"  // when it reads no row under a lock that keeps others out
	NativeNever NativeMode = "never" // always with a shadow
	NativeOnly  NativeMode = "only"  // or not at all
)

// MatViews says what becomes of materialized views of the table.
type MatViews string

// The ways.
const (
	RefuseMatViews   MatViews = "refuse"
	RecreateMatViews MatViews = "recreate" // empty at the swap, refreshed after it
)

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
	// Expect is a plan of the same change: it is refused when the table has changed since.
	Expect *PlanReport
	// AllowLossy lets a change lose something of values: see shadow.Loss.
	AllowLossy bool
	Native     NativeMode // default never: always with a shadow
	// MatViews are refused by default.
	MatViews MatViews
	// Rehearsal makes the run a rehearsal: its swap is rolled back, and then everything
	// that it made is removed. Default: none, the table is changed.
	Rehearsal *Rehearsal
	// MaxWALRetained is how many bytes of WAL the slot may hold back before the run
	// is aborted; default 50 GB. It never exceeds nine tenths of
	// max_slot_wal_keep_size, at which the server takes the slot away.
	MaxWALRetained int64
	// ReconnectFor is how long a run that has lost its connection tries to be taken
	// up again before it stops, resumable; default 5 min.
	ReconnectFor time.Duration

	Throttle throttle.Config
	Parse    ParseFunc // default: shadow.Parse in this process
	Observer Observer  // default: nobody

	convergeWindow time.Duration // for how long a backlog must not have shrunk to be told of; default 30 s
}

// MaxWorkers bounds every kind of worker.
const MaxWorkers = 32

// CopyConfig says how the rows get into the shadow.
type CopyConfig struct {
	Workers      int           // sessions that copy and verify; default 2
	IndexWorkers int           // sessions that build indexes; default 2
	ChunkTime    time.Duration // target time of one chunk; default 500 ms
	DirtyMemory  int           // bytes that dirty keys may take before the stream waits; default 32 MB
}

// CutoverMode says who decides when the swap is tried.
type CutoverMode string

// The values of --cutover.
const (
	CutoverAuto   CutoverMode = "auto"   // as soon as the tables are verified
	CutoverManual CutoverMode = "manual" // once the operator says pgshadow cutover
)

// CutoverConfig says how the swap is tried.
type CutoverConfig struct {
	Mode        CutoverMode   // default auto
	LockTimeout time.Duration // wait for the lock; default 500 ms
	MaxLockHold time.Duration // then ROLLBACK; default 1 s
	Attempts    int           // default 60
	// CompareEvery is the least time between two comparisons of the tables while the
	// cutover waits for the operator; default 1 min.
	CompareEvery time.Duration
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
	setDefault(&c.Cutover.Mode, CutoverAuto)
	setDefault(&c.Cutover.CompareEvery, time.Minute)
	setDefault(&c.MaxWALRetained, 50<<30)
	setDefault(&c.Verify, verify.Full)
	setDefault(&c.Retire, Keep)
	setDefault(&c.Native, NativeNever)
	setDefault(&c.MatViews, RefuseMatViews)
	setDefault(&c.ReconnectFor, 5*time.Minute)
	setDefault(&c.convergeWindow, convergeWindow)
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
	var problems problems
	problems.add(strings.TrimSpace(c.Table) == "", "table is missing: say which with --table [schema.]name")
	problems.add(len(c.Alters) == 0, "alter is missing: say what to change with --alter \"...\"")
	problems.add(slices.ContainsFunc(c.Alters, func(text string) bool { return strings.TrimSpace(text) == "" }), "alter is empty")
	problems.add(c.ReconnectFor < 0, "reconnect-for is %s: want more than zero", c.ReconnectFor)
	return errors.Join(append(problems, c.validateTuning())...)
}

// validateTuning is the part of Validate that the flags answer for which may be
// set while the run is on.
func (c Config) validateTuning() error {
	var problems problems
	problems.add(c.Copy.Workers < 0 || c.Copy.Workers > MaxWorkers, "copy-workers is %d: want 1 to %d", c.Copy.Workers, MaxWorkers)
	problems.add(c.Copy.IndexWorkers < 0 || c.Copy.IndexWorkers > MaxWorkers, "index-workers is %d: want 1 to %d", c.Copy.IndexWorkers, MaxWorkers)
	problems.add(c.Copy.ChunkTime < 0 || c.Copy.ChunkTime > time.Minute, "chunk-time is %s: want more than zero and at most 1m", c.Copy.ChunkTime)
	problems.add(c.Cutover.LockTimeout < 0, "lock-timeout is %s: want more than zero", c.Cutover.LockTimeout)
	problems.add(c.Cutover.MaxLockHold < 0, "max-lock-hold is %s: want more than zero", c.Cutover.MaxLockHold)
	problems.add(c.Cutover.Attempts < 0, "cutover-attempts is %d: want at least 1", c.Cutover.Attempts)
	problems.add(!slices.Contains([]CutoverMode{"", CutoverAuto, CutoverManual}, c.Cutover.Mode), "cutover is %q: want auto or manual", c.Cutover.Mode)
	problems.add(c.MaxWALRetained < 0, "max-wal-retained is %d: want more than zero", c.MaxWALRetained)
	problems.add(!slices.Contains([]verify.Mode{"", verify.Full, verify.Sample, verify.Off}, c.Verify), "verify is %q: want full, sample or off", c.Verify)
	problems.add(!slices.Contains([]MatViews{"", RefuseMatViews, RecreateMatViews}, c.MatViews), "matviews is %q: want refuse or recreate", c.MatViews)
	problems.add(!slices.Contains([]NativeMode{"", NativeAuto, NativeNever, NativeOnly}, c.Native), "native is %q: want auto, never or only", c.Native)
	problems.add(!slices.Contains([]Retire{"", Keep, Drop}, c.Retire), "retire is %q: want keep or drop", c.Retire)
	return errors.Join(append(problems, c.Throttle.Validate())...)
}

// problems are what is wrong with a configuration.
type problems []error

func (p *problems) add(wrong bool, format string, args ...any) {
	if wrong {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}
