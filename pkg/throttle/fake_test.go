package throttle

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a source whose answer the test sets.
type fake struct {
	mu      sync.Mutex
	off     bool
	reason  string
	err     error
	hang    chan struct{} // Check takes until it is closed, whatever becomes of ctx
	checks  int
	changed chan struct{}
}

func newFake() *fake { return &fake{changed: make(chan struct{}, 1)} }

func (f *fake) Name() string             { return "fake source" }
func (f *fake) Changed() <-chan struct{} { return f.changed }

func (f *fake) Enabled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.off
}

func (f *fake) Check(context.Context) (string, error) {
	f.mu.Lock()
	f.checks++
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reason, f.err
}

// set changes the fake as another goroutine's work would: unnoticed until the next check.
func (f *fake) set(change func(f *fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) checked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checks
}

// rig is a Throttle that runs, in the bubble of a test.
type rig struct {
	*Throttle
	stop  context.CancelFunc
	ended chan error

	mu   sync.Mutex
	news []string
}

// told is what OnChange was told so far.
func (r *rig) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.news)
}

func begin(t *testing.T, config Config, sources ...Source) *rig {
	t.Helper()
	r := &rig{ended: make(chan error, 1)}
	config.OnChange = func(reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.news = append(r.news, reason)
	}
	var err error
	if r.Throttle, err = New(open(t, "host=127.0.0.1 port=1"), config, sources...); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	return r
}

func (r *rig) start(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- r.Run(ctx) }()
	synctest.Wait()
}

// end stops Run and waits for it.
func (r *rig) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("Run ended with %v", err)
	}
}

// waiter is a Wait in a goroutine of its own.
type waiter struct {
	took time.Duration
	err  error
	done chan struct{} // closed once Wait has returned
}

func (r *rig) wait(ctx context.Context, rows int) *waiter {
	w := &waiter{done: make(chan struct{})}
	began := time.Now()
	go func() {
		w.err = r.Wait(ctx, rows)
		w.took = time.Since(began)
		close(w.done)
	}()
	synctest.Wait()
	return w
}

// returned tells whether Wait has returned once everything that can go on has done so.
func (w *waiter) returned() bool {
	synctest.Wait()
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *waiter) mustBlock(t *testing.T) {
	t.Helper()
	if w.returned() {
		t.Fatalf("Wait returned %v after %v, it should block", w.err, w.took)
	}
}

func (w *waiter) mustReturn(t *testing.T, after time.Duration, want error) {
	t.Helper()
	if !w.returned() {
		t.Fatal("Wait blocks, it should return")
	}
	if !errors.Is(w.err, want) || w.took != after {
		t.Fatalf("Wait returned %v after %v, want %v after %v", w.err, w.took, want, after)
	}
}
