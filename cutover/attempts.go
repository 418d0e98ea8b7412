package cutover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

const (
	backoffMin = 200 * time.Millisecond
	backoffMax = 30 * time.Second
)

// Event tells of one attempt.
type Event struct {
	Attempt int
	Reason  string        // why it did not succeed; empty when it did
	Backoff time.Duration // until the next
}

// AttemptsError says that every attempt was used up; the run can go on later.
type AttemptsError struct {
	Attempts int
	Last     error
}

func (e *AttemptsError) Error() string {
	return fmt.Sprintf("none of %d attempts got through; the last: %v", e.Attempts, e.Last)
}

func (e *AttemptsError) Unwrap() error { return e.Last }

// Retry makes attempts until one succeeds, or fails in a way that another would too.
// It pauses between them, longer each time and by chance, so that two that stand in
// each other's way do not go on doing so. When there were as many as attempts says
// then, the error is an *AttemptsError.
func Retry(ctx context.Context, attempts func() int, observe func(Event), once func(attempt int) error) error {
	backoff := backoffMin
	for attempt := 1; ; attempt++ {
		err := once(attempt)
		if err == nil {
			observe(Event{Attempt: attempt})
			return nil
		}
		if !retryable(err) || ctx.Err() != nil {
			return err
		}
		if attempt >= attempts() {
			return &AttemptsError{Attempts: attempt, Last: err}
		}
		pause := backoff/2 + rand.N(backoff)
		observe(Event{Attempt: attempt, Reason: err.Error(), Backoff: pause})
		if err := wait(ctx, pause); err != nil {
			return err
		}
		backoff = min(backoff*3/2, backoffMax)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the next attempt: %w", ctx.Err())
	}
}

// Later is an error after which Retry makes another attempt.
func Later(reason string) error { return &notYetError{reason} }

// notYetError is a precondition that does not hold now and may later.
type notYetError struct{ reason string }

func (e *notYetError) Error() string { return e.reason }

// retryable tells the failures after which another attempt makes sense.
func retryable(err error) bool {
	var notYet *notYetError
	var overBudget *overBudgetError
	return errors.As(err, &notYet) || errors.As(err, &overBudget) || pg.IsLockFailure(err) || pg.Is(err, pg.QueryCanceled)
}
