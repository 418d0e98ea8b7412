package cutover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// A table whose rows take two milliseconds each to convert.
const slowRows = `CREATE FUNCTION slow(n int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN n; END';
	CREATE TABLE t (id int PRIMARY KEY, code int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 300) i; CREATE TABLE record (done int)`

var slowChange = shadow.Change{Alters: []string{"ALTER COLUMN id TYPE bigint, ALTER COLUMN code TYPE bigint"},
	Using: map[string]shadow.Expression{"code": {SQL: "slow(o.code)", Columns: []string{"code"}, Functions: []string{"slow"}}}}

// hot has every row of the table dirty whenever replay rests.
type hot struct {
	*rig
	t    *testing.T
	cool bool
}

func (h *hot) Pause(ctx context.Context) error {
	if err := h.rig.Pause(ctx); err != nil || h.cool {
		return err
	}
	h.DB.Exec(h.t, "UPDATE t SET code = code + 1")
	_, err := h.Fence(ctx)
	return err
}

// TestHotRowsThatCannotBeReplayedInTime: the lock is not asked for while what is
// dirty takes longer to replay than it may be held. A reader would be in its way.
func TestHotRowsThatCannotBeReplayedInTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), slowRows, slowChange)
	r.config.MaxHold = time.Second
	h := &hot{rig: r, t: t}
	must(t, h.Pause(t.Context()))
	r.Resume()
	must(t, r.Drain(t.Context())) // so that it is known how fast replay is
	r.fencer = fenceFunc(func(ctx context.Context) (time.Duration, error) {
		_, err := r.Fence(ctx)
		return 0, err // however slow the machine is
	})
	reader := r.open(t, "SELECT * FROM t")
	c := r.cutover(t)
	c.replay = h
	r.onEvent = func(event Event) {
		if event.Attempt == 3 {
			end(t, reader)
			h.cool = true
		}
	}
	report, err := c.Run(t.Context())
	r.requireSwapped(t, err)
	if report.Attempts < 4 || len(r.events) != report.Attempts {
		t.Fatalf("the report is %+v, the events %+v", report, r.events)
	}
	for _, event := range r.events[:3] {
		for _, want := range []string{"replaying the 300 dirty keys would take about ", "more than the 500ms that --max-lock-hold leaves for it",
			"rows of public.t get dirty at ", " and replay manages ", "a longer --max-lock-hold"} {
			if !strings.Contains(event.Reason, want) {
				t.Errorf("attempt %d was given up for %q, want %q in it", event.Attempt, event.Reason, want)
			}
		}
	}
}

// TestHotRowsThatFit are replayed under the lock, in the first attempt.
func TestHotRowsThatFit(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), slowRows, slowChange)
	r.config.MaxHold = 2 * time.Minute
	h := &hot{rig: r, t: t}
	must(t, h.Pause(t.Context()))
	r.Resume()
	must(t, r.Drain(t.Context()))
	c := r.cutover(t)
	c.replay = h
	report, err := c.Run(t.Context())
	r.requireSwapped(t, err)
	if report.Attempts != 1 || report.Keys != 300 {
		t.Errorf("the report is %+v, the events %+v", report, r.events)
	}
}

type paceFunc func(budget time.Duration) error

func (f paceFunc) Fits(budget time.Duration) error { return f(budget) }

// drained stands in for a replay that has nothing to do.
type drained struct{ *rig }

func (drained) Drain(context.Context) error { return nil }

// TestLateSaysThatReplayIsTooSlow: when replay is not done in time, or a fence is
// late, the pace of replay is the reason that can be acted upon.
func TestLateSaysThatReplayIsTooSlow(t *testing.T) {
	tooSlow := errors.New("replay is too slow")
	for want, arrange := range map[string]func(r *rig, c *Cutover){
		"replay did not catch up within 50ms: replay is too slow": func(r *rig, c *Cutover) {
			must(t, r.Pause(t.Context())) // it never will
			r.DB.Exec(t, "UPDATE t SET code = code + 1")
		},
		"no fence came out of the stream within 50ms: replay is too slow": func(r *rig, c *Cutover) {
			c.replay = drained{r}
			c.fencer = fenceFunc(func(ctx context.Context) (time.Duration, error) { <-ctx.Done(); return 0, ctx.Err() })
		},
		"a fence takes 5s to come out of the stream, more than 1.25s of the hold budget: replay is too slow": func(r *rig, c *Cutover) {
			c.settle = time.Minute
			c.fencer = fenceFunc(func(context.Context) (time.Duration, error) { return r.config.MaxHold, nil })
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, pgtest.New(t), rows, toBigint)
			r.config.Attempts = 1
			c := r.cutover(t)
			c.settle = 50 * time.Millisecond
			c.pacer = paceFunc(func(budget time.Duration) error {
				if budget != r.config.MaxHold/2 {
					t.Errorf("it was asked for %s", budget)
				}
				return tooSlow
			})
			arrange(r, c)
			var used *AttemptsError
			if _, err := c.Run(t.Context()); !errors.As(err, &used) || used.Last.Error() != want {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}

// TestConfigIsAskedBeforeEveryAttempt: what the operator sets, and whether an
// attempt is wanted at all, counts for the next one.
func TestConfigIsAskedBeforeEveryAttempt(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.New(t), rows, toBigint)
	r.config.Attempts = 5
	awaited := 0
	r.await = func(context.Context) error { awaited++; return nil }
	r.compare = func(context.Context, pgx.Tx) error {
		r.config.Attempts = 2
		return &notYetError{"not now"}
	}
	report, err := r.run(t)
	var used *AttemptsError
	if !errors.As(err, &used) || report.Attempts != 2 || awaited != 2 {
		t.Errorf("%d attempts, awaited %d times: %v", report.Attempts, awaited, err)
	}
	r.requireInPlace(t)
	errNotWanted := errors.New("not wanted")
	r.await = func(context.Context) error { return errNotWanted }
	if _, err := r.run(t); !errors.Is(err, errNotWanted) {
		t.Errorf("an attempt was made: %v", err)
	}
}
