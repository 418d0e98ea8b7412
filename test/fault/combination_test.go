package fault

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgserver"
	"github.com/pgshadow/pgshadow/test/pgtest"
	"github.com/pgshadow/pgshadow/test/proxy"
	"github.com/pgshadow/pgshadow/test/workload"
)

const (
	table = "orders"
	rows  = 2500
	// limit bounds a combination, far above what any takes.
	limit = 8 * time.Minute
	// writes is how many more of one kind of write a step waits for.
	writes = 2
	// away is how long the network stays cut.
	away = 300 * time.Millisecond
	// rate is how many transactions the writers make per second, all together.
	rate         = 200
	pollInterval = 20 * time.Millisecond
)

// alters cannot be done twice: a run that is done must never be taken for one that is not.
var alters = []string{"ALTER COLUMN id TYPE bigint, ADD COLUMN added integer NOT NULL DEFAULT 7"}

// nativeAlters cannot be done twice either. What is made first, and what last, is there at different times.
var nativeAlters = []string{"ADD COLUMN added integer NOT NULL DEFAULT 7 CHECK (added > 0), ADD CONSTRAINT orders_added UNIQUE (id, added)"}

var (
	parsed       = sync.OnceValues(func() (*shadow.Change, error) { return shadow.Parse(table, alters, nil) })
	parsedNative = sync.OnceValues(func() (*shadow.Change, error) { return shadow.Parse(table, nativeAlters, nil) })
)

// combination is one run that is broken at one point in one way.
type combination struct {
	pair
	t     *testing.T
	ctx   context.Context // of one test
	db    *pgtest.DB
	conn  *pgx.Conn // replaced when the server was stopped
	spec  *workload.Spec
	w     *workload.Workload
	proxy *proxy.Proxy
	task  task
	child *process
	held  *pgx.Conn // a session that is in the way, as the stage asks
	oid   uint32    // the original's

	mu    sync.Mutex
	notes []string // what happened, in this process
}

// newCombination makes a table under load. The log of a combination that fails tells what happened.
func newCombination(t *testing.T, p pair, server *pgserver.Server) *combination {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	c := &combination{pair: p, t: t, ctx: ctx, spec: workload.Orders()}
	if server == nil {
		c.db = pgtest.New(t)
	} else {
		c.db = pgtest.NewOn(t, server)
	}
	t.Cleanup(c.tell)
	c.conn = c.db.Conn(t)
	c.must(c.spec.Create(ctx, c.conn, rows, workload.CreateOptions{}))
	_, err := c.conn.Exec(ctx, "CREATE TABLE elsewhere (x integer)")
	c.must(err)
	c.oid = c.tableOID()
	parse := parsed
	if p.point.native {
		parse = parsedNative
	}
	change, err := parse()
	c.must(err)
	c.task = task{DSN: c.db.DSN, Change: change, Native: p.point.native, Verify: p.verify, ThrottleFile: filepath.Join(t.TempDir(), "throttle")}
	c.w, err = workload.Start(ctx, c.db.DSN, c.spec, workload.Options{Writers: 2, Rate: cmp.Or(p.rate, rate), Reconnect: true})
	c.must(err)
	t.Cleanup(func() { // if it was not asked before
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		_, _ = c.w.Stop(stopping)
	})
	return c
}

// start starts a process of the run, in the place of any before.
func (c *combination) start(holds ...string) {
	c.t.Helper()
	if c.child != nil {
		c.note("an earlier process:\n" + c.child.story())
	}
	todo := c.task
	todo.Holds = holds
	var err error
	c.child, err = startChild(todo)
	c.must(err)
	child := c.child
	c.t.Cleanup(func() { _ = child.end() }) // if it has not ended before
}

func (c *combination) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", c.pair, err)
	}
}

func (c *combination) note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, text)
}

// tell prints, after a failure, what happened.
func (c *combination) tell() {
	if !c.t.Failed() {
		return
	}
	if c.child != nil {
		c.t.Logf("%s: the process said:\n%s", c.pair, c.child.story())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Logf("meanwhile, and then, here:\n%s", strings.Join(c.notes, "\n"))
	if server := c.db.Server(); server != nil {
		var lines []string
		for line := range strings.Lines(server.Log()) { // without those of other databases
			if strings.Contains(line, c.db.Name) || !strings.Contains(line, "@test") {
				lines = append(lines, line)
			}
		}
		c.t.Logf("the server's log ends with:\n%s", strings.Join(lines, ""))
	}
}

// poll asks again and again, until the combination's time is over.
func (c *combination) poll(what string, ask func(ctx context.Context) (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		done, err := ask(c.ctx)
		if err != nil {
			return fmt.Errorf("asking for %s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, c.ctx.Err())
		}
	}
}

// written returns when the writers have written more.
func (c *combination) written() {
	c.t.Helper()
	c.must(c.w.AwaitCommits(c.ctx, workload.Insert, writes))
}

// run breaks the run and sees what becomes of it.
func (c *combination) run() {
	c.t.Helper()
	before := ""
	if c.cleanup {
		before = pgtest.Dump(c.t, c.db)
	}
	if c.fault.name == connectionsCut {
		c.proxy, c.task.DSN = proxy.New(c.t, c.db.DSN, proxy.After)
	}
	c.reach()
	c.written()
	c.note("the fault strikes: " + c.String())
	c.fault.strike(c)
	if c.fault.name != serverStopped {
		c.written() // and nobody is there to hear of it
	}
	c.unstage()
	c.must(c.child.tell("free"))
	c.mend()
	c.must(c.child.wait(c.ctx))
	c.judge()
	c.conclude(before)
	tally.combination(c.point.name, c.fault.name)
}

// mend lets come back what was away.
func (c *combination) mend() {
	c.t.Helper()
	switch c.fault.name {
	case connectionsCut:
		timer := time.NewTimer(away)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.child.ended:
		}
		c.proxy.Allow()
	case serverStopped:
		c.must(c.db.Server().Restart(c.ctx))
		c.conn = c.db.Conn(c.t)
	}
}

// reach starts the process and returns when it stands at the point.
func (c *combination) reach() {
	c.t.Helper()
	first := ""
	switch c.point.stage {
	case byItself:
	case openTransaction:
		first = "phase_started:prepare#1"
	case throttleCopy:
		c.throttle()
	case throttleOver:
		c.throttle()
		first = "throttled#1"
	case throttleVerify, steer, truncate:
		first = "phase_started:verify#1"
	case holdLock:
		first = "phase_started:cutover#1"
	case loseSlot:
		c.loseSlot()
	}
	// The barrier keeps the run from going on beside an event of another goroutine.
	barrier := "phase_started:index#1"
	if c.point.stage != throttleOver {
		barrier = ""
	}
	c.start(first, c.point.name, barrier)
	if first != "" {
		c.must(c.child.await(c.ctx, lineHeld, first))
		c.arrange()
		if c.point.stage != steer { // the command reaches the run while its phase is held
			c.must(c.child.tell("go " + first))
		}
	}
	c.must(c.child.await(c.ctx, lineHeld, c.point.name))
}

// arrange does what makes the event come, while the process is held before it.
func (c *combination) arrange() {
	c.t.Helper()
	switch c.point.stage {
	case openTransaction:
		c.hold("INSERT INTO elsewhere VALUES (1)")
	case throttleOver:
		c.must(os.Remove(c.task.ThrottleFile))
	case throttleVerify:
		c.throttle()
		c.must(c.child.await(c.ctx, lineEvent, "throttled#1"))
	case steer:
		c.steer()
	case truncate:
		c.must(c.w.Truncate(c.ctx))
	case holdLock:
		c.hold("LOCK TABLE " + table + " IN ACCESS SHARE MODE")
	case byItself, throttleCopy, loseSlot:
	}
}

// unstage takes out of the way what the stage has put there.
func (c *combination) unstage() {
	c.t.Helper()
	if c.held != nil {
		_ = c.held.Close(c.ctx) // its server may be down
	}
	if err := os.Remove(c.task.ThrottleFile); err != nil && !os.IsNotExist(err) {
		c.must(err)
	}
}

func (c *combination) hold(sql string) {
	c.t.Helper()
	c.held = c.db.Conn(c.t)
	_, err := c.held.Exec(c.ctx, "BEGIN; "+sql)
	c.must(err)
}

func (c *combination) throttle() {
	c.t.Helper()
	c.must(os.WriteFile(c.task.ThrottleFile, nil, 0o600))
}

// steer leaves a command for the run, as pgshadow set does, and does not wait for the answer.
func (c *combination) steer() {
	c.t.Helper()
	var runID string
	c.must(c.conn.QueryRow(c.ctx, "SELECT run_id FROM pgshadow.run WHERE ended_at IS NULL").Scan(&runID))
	_, err := checkpoint.Issue(c.ctx, c.conn, runID, migration.CommandSet, "max-rows-per-second=1000000")
	c.must(err)
}

// loseSlot has an earlier process of the run killed, and what it has not seen yet lost with the slot.
func (c *combination) loseSlot() {
	c.t.Helper()
	c.start("phase_started:index#1")
	c.must(c.child.await(c.ctx, lineHeld, "phase_started:index#1"))
	c.must(c.child.signal(os.Kill))
	c.must(c.child.wait(c.ctx))
	c.dropSlot()
	c.written()
}
