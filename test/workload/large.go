package workload

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// longOpen runs LongOpen on a session of its own until the workload ends.
func (w *Workload) longOpen(ctx context.Context, s *session) error {
	s.kind = LongOpen
	for ctx.Err() == nil {
		select {
		case <-w.ledger.ended:
			return nil
		default:
		}
		done, err := s.tx(ctx, func() (bool, error) {
			if done, err := s.writeLong(ctx); err != nil || !done {
				return false, err
			}
			w.stayOpen(ctx)
			return true, nil
		})
		if err != nil {
			if err := s.settle(ctx, err); err != nil {
				return err
			}
		} else if done {
			w.ledger.commit(LongOpen, s.at, "")
		}
	}
	return nil
}

// stayOpen blocks while LongOpen is to leave its transaction open.
func (w *Workload) stayOpen(ctx context.Context) {
	hold, moved := w.ledger.hold()
	var over <-chan time.Time
	if !hold {
		timer := time.NewTimer(w.opts.OpenFor)
		defer timer.Stop()
		moved, over = nil, timer.C
	}
	select {
	case <-moved:
	case <-over:
	case <-w.ledger.ended:
	case <-ctx.Done():
	}
}

// writeLong writes to the rows that are LongOpen's alone: it deletes or inserts one, updates or inserts one, deletes and
// inserts one and moves one.
func (s *session) writeLong(ctx context.Context) (bool, error) {
	ords := s.w.spec.space.long
	k := make([]key, 5)
	for i, j := range s.r.Perm(len(ords))[:len(k)] {
		k[i] = s.keyOf(ords[j])
	}
	insertUnless := func(k key, op func() (bool, error)) error {
		done, err := op()
		if err == nil && !done {
			_, err = s.insertAt(ctx, k)
		}
		return err
	}
	if err := insertUnless(k[0], func() (bool, error) { return s.remove(ctx, k[0]) }); err != nil {
		return false, err
	}
	if err := insertUnless(k[1], func() (bool, error) { return s.touch(ctx, k[1], "") }); err != nil {
		return false, err
	}
	if _, err := s.remove(ctx, k[2]); err != nil {
		return false, err
	}
	if _, err := s.insertAt(ctx, k[2]); err != nil {
		return false, err
	}
	if !s.w.spec.FixedKey {
		if _, err := s.move(ctx, k[3], k[4]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// prepared writes and commits in two phases; one time in eight it rolls back instead.
func (s *session) prepared(ctx context.Context) (bool, error) {
	gid := fmt.Sprintf("%s_%d_%d", s.w.name, s.id, s.turn)
	done, err := s.txEnding(ctx, func() (bool, error) {
		if done, err := s.try(func() (bool, error) { return s.touch(ctx, s.pick(), "") }); err != nil || !done {
			return false, err
		}
		return s.append(ctx)
	}, func() error {
		s.gid = gid
		return s.end(ctx, "PREPARE TRANSACTION "+literal(gid))
	})
	if err != nil || !done {
		if !s.conn.IsClosed() {
			s.gid = ""
		}
		return false, err
	}
	verb := "COMMIT"
	if s.r.IntN(8) == 0 {
		verb = "ROLLBACK"
	}
	s.at = s.w.ledger.stamp()
	if _, err := s.exec(ctx, verb+" PREPARED "+literal(gid)); err != nil {
		return false, err
	}
	s.gid = ""
	s.publish()
	return verb == "COMMIT", nil
}

// decide commits the transaction that was prepared when the connection was lost, if it was.
func (s *session) decide(ctx context.Context) error {
	if s.gid == "" {
		return nil
	}
	if err := s.commitPrepared(ctx, s.gid); err != nil {
		return err
	}
	s.gid = ""
	return nil
}

// commitPrepared commits all prepared transactions of this database whose name begins with prefix.
func (s *session) commitPrepared(ctx context.Context, prefix string) error {
	rows, err := s.query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1)", prefix)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := s.exec(ctx, "COMMIT PREPARED "+literal(*r[0])); err != nil {
			return err
		}
	}
	return nil
}

// Big commits one transaction of about n rows: half of them inserted at the end of the key space, and a column updated in
// every row of a range where about as many should be. It blocks until it has committed (some 10 s per million rows), and
// tries again if the server refuses it for a reason to be expected. It works on a connection of its own, until ctx ends.
func (w *Workload) Big(ctx context.Context, n int) error {
	return w.alone(ctx, Big, func(s *session) (bool, error) { return s.big(ctx, int64(max(2, n))) })
}

// Truncate empties the table and the mirror in one transaction. It waits for all open transactions on them, LongOpen's is
// released, and writers wait for it meanwhile. It tries again as Big does.
func (w *Workload) Truncate(ctx context.Context) error {
	return w.alone(ctx, Truncate, func(s *session) (bool, error) {
		w.Release()
		for _, name := range w.sql.names {
			if _, err := s.exec(ctx, "TRUNCATE "+name); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// alone runs one transaction of a kind on a connection of its own.
func (w *Workload) alone(ctx context.Context, kind Kind, body func(*session) (bool, error)) (err error) {
	s, err := w.newSession(ctx, int(w.sessions.Add(1)))
	if err != nil {
		return err
	}
	s.kind = kind
	defer func() {
		if closeErr := s.close(ctx); err == nil {
			err = closeErr
		}
	}()
	for {
		select {
		case <-w.ledger.ended:
			return fmt.Errorf("running %v: %w", kind, errEnded)
		default:
		}
		done, err := s.tx(ctx, func() (bool, error) { return body(s) })
		switch {
		case err == nil && done:
			if s.band.n > 0 {
				w.spec.space.publishBand(s.band)
			}
			w.ledger.commit(kind, s.at, "")
			return nil
		case err == nil:
			return fmt.Errorf("running %v: there was nothing to do", kind)
		case refused(err) && ctx.Err() == nil:
			w.ledger.abort(sqlState(err))
		default:
			return fmt.Errorf("running %v: %w", kind, err)
		}
	}
}

func (s *session) big(ctx context.Context, n int64) (bool, error) {
	q, space := s.w.sql, s.w.spec.space
	if !space.limit {
		s.band = space.takeBand(n / 2)
		from := fmt.Sprintf("generate_series(%d::bigint, %d) ord", s.band.first, s.band.first+s.band.n-1)
		inserted, err := s.exec(ctx, s.w.spec.insertOrdinals(s.w.spec.Table, q.cols, from, 1024))
		if err != nil {
			return false, err
		}
		if err := s.mirrorCount(ctx, inserted, s.w.spec.insertOrdinals(s.w.spec.Mirror, q.cols, from, 1024)); err != nil {
			return false, err
		}
	}
	size := space.size.Load()
	lo := 1 + s.r.Int64N(max(1, size-n))
	args := slices.Concat(s.keyOf(lo).args(), s.keyOf(min(lo+n, size)).args())
	for _, ord := range space.long {
		args = append(args, s.keyOf(ord).args()...)
	}
	c := s.w.plain[s.r.IntN(len(s.w.plain))]
	val, keys := c.value(s.r), len(s.w.spec.Key)
	if _, err := s.exec(ctx, "CREATE TEMP TABLE workload_big ON COMMIT DROP AS SELECT "+q.key+" FROM "+s.w.spec.Mirror+" WITH NO DATA"); err != nil {
		return false, err
	}
	// The table's rows say which ones are to be updated in the mirror: others may come into the range meanwhile.
	where := filter{skip: true}.apply(q, q.keyRange(2)+" AND NOT "+q.whereAny(2+2*keys, len(space.long)))
	updated, err := s.exec(ctx, "WITH u AS (UPDATE "+s.w.spec.Table+" SET "+set([]Column{c}, 1)+where+
		" RETURNING "+q.key+") INSERT INTO workload_big SELECT * FROM u", slices.Concat([]any{val}, args)...)
	if err != nil {
		return false, err
	}
	var same []string
	for _, k := range s.w.spec.Key {
		same = append(same, "m."+quote(k.Name)+" = b."+quote(k.Name))
	}
	return true, s.mirrorCount(ctx, updated, "UPDATE "+s.w.spec.Mirror+" m SET "+set([]Column{c}, 1)+" FROM workload_big b WHERE "+
		strings.Join(same, " AND "), val)
}
