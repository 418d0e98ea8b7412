package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pgshadow/pgshadow/test/bench/alter"
)

// rehearsed is a rehearsal and the run that followed it, on a table of so many rows.
type rehearsed struct {
	rows            int
	rehearsal, real alter.Result
}

// measureRehearsals compares what a rehearsal says with the run that follows, on tables of several sizes, and what the
// smaller ones say of the largest.
func measureRehearsals(ctx context.Context, b *bench) error {
	sizes, err := numbers(b.rehearseRows)
	if err != nil {
		return err
	}
	load := "no load"
	if b.loaded {
		load = fmt.Sprintf("%d clients, %d transactions/s", clients, b.rate)
	}
	b.heading("rehearse: %s rows, %s", b.rehearseRows, load)
	largest := sizes[len(sizes)-1]
	var all []rehearsed
	t := newSheet("rows", "estimate s", "run s", "ratio %", "hold ms", "of it COMMIT", "run's hold ms", "ratio %", "shadow MB", "WAL MB")
	for _, rows := range sizes {
		pair, err := b.rehearseAndRun(ctx, rows, largest)
		if err != nil {
			return err
		}
		all = append(all, pair)
		estimate, said, was := pair.rehearsal.Rehearsal.Estimate, pair.rehearsal.Cutover, pair.real.Cutover
		seconds := float64(estimate.DurationMS) / 1000
		t.add(grouped(int64(rows)), seconds, float64(pair.real.DurationMS)/1000, percent(seconds*1000, float64(pair.real.DurationMS)),
			said.LockHoldMS, said.CommitMS, was.LockHoldMS, percent(said.LockHoldMS, was.LockHoldMS), megas(estimate.ShadowBytes), megas(estimate.WALBytes))
		b.note("%s rows: rehearsal: %s; run: %s", grouped(int64(rows)), phaseList(pair.rehearsal.Phases), phaseList(pair.real.Phases))
	}
	b.printf("%s\nratio: of what the rehearsal says to the run that followed.\n\n", t)
	scaled := newSheet("rehearsed", "scaled to "+grouped(int64(largest))+", s", "its run s", "ratio %")
	for _, pair := range all {
		said, was := float64(pair.rehearsal.Rehearsal.Scaled.DurationMS), float64(all[len(all)-1].real.DurationMS)
		scaled.add(grouped(int64(pair.rows)), said/1000, was/1000, percent(said, was))
	}
	b.printf("%s", scaled)
	return nil
}

// rehearseAndRun goes through the change, and then makes it.
func (b *bench) rehearseAndRun(ctx context.Context, rows, largest int) (pair rehearsed, err error) {
	pair.rows = rows
	if err := b.seed(ctx, rows); err != nil {
		return pair, err
	}
	if b.loaded {
		load, err := b.traffic(rows)
		if err != nil {
			return pair, err
		}
		defer func() { err = errors.Join(err, load.interrupt()) }()
	}
	command := b.command(&runLog{})
	command.Name, command.Args = "rehearse", append(command.Args, "--scale-to", strconv.Itoa(largest))
	if pair.rehearsal, err = command.Run(ctx); err != nil {
		return pair, err
	}
	if err := b.freshen(ctx); err != nil {
		return pair, err
	}
	pair.real, err = b.command(&runLog{}).Run(ctx)
	return pair, err
}

func numbers(list string) (all []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: want numbers of rows, with commas between them", list)
		}
		all = append(all, n)
	}
	return all, nil
}

func percent(of, whole float64) float64 { return 100 * of / whole }

func megas(bytes int64) float64 { return float64(bytes) / (1 << 20) }
