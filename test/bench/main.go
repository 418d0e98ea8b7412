// Command bench measures the real pgshadow on a throwaway server that writes through to disk: what its cutover costs the
// clients, how much memory it takes, how long it needs beside a plain ALTER TABLE, and what a rehearsal says beforehand. It
// prints, and asserts nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// options are the flags.
type options struct {
	only           string
	binary         string
	rate           int
	runs           int
	rows           int
	memoryRows     int
	throughputRows int
	statements     bool
	rehearseRows   string
	loaded         bool
}

// part is something that can be measured by itself, from nothing.
type part struct {
	name    string
	measure func(ctx context.Context, b *bench) error
}

var parts = []part{{"cutover", measureCutover}, {"memory", measureMemory}, {"throughput", measureThroughput},
	{"rehearse", measureRehearsals}}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "cutover,memory,throughput", "the parts to measure")
	flag.StringVar(&o.binary, "binary", "", "the pgshadow to measure (default: build it)")
	flag.IntVar(&o.rate, "rate", 1000, "transactions per second of the load")
	flag.IntVar(&o.runs, "runs", 7, "cutover: number of runs")
	flag.IntVar(&o.rows, "rows", 200_000, "cutover: rows of the table")
	flag.IntVar(&o.memoryRows, "memory-rows", 4_000_000, "memory: rows of the table")
	flag.IntVar(&o.throughputRows, "rows-throughput", 4_000_000, "throughput: rows of the table")
	flag.BoolVar(&o.statements, "statements", false, "cutover: list the statements of the slowest swap, by the server's log (logging costs time too)")
	flag.StringVar(&o.rehearseRows, "rows-rehearse", "200000,800000,3200000", "rehearse: rows of the tables, smallest first")
	flag.BoolVar(&o.loaded, "load", false, "rehearse: with the load")
	flag.Parse()
	chosen, err := choose(o.only)
	if err != nil || flag.NArg() > 0 || min(o.rate, o.runs, o.rows, o.memoryRows, o.throughputRows) < 1 {
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		}
		flag.Usage()
		os.Exit(exitUsage)
	}
	os.Exit(supervise(o, chosen))
}

func choose(only string) ([]part, error) {
	var chosen []part
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no part %q: want cutover, memory, throughput or rehearse", name)
		}
		chosen = append(chosen, parts[i])
	}
	return chosen, nil
}

// supervise measures until it is done or told to stop, and returns the exit code.
func supervise(o options, chosen []part) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process; the server and its files go with it all the same
	err := run(ctx, o, chosen)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: interrupted; the server and its files are gone")
		return exitInterrupted
	default:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return exitFailed
	}
}

func run(ctx context.Context, o options, chosen []part) (err error) {
	b, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	for _, part := range chosen {
		if err := part.measure(ctx, b); err != nil {
			return fmt.Errorf("measuring %s: %w", part.name, err)
		}
	}
	return nil
}
