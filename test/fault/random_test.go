package fault

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

const (
	// perRun is how often one run is broken.
	perRun = 3
	// longest is the latest moment of a kill, from the first event on: about as long as a run takes.
	longest = 1500 * time.Millisecond
	// randomRate has replay always some keys behind.
	randomRate = 1000
)

// seed of the random moments: a new one each time, or that of seedEnv. It is printed.
func seed(t *testing.T, what string) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("reading %s: %v", seedEnv, err)
		}
	}
	fmt.Printf("%s: %s=%d\n", what, seedEnv, seed)
	return seed
}

// What comes at random moments.
const (
	kills        = "kill -9 at a random moment"
	crashes      = "server stopped with immediate at a random moment"
	terminations = "session terminated at a random moment"
)

// TestRandomKills kills the process of a run at random moments, under load, again and again; the run ends well.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	randomly(t, kills, func(t *testing.T, random *rand.Rand) {
		for struck := 0; struck < perRun; {
			c := newRandom(t, fault{name: kills}, nil)
			for faster := false; struck < perRun && !faster; {
				c.start()
				c.must(c.child.await(c.ctx, lineEvent, "phase_started:preflight#1"))
				if c.moment(random) {
					c.must(c.child.signal(os.Kill))
				}
				c.must(c.child.wait(c.ctx))
				if faster = c.child.report != nil; faster {
					c.gone()
					c.truthful(*c.child.report)
				} else {
					c.judge()
					tally.struck(kills)
					struck++
				}
				faster = faster || c.swapped()
			}
			c.conclude("")
		}
	})
}

// TestRandomCrashes stops the server with immediate at random moments, under load.
func TestRandomCrashes(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	random := rand.New(rand.NewPCG(seed(t, crashes), 0))
	for struck, want := 0, times(1, 10); struck < want; {
		c := newRandom(t, fault{name: serverStopped, ends: recovered}, server)
		c.start()
		c.must(c.child.await(c.ctx, lineEvent, "run_started#1"))
		if c.moment(random) {
			c.must(server.Stop(pgserver.Immediate))
			c.mend()
			tally.struck(crashes)
			struck++
		}
		c.must(c.child.wait(c.ctx))
		c.judge()
		c.conclude("")
	}
}

// TestRandomTerminations ends sessions of a run, any of them, at random moments, under load; the run recovers.
func TestRandomTerminations(t *testing.T) {
	t.Parallel()
	randomly(t, terminations, func(t *testing.T, random *rand.Rand) {
		c := newRandom(t, fault{name: terminations, ends: recovered}, nil)
		c.start()
		c.must(c.child.await(c.ctx, lineEvent, "run_started#1"))
		for struck := 0; struck < perRun && c.moment(random); {
			var ended []string
			c.must(c.conn.QueryRow(c.ctx, `SELECT array_agg(application_name) FILTER (WHERE pg_terminate_backend(pid)) FROM (
				SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgshadow %'
				ORDER BY md5(pid || $1) LIMIT 1) AS one`, fmt.Sprint(random.Uint64())).Scan(&ended))
			c.note(fmt.Sprintf("terminated: %v", ended))
			if len(ended) > 0 {
				tally.struck(terminations)
				struck++
			}
		}
		c.must(c.child.wait(c.ctx))
		c.judge()
		c.conclude("")
	})
}

// randomly breaks some runs side by side.
func randomly(t *testing.T, what string, breakRun func(t *testing.T, random *rand.Rand)) {
	t.Helper()
	first := seed(t, what)
	for i := range uint64(times(1, 10)) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			breakRun(t, rand.New(rand.NewPCG(first, i)))
		})
	}
}

func times(few, many int) int {
	if all() {
		return many
	}
	return few
}

// newRandom is a run without verification: it would mend what is lost.
func newRandom(t *testing.T, f fault, server *pgserver.Server) *combination {
	t.Helper()
	return newCombination(t, pair{fault: f, point: point{name: "no event", has: record}, verify: verify.Off, rate: randomRate}, server)
}

// moment waits for a random one, and tells whether the process has not ended before.
func (c *combination) moment(random *rand.Rand) bool {
	timer := time.NewTimer(time.Duration(random.Int64N(int64(longest))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.child.ended:
		return false
	}
}
