package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// leaveWithin is how long a process that was told to stop at once goes on saying so.
const leaveWithin = time.Second

// secondAfter is how long after the first signal another one means a second wish. Ctrl-C
// in a wrapper script, kill to a group of processes and GNU timeout deliver one twice.
const secondAfter = time.Second

// stopSignals are those that end a run. A terminal that closes counts, unless
// nohup has said that it does not.
func stopSignals() <-chan os.Signal {
	received := make(chan os.Signal, 4)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(received, syscall.SIGHUP)
	}
	return received
}

// supervise does work. The first signal ends work's context, and stopping is
// told; at the second one, secondAfter later or more, supervise returns without waiting
// for work: abandoned. SIGHUP, which a closing terminal sends several times, only
// counts as a first one. stopping must not block.
func supervise[R any](ctx context.Context, received <-chan os.Signal, stopping func(os.Signal),
	work func(context.Context) R) (result R, abandoned bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	finished := make(chan R, 1)
	go func() { finished <- work(ctx) }()
	var first time.Time
	for {
		select {
		case result = <-finished:
			return result, false
		case which := <-received:
			if ctx.Err() == nil {
				cancel()
				first = time.Now()
				stopping(which)
				continue
			}
			if which == syscall.SIGHUP || time.Since(first) < secondAfter {
				continue
			}
			select {
			case result = <-finished:
				return result, false
			default:
				return result, true
			}
		}
	}
}

// finish calls conclude. After an abandoned run, or at another signal, it does
// not wait long for it: the log or the report may have a reader that is stuck.
func finish(received <-chan os.Signal, abandoned bool, conclude func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- conclude() }()
	var late <-chan time.Time
	if abandoned {
		late = time.After(leaveWithin)
	}
	for {
		select {
		case err := <-ended:
			return err
		case <-late:
			return nil
		case <-received:
			if late == nil {
				late = time.After(leaveWithin)
			}
		}
	}
}
