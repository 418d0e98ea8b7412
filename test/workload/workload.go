package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say what the writers do. The zero value is fine.
type Options struct {
	// Writers is the number of connections that write at the same time, LongOpen's not counted. Default 4.
	Writers int
	// Rate is the most transactions per second of all writers together. 0: as many as they can.
	Rate float64
	// Seed of all choices. 0: a random one, told in every error and in Stats.
	Seed int64
	// Kinds to run. Empty: DefaultKinds, as far as the spec has the columns for them; one that is named and cannot run is
	// an error. Big and Truncate cannot be named: they have methods.
	Kinds []Kind
	// Columns are the value columns the writers write and compare: those that are there before and after the change, by the
	// same name. The others get their defaults and are left alone. nil: all of the spec. See Spec.Columns.
	Columns []string
	// HoldIn names phases in which LongOpen stays open until the phase ends, or Release is called. Leave out a phase in which
	// the change waits for open transactions to end (making the slot, the swap).
	HoldIn []string
	// OpenFor is how long LongOpen stays open elsewhere. Default 50 ms.
	OpenFor time.Duration
	// Reconnect makes writers connect again when their connection is lost (a restarted server, a terminated backend). Without
	// it that is an error.
	Reconnect bool
}

// Workload is a set of running writers. All its methods may be called concurrently.
type Workload struct {
	spec   *Spec
	opts   Options
	seed   int64
	name   string // of its prepared transactions
	config *pgx.ConnConfig
	sql    *statements
	ledger *ledger

	plain, nullable []Column
	unique, toast   Column
	each, nulls     atomic.Int64 // turns of the columns in UpdateEach and UpdateNull
	sessions        atomic.Int64 // ids given

	cancel   context.CancelFunc // cuts the writers off
	detach   func() bool        // from the context given to Start
	finished chan struct{}      // closed when all writers have returned
}

// Start connects the writers to the database and lets them run against a spec that Create has made, until Stop is called,
// ctx ends or something unexpected happens. It blocks until all have connected.
func Start(ctx context.Context, dsn string, spec *Spec, opts Options) (*Workload, error) {
	w, kinds, err := prepare(dsn, spec, opts)
	if err != nil {
		return nil, fmt.Errorf("starting the workload on %s: %w", spec.Table, err)
	}
	deck := slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k == LongOpen })
	run, cancel := context.WithCancel(ctx)
	var loops []func() error
	var sessions []*session
	add := func(loop func(context.Context, *session) error) error {
		s, err := w.newSession(run, int(w.sessions.Add(1)))
		if err != nil {
			return err
		}
		sessions = append(sessions, s)
		loops = append(loops, func() error { return errors.Join(loop(run, s), s.close(run)) })
		return nil
	}
	for range w.opts.Writers {
		if len(deck) > 0 {
			err = errors.Join(err, add(func(ctx context.Context, s *session) error { return w.write(ctx, s, deck) }))
		}
	}
	if slices.Contains(kinds, LongOpen) {
		err = errors.Join(err, add(w.longOpen))
	}
	if err != nil {
		for _, s := range sessions {
			err = errors.Join(err, s.close(ctx))
		}
		cancel()
		return nil, fmt.Errorf("starting the workload on %s: %w", spec.Table, err)
	}
	w.cancel = cancel
	w.detach = context.AfterFunc(ctx, func() {
		w.ledger.end(fmt.Errorf("the context given to Start ended: %w", context.Cause(ctx)))
	})
	w.launch(loops)
	return w, nil
}

// prepare makes a Workload that is not connected yet, and the kinds it runs.
func prepare(dsn string, spec *Spec, opts Options) (*Workload, []Kind, error) {
	if spec.space == nil {
		return nil, nil, errors.New("the spec has not been created")
	}
	if opts.Writers <= 0 {
		opts.Writers = 4
	}
	if opts.OpenFor <= 0 {
		opts.OpenFor = 50 * time.Millisecond
	}
	values, err := spec.writable(opts.Columns)
	if err != nil {
		return nil, nil, err
	}
	config, err := connConfig(dsn)
	if err != nil {
		return nil, nil, err
	}
	kinds, err := chooseKinds(spec, values, opts.Kinds)
	if err != nil {
		return nil, nil, err
	}
	w := &Workload{
		spec: spec, opts: opts, seed: opts.Seed, config: config, sql: newStatements(spec, values),
		name: fmt.Sprintf("workload_%x", rand.Uint64()), finished: make(chan struct{}),
	}
	if w.seed == 0 {
		w.seed = rand.Int64()
	}
	var names []string
	for _, c := range values {
		names = append(names, c.Name)
		if plain(c) {
			w.plain = append(w.plain, c)
		}
		if c.Null {
			w.nullable = append(w.nullable, c)
		}
		if c.Unique && !c.Blind {
			w.unique = c
		}
		if c.Toast {
			w.toast = c
		}
	}
	if spec.Respell != nil {
		names = append(names, spec.Key[0].Name)
	}
	if len(w.plain) == 0 {
		return nil, nil, errors.New("no value column is left that any row can be given any value of")
	}
	if !slices.Contains(kinds, UpdateEach) {
		names = nil
	}
	w.ledger = newLedger(w.seed, kinds, names, opts.HoldIn)
	return w, kinds, nil
}

func chooseKinds(spec *Spec, values []Column, named []Kind) ([]Kind, error) {
	if len(named) == 0 {
		return slices.DeleteFunc(DefaultKinds(), func(k Kind) bool { return k.lacks(spec, values) != "" }), nil
	}
	for _, k := range named {
		if k < 0 || k >= kindCount || k == Big || k == Truncate {
			return nil, fmt.Errorf("choosing kinds: %v does not run by itself", k)
		}
		if why := k.lacks(spec, values); why != "" {
			return nil, fmt.Errorf("choosing kinds: %v cannot run: %s", k, why)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(named))), nil
}

// launch runs the loops; the first that returns an error ends all.
func (w *Workload) launch(loops []func() error) {
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() {
			if err := loop(); err != nil {
				w.ledger.end(err)
			}
		})
	}
	go func() {
		wg.Wait()
		close(w.finished)
	}()
}

// write is the loop of one writer: it goes through the kinds in a new random order each time.
func (w *Workload) write(ctx context.Context, s *session, deck []Kind) error {
	deck = slices.Clone(deck)
	var pace <-chan time.Time
	if w.opts.Rate > 0 {
		ticker := time.NewTicker(max(1, time.Duration(float64(w.opts.Writers)/w.opts.Rate*float64(time.Second))))
		defer ticker.Stop()
		pace = ticker.C
	}
	for {
		s.r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		for _, kind := range deck {
			if !w.turn(ctx, pace) {
				return nil
			}
			began, from := time.Now(), w.ledger.stamp()
			done, err := s.run(ctx, kind)
			w.ledger.took(from, time.Since(began))
			switch {
			case err != nil:
				if err := s.settle(ctx, err); err != nil {
					return fmt.Errorf("running %v: %w", kind, err)
				}
			case done:
				w.ledger.commit(kind, s.at, s.col)
			default:
				w.ledger.miss()
			}
		}
	}
}

// turn blocks until the next transaction may begin; false if there is to be none.
func (w *Workload) turn(ctx context.Context, pace <-chan time.Time) bool {
	if pace != nil {
		select {
		case <-pace:
		case <-w.ledger.ended:
		case <-ctx.Done():
		}
	}
	select {
	case <-w.ledger.ended:
		return false
	default:
		return ctx.Err() == nil
	}
}

// Phase says that the schema change has entered a phase: commits sent from now on belong to it.
func (w *Workload) Phase(name string) { w.ledger.enter(name) }

// Release lets a LongOpen that is held commit; it will not be held again before the next phase.
func (w *Workload) Release() { w.ledger.release() }

// AwaitEach blocks until every kind that runs by itself has committed n more transactions since the call, and UpdateEach so
// many that every column had its turn. It returns an error if ctx or the workload ends first. LongOpen is left out while it
// is held. Not to be called while the schema change keeps the table locked: nothing commits then.
func (w *Workload) AwaitEach(ctx context.Context, n int) error {
	want := map[Kind]int{}
	for _, kind := range w.Kinds() {
		want[kind] = n
		if kind == UpdateEach {
			want[kind] = max(n, 2*len(w.ledger.snapshot().Columns))
		}
	}
	return w.ledger.await(ctx, want)
}

// AwaitCommits blocks until n more transactions of one kind have committed since the call; otherwise like AwaitEach.
func (w *Workload) AwaitCommits(ctx context.Context, kind Kind, n int) error {
	return w.ledger.await(ctx, map[Kind]int{kind: n})
}

// Kinds returns the kinds that run by themselves.
func (w *Workload) Kinds() []Kind { return w.ledger.snapshot().Kinds }

// Stats returns the counts so far.
func (w *Workload) Stats() Stats { return w.ledger.snapshot() }

// Done returns a channel that is closed when the workload ends, by Stop or by an unexpected error: then see Err.
func (w *Workload) Done() <-chan struct{} { return w.ledger.ended }

// Err returns the unexpected error that ended the workload, with the seed; nil while it runs and after a clean Stop.
func (w *Workload) Err() error { return w.ledger.failure() }

// Stop lets every writer finish its transaction and waits for that; when ctx ends first it cuts them off, which is an
// error. It returns the counts, and the unexpected error that ended the workload before, with the seed: a *Diverged, an
// SQLSTATE no writer should see, a lost connection. It may be called more than once.
func (w *Workload) Stop(ctx context.Context) (Stats, error) {
	w.detach()
	w.ledger.end(nil)
	var err error
	select {
	case <-w.finished:
	case <-ctx.Done():
		err = fmt.Errorf("stopping the workload (seed %d): writers were still busy: %w", w.seed, context.Cause(ctx))
		w.cancel()
		<-w.finished
	}
	w.cancel()
	if slices.Contains(w.Kinds(), Prepared) {
		err = errors.Join(err, w.tidy(ctx))
	}
	return w.Stats(), errors.Join(w.Err(), err)
}

// tidy commits what was left prepared when a writer lost its connection.
func (w *Workload) tidy(ctx context.Context) error {
	s, err := w.newSession(ctx, int(w.sessions.Add(1)))
	if err != nil {
		return fmt.Errorf("committing what was left prepared: %w", err)
	}
	if err := errors.Join(s.commitPrepared(ctx, w.name), s.close(ctx)); err != nil {
		return fmt.Errorf("committing what was left prepared: %w", err)
	}
	return nil
}
