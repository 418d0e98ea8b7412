package main

import (
	"context"
	"time"
)

// measureThroughput compares a run without load with PostgreSQL's own ALTER TABLE, which keeps everybody out.
func measureThroughput(ctx context.Context, b *bench) error {
	b.heading("throughput: %s rows, no load", grouped(int64(b.throughputRows)))
	if err := b.seed(ctx, b.throughputRows); err != nil {
		return err
	}
	offline, err := b.offline(ctx, change)
	if err != nil {
		return err
	}
	back, err := b.offline(ctx, undo)
	if err != nil {
		return err
	}
	if err := b.freshen(ctx); err != nil {
		return err
	}
	result, err := b.command(&runLog{}).Run(ctx)
	if err != nil {
		return err
	}
	b.printf("offline ALTER TABLE             %s (and back: %s)\n", seconds(offline), seconds(back))
	b.printf("pgshadow alter                  %s, %.2f times as long\n", seconds(result.Elapsed), result.Elapsed.Seconds()/offline.Seconds())
	b.printf("without verification            %.2f times as long\n", (result.Elapsed-phaseTime(result.Phases, "verify")).Seconds()/offline.Seconds())
	b.printf("phases                          %s\n", phaseList(result.Phases))
	return nil
}

// offline makes a change the way that blocks, and returns how long it took.
func (b *bench) offline(ctx context.Context, change string) (time.Duration, error) {
	if err := b.freshen(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	err := b.exec(ctx, "ALTER TABLE "+table+" "+change)
	return time.Since(began), err
}
