// Command matrix runs the tests that touch a server on every version of PostgreSQL that pgshadow supports: the whole
// end-to-end suite, and the packages whose work differs between versions. It prints a line for each version, the output
// of each test that failed, and exits with 1 if any did.
//
// How far it is goes to standard error. It runs at the top of the repository, with the flags -parallel (tests side by
// side, as of go test), -versions, and -brief, which is for a machine that has just run make test: it leaves out the
// version that was on, and the versions between the oldest and the newest share the end-to-end tests among them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

// everywhere are the packages whose tests run on the one server of PGSHADOW_TEST_PGBIN, the longest first.
var everywhere = []string{"./test/e2e", "./cutover", "./copier", "./replication", "./replication/replay", "./pkg/pg", "./pkg/schema", "./pkg/shadow",
	"./pkg/keyset", "./pkg/verify", "./pkg/throttle", "./pkg/migration"}

// perVersion is the package whose tests start the servers they need, and have a subtest for each.
const perVersion = "./test/versions"

func main() {
	parallel := flag.Int("parallel", 8, "tests side by side")
	versions := flag.String("versions", strings.Trim(fmt.Sprint(pgserver.Versions), "[]"), "major versions, separated by spaces")
	brief := flag.Bool("brief", false, "after make test: leave out the version that it ran on, and share the end-to-end tests among those between the oldest and the newest")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	majors := strings.Fields(*versions)
	var err error
	if *brief {
		majors, err = withoutTested(ctx, majors)
	}
	failed := false
	if err == nil {
		failed, err = run(ctx, *parallel, majors, *brief)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// withoutTested takes out the version of the server programs that tests find by themselves.
func withoutTested(ctx context.Context, majors []string) ([]string, error) {
	binDir, err := pgserver.Find()
	if err != nil {
		return nil, err
	}
	version, err := exactVersion(ctx, binDir)
	if err != nil {
		return nil, err
	}
	tested, _, _ := strings.Cut(version, ".")
	fmt.Printf("PostgreSQL %s: left out, make test has run on it\n", version)
	return slices.DeleteFunc(majors, func(major string) bool { return major == tested }), nil
}

func run(ctx context.Context, parallel int, majors []string, shared bool) (failed bool, err error) {
	dir, err := os.MkdirTemp("", "pgshadow-matrix-")
	if err != nil {
		return false, fmt.Errorf("making a folder for the test programs: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is a temporary folder
	programs, err := build(ctx, dir, append(slices.Clone(everywhere), perVersion))
	if err != nil {
		return false, err
	}
	for i, text := range majors {
		major, err := strconv.Atoi(text)
		if err != nil {
			return failed, fmt.Errorf("reading the versions: %w", err)
		}
		endToEnd := whole
		if shared && i > 0 && i < len(majors)-1 {
			endToEnd = share{at: i - 1, of: len(majors) - 2}
		}
		ok, err := runVersion(ctx, major, parallel, programs, endToEnd)
		if err != nil {
			return failed, err
		}
		failed = failed || !ok
	}
	return failed, nil
}

// runVersion runs every program on one version and prints its line. The first, which takes as long as all others, has a
// lane of its own.
func runVersion(ctx context.Context, major, parallel int, programs []program, endToEnd share) (ok bool, err error) {
	binDir, err := pgserver.FindVersion(major)
	if err != nil {
		return false, err
	}
	began := time.Now()
	var total result
	var mu sync.Mutex
	lane := func(ctx context.Context, programs []program) error {
		for _, p := range programs {
			args := []string{"-test.v=test2json", "-test.timeout=20m", "-test.parallel=" + strconv.Itoa(parallel)}
			switch p.pkg {
			case perVersion:
				args = append(args, fmt.Sprintf("-test.run=/^PostgreSQL_%d$", major))
			case everywhere[0]:
				names, err := p.list(ctx)
				if err != nil {
					return err
				}
				args = append(args, "-test.run=^("+strings.Join(endToEnd.take(names), "|")+")$")
			}
			got, err := p.run(ctx, binDir, args)
			if err != nil {
				return err
			}
			fmt.Fprintln(os.Stderr, p.pkg, "on", got.line(strconv.Itoa(major), time.Since(began)))
			mu.Lock()
			total.add(got)
			mu.Unlock()
		}
		return nil
	}
	lanes, laneCtx := errgroup.WithContext(ctx)
	lanes.Go(func() error { return lane(laneCtx, programs[:1]) })
	lanes.Go(func() error { return lane(laneCtx, programs[1:]) })
	if err := lanes.Wait(); err != nil {
		return false, err
	}
	version, err := exactVersion(ctx, binDir)
	if err != nil {
		return false, err
	}
	fmt.Println(total.line(version, time.Since(began)))
	return total.failed == 0, nil
}

// folder is where a package's tests run, as go test would have it.
func folder(pkg string) string { return filepath.FromSlash(strings.TrimPrefix(pkg, "./")) }
