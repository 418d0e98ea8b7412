package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

func TestFirstSignalStopsCleanly(t *testing.T) {
	t.Parallel()
	received := make(chan os.Signal)
	var told []os.Signal
	report, abandoned := supervise(t.Context(), received, func(s os.Signal) { told = append(told, s) },
		func(ctx context.Context) migration.Report {
			received <- syscall.SIGTERM
			<-ctx.Done()
			received <- syscall.SIGHUP // does not count as a second one
			return migration.Report{RunID: "abc"}
		})
	if abandoned || report.RunID != "abc" || len(told) != 1 || told[0] != syscall.SIGTERM {
		t.Errorf("abandoned %t, told %v, report %+v", abandoned, told, report)
	}
}

// One wish may be delivered as several signals: only one that comes later is a second.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		received := make(chan os.Signal, 4)
		began := time.Now()
		go func() {
			received <- os.Interrupt
			received <- os.Interrupt
			<-time.After(secondAfter - time.Millisecond)
			received <- syscall.SIGTERM
			<-time.After(time.Millisecond)
			received <- syscall.SIGTERM
		}()
		_, abandoned := supervise(t.Context(), received, func(os.Signal) {}, func(context.Context) migration.Report {
			<-forever
			return migration.Report{}
		})
		if !abandoned || time.Since(began) != secondAfter {
			t.Errorf("abandoned %t after %s", abandoned, time.Since(began))
		}
	})
}

func TestFinish(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	if err := finish(nil, false, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		defer close(stuck)
		conclude := func() error { <-stuck; return nil }
		began := time.Now()
		if err := finish(nil, true, conclude); err != nil || time.Since(began) != leaveWithin {
			t.Errorf("after an abandoned run: %v after %s", err, time.Since(began))
		}
		began = time.Now()
		received := make(chan os.Signal)
		go func() {
			<-time.After(time.Hour)
			received <- os.Interrupt
		}()
		if err := finish(received, false, conclude); err != nil || time.Since(began) != time.Hour+leaveWithin {
			t.Errorf("after a signal: %v after %s", err, time.Since(began))
		}
	})
}
