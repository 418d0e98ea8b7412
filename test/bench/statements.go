package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// logged makes the server log every statement of the sessions of a DSN with its duration.
func logged(dsn string) string { return dsn + "&log_min_duration_statement=0" }

// statement is a line of the server's log, of the session that makes the cutover.
var statement = regexp.MustCompile(`^\S+ (\S+) .* pgshadow\S* \w+ cutover .*duration: ([0-9.]+) ms +(.*)$`)

// printStatements lists what the cutover's session did in the run, with the server's own time for each step.
func (b *bench) printStatements(ctx context.Context, runID string) error {
	file, err := os.Open(filepath.Join(b.dir, "postgres.log"))
	if err != nil {
		return fmt.Errorf("opening the server's log: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && ctx.Err() == nil {
		if found := statement.FindStringSubmatch(lines.Text()); found != nil && strings.Contains(lines.Text(), runID) {
			b.printf("%s %9s ms  %s\n", found[1], found[2], found[3])
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the server's log: %w", err)
	}
	return nil
}
