package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgshadow/pgshadow/test/bench/alter"
)

const (
	// warmUp is how long the load runs before pgshadow starts; its second half, as long as what is looked at around the
	// cutover, is what to compare with.
	warmUp = 4 * time.Second
	// around is how long before and after the cutover the clients are looked at.
	around = time.Second
)

// cutoverRun is one run under load.
type cutoverRun struct {
	alter.Result
	before, at window
}

// measureCutover makes the same change again and again under load.
func measureCutover(ctx context.Context, b *bench) error {
	b.heading("cutover: %s rows, %d clients, %d transactions/s, %d runs", grouped(int64(b.rows)), clients, b.rate, b.runs)
	if err := b.seed(ctx, b.rows); err != nil {
		return err
	}
	var slowest cutoverRun
	t := newSheet("run", "seconds", "attempts", "keys", "wait ms", "hold ms", "fence ms", "worst ms", "overdue ms", "gap ms",
		"worst before", "overdue before", "gap before")
	for i := range b.runs {
		if i > 0 {
			if err := b.reset(ctx); err != nil {
				return err
			}
		}
		run, err := b.runUnderLoad(ctx)
		if err != nil {
			return err
		}
		c := run.Cutover
		if c.LockHoldMS > slowest.Cutover.LockHoldMS {
			slowest = run
		}
		b.note("run %d of %d: lock held %.1f ms; %s", i+1, b.runs, c.LockHoldMS, phaseList(run.Phases))
		t.add(fmt.Sprint(i+1), run.Elapsed.Seconds(), float64(c.Attempts), float64(c.Keys), c.LockWaitMS, c.LockHoldMS, c.FenceMS,
			run.at.worst, run.at.overdue, run.at.gap, run.before.worst, run.before.overdue, run.before.gap)
	}
	t.summarize()
	b.printf("%s\n", t)
	b.printf("wait, hold, fence: of the lock, as pgshadow reports them (keys: brought up to date under it).\n"+
		"worst: the longest transaction of a client in the %s before and after the cutover; overdue: counted from when it was\n"+
		"due at this rate, so with what the machine was behind. gap: the longest time without a transaction that finished.\n"+
		"before: the same over %s before pgshadow began.\n", around, 2*around)
	if b.statements {
		return b.printStatements(ctx, slowest.RunID)
	}
	return nil
}

// runUnderLoad makes the change once while pgbench runs.
func (b *bench) runUnderLoad(ctx context.Context) (run cutoverRun, err error) {
	load, err := b.traffic(b.rows)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, load.interrupt()) }()
	if err := pause(ctx, warmUp); err != nil {
		return run, err
	}
	began := time.Now()
	log := &runLog{}
	command := b.command(log)
	if b.statements {
		command.DSN = logged(command.DSN)
	}
	if run.Result, err = command.Run(ctx); err != nil {
		return run, err
	}
	committed, err := log.swapped()
	if err != nil {
		return run, err
	}
	if err := pause(ctx, around); err != nil {
		return run, err
	}
	all, err := load.stop(ctx)
	if err != nil {
		return run, err
	}
	locked := committed.Add(-time.Duration(run.Cutover.LockHoldMS * float64(time.Millisecond)))
	run.before = look(all, began.Add(-2*around), began)
	run.at = look(all, locked.Add(-around), committed.Add(around))
	return run, nil
}
