// Command demo changes a table of a throwaway server with the real pgshadow while clients write to it, and proves that
// nothing of what they wrote was lost. It owns the story; the proof is test/workload's.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
	// limit bounds the whole demo, far above what it takes.
	limit = 10 * time.Minute
)

func main() {
	o := options{out: os.Stdout}
	flag.IntVar(&o.rows, "rows", 1_000_000, "rows of the table")
	flag.Float64Var(&o.rate, "rate", 400, "transactions per second of the writers; 0: as many as they can")
	flag.StringVar(&o.binary, "binary", "", "the pgshadow to run (default: build it)")
	flag.Parse()
	if flag.NArg() > 0 || o.rows < 1 || o.rate < 0 {
		flag.Usage()
		os.Exit(exitUsage)
	}
	os.Exit(supervise(o))
}

// supervise runs the demo until it ends or is told to stop, and returns the exit code. What the demo has made is gone
// by then.
func supervise(o options) int {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(interrupted, stop) // a second signal ends the process; the server and its files go with it all the same
	ctx, cancel := context.WithTimeout(interrupted, limit)
	defer cancel()

	err, out := run(ctx, o), page{o.out}
	var notFound *pgserver.NotFoundError
	switch {
	case err == nil:
		return 0
	case interrupted.Err() != nil:
		out.printf("\ndemo: interrupted; the server and its files are gone\n")
		return exitInterrupted
	case errors.As(err, &notFound):
		out.printf("\ndemo: %v\n(the demo starts the programs itself: a server in Docker or named by a DSN will not do)\n", notFound)
	default:
		out.printf("\ndemo: FAILED: %v\n", err)
	}
	return exitFailed
}
