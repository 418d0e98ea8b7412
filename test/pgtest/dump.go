package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Dump is the schema of the database as text, without the schemas pgshadow* and what changes from one dump to the next,
// so two databases of one server are alike when their dumps are equal. It is what pg_dump --schema-only prints, with more
// arguments if given; where there is no pg_dump of the server's version or a later one, it is what the catalogs hold, and
// the one argument is --no-publications.
func Dump(t testing.TB, db *DB, args ...string) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	all := append([]string{"--schema-only", "--exclude-schema=pgshadow*", "--dbname=" + db.DSN}, args...)
	text, err := db.source.pgDump(ctx, all...)
	if errors.Is(err, errNoDump) {
		text, err = catalogs(ctx, db.DSN, args...)
	}
	if err != nil {
		t.Fatalf("dumping test database %s: %v", db.Name, err)
	}
	return withoutVolatile(text)
}

// errNoDump says that there is no pg_dump that can read the server.
var errNoDump = errors.New("there is no pg_dump for the server's version")

// installedDump runs the pg_dump beside the server's programs, else the one in PATH. The error is errNoDump when that
// is missing or older than the server.
func installedDump(binDir, dsn string) dumper {
	return func(ctx context.Context, args ...string) (string, error) {
		program := filepath.Join(binDir, "pg_dump")
		if _, err := os.Stat(program); binDir == "" || err != nil {
			program = "pg_dump"
		}
		if able, err := canDump(ctx, program, dsn); err != nil {
			return "", err
		} else if !able {
			return "", errNoDump
		}
		var complaint strings.Builder
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stderr = &complaint
		output, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("running pg_dump: %w: %s", err, complaint.String())
		}
		return string(output), nil
	}
}

var dumpVersion = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// canDump tells whether the program is there, and of the server's major version or a later one.
func canDump(ctx context.Context, program, dsn string) (bool, error) {
	about, err := exec.CommandContext(ctx, program, "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking pg_dump for its version: %w", err)
	}
	found := dumpVersion.FindSubmatch(about)
	if found == nil {
		return false, fmt.Errorf("asking pg_dump for its version: it says %q", about)
	}
	programs, err := strconv.Atoi(string(found[1]))
	if err != nil {
		return false, fmt.Errorf("reading pg_dump's version: %w", err)
	}
	var servers int
	err = session(ctx, dsn, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&servers)
	})
	return programs >= servers, err
}

var volatile = []string{
	`\restrict `,
	`\unrestrict `,
	"-- Dumped from database version ",
	"-- Dumped by pg_dump version ",
}

func withoutVolatile(dump string) string {
	var kept strings.Builder
	var labels []string // of one object: pg_dump prints them in any order
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "SECURITY LABEL FOR ") {
			labels = append(labels, line)
			continue
		}
		kept.WriteString(inOrder(labels))
		labels = nil
		if !hasAnyPrefix(line, volatile) {
			kept.WriteString(line)
		}
	}
	return kept.String() + inOrder(labels)
}

func inOrder(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func hasAnyPrefix(line string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
