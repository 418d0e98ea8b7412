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
	// killsPerRun is how often the process of one run is killed.
	killsPerRun = 3
	// longest is the latest moment of a kill, from the first event on: about as long as a run takes.
	longest = 1500 * time.Millisecond
	// randomRate has replay always some keys behind.
	randomRate = 1000
)

// seed of the random moments: a new one each time, or that of seedEnv.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedEnv)
	if text == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("reading %s: %v", seedEnv, err)
	}
	return n
}

// TestRandomKills kills the process of a run at random moments, under load, again and again; the run ends well.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	runs := 1
	if all() {
		runs = 10
	}
	first := seed(t)
	fmt.Printf("random kills: %s=%d\n", seedEnv, first)
	for i := range uint64(runs) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(first, i))
			for kills := 0; kills < killsPerRun; {
				kills += randomly(t, fault{name: "kill -9 at random", strike: kill}, nil, random, killsPerRun-kills)
			}
			tally.random(killsPerRun, 0)
		})
	}
}

// TestRandomCrashes stops the server with immediate at random moments, under load.
func TestRandomCrashes(t *testing.T) {
	crashes := 1
	if all() {
		crashes = 10
	}
	first := seed(t)
	fmt.Printf("random crashes: %s=%d\n", seedEnv, first)
	t.Parallel()
	server := pgtest.NewServer(t, pgserver.Options{})
	random := rand.New(rand.NewPCG(first, 0))
	for done := 0; done < crashes; {
		n := randomly(t, fault{name: serverStopped, ends: recovered, strike: crash}, server, random, 1)
		done += n
		tally.random(0, n)
	}
}

func kill(c *combination) { c.must(c.child.signal(os.Kill)) }

func crash(c *combination) { c.must(c.db.Server().Stop(pgserver.Immediate)) }

// randomly breaks one run up to so many times, then lets it end, and returns how often it did: a run that was faster
// than the fault is checked all the same.
func randomly(t *testing.T, f fault, server *pgserver.Server, random *rand.Rand, most int) (struck int) {
	t.Helper()
	c := newCombination(t, pair{fault: f, point: point{name: "a random moment", has: record}, verify: verify.Off, rate: randomRate}, server)
	from := "phase_started:preflight#1"
	if f.ends == recovered {
		from = "run_started#1" // before, there is nothing to take up again
	}
	for struck < most && !c.swapped() {
		c.start()
		c.must(c.child.await(c.ctx, lineEvent, from))
		moment := time.NewTimer(time.Duration(random.Int64N(int64(longest))))
		hit := 0
		select {
		case <-moment.C:
			f.strike(c)
			c.mend()
			hit = 1
		case <-c.child.ended:
			moment.Stop()
		}
		c.must(c.child.wait(c.ctx))
		if f.ends == killed && c.child.report != nil { // it was faster
			c.gone()
			c.truthful(*c.child.report)
			break
		}
		c.judge()
		struck += hit
	}
	c.conclude("")
	return struck
}
