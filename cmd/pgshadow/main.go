// Command pgshadow changes a table of PostgreSQL while it is being used. It owns
// the flags, the signals, the exit codes, the log and the progress display; what
// a run does is pkg/migration's.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A reader of the log or of the report that has gone must not end a run.
	signal.Ignore(syscall.SIGPIPE)
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv, executable: os.Executable}
	os.Exit(p.run(os.Args))
}
