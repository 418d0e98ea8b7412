package workload

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// run does one transaction of a kind; false if it found no row to work on.
func (s *session) run(ctx context.Context, kind Kind) (bool, error) {
	s.kind, s.col = kind, ""
	s.turn++
	switch kind {
	case DeleteReinsert:
		return s.deleteReinsert(ctx)
	case ToastUnchanged:
		return s.toastUnchanged(ctx)
	case Prepared:
		return s.prepared(ctx)
	case Abort:
		return s.abort(ctx)
	default:
		return s.tx(ctx, func() (bool, error) { return s.body(ctx, kind) })
	}
}

// body is the inside of the kinds that are one plain transaction.
func (s *session) body(ctx context.Context, kind Kind) (bool, error) {
	switch kind {
	case Insert:
		if s.turn%2 == 0 {
			return s.append(ctx)
		}
		return s.try(func() (bool, error) { return s.insertAt(ctx, s.pick()) })
	case UpdateEach:
		return s.updateEach(ctx)
	case UpdateNull:
		return s.updateNull(ctx)
	case KeyUp, KeyDown:
		return s.try(func() (bool, error) { return s.moveAcross(ctx, kind == KeyUp) })
	case Delete:
		return s.try(func() (bool, error) { return s.remove(ctx, s.pick()) })
	case Upsert:
		return s.upsert(ctx, s.pick())
	case Copy:
		return s.copyIn(ctx)
	case MultiRow:
		return s.multiRow(ctx)
	case SavepointRollback:
		return s.savepointRollback(ctx)
	case UniqueSwap:
		return s.uniqueSwap(ctx)
	case DeleteReinsert, ToastUnchanged, Abort, LongOpen, Prepared, Big, Truncate, kindCount:
	}
	return false, fmt.Errorf("running %v: a writer cannot run it", kind)
}

func (s *session) updateEach(ctx context.Context) (bool, error) {
	cols := s.w.sql.values
	n := len(cols)
	if s.w.spec.Respell != nil {
		n++
	}
	i := int(s.w.each.Add(1)) % n
	if i == len(cols) {
		s.col = s.w.spec.Key[0].Name
		return s.try(func() (bool, error) { return s.respell(ctx, s.pick()) })
	}
	c := cols[i]
	s.col = c.Name
	return s.try(func() (bool, error) {
		val := c.value(s.r)
		if c.Toast {
			val = c.Gen(s.r)
		}
		return s.update(ctx, s.pick(), []Column{c}, []any{val}, "")
	})
}

func (s *session) updateNull(ctx context.Context) (bool, error) {
	c := s.w.nullable[int(s.w.nulls.Add(1))%len(s.w.nullable)]
	more := quote(c.Name) + " IS NOT NULL"
	return s.try(func() (bool, error) {
		k := s.pick()
		if c.Toast {
			k = s.pickToast()
		}
		return s.update(ctx, k, []Column{c}, []any{nil}, more)
	})
}

func (s *session) moveAcross(ctx context.Context, up bool) (bool, error) {
	space := s.w.spec.space
	low, high := space.across(s.r)
	if !up {
		return s.move(ctx, s.keyOf(high), s.keyOf(low))
	}
	if !space.limit && s.r.IntN(16) == 0 {
		high = s.reserve(space.takeFar(1))
	}
	return s.move(ctx, s.keyOf(low), s.keyOf(high))
}

func (s *session) deleteReinsert(ctx context.Context) (bool, error) {
	var k key
	remove := func() (bool, error) {
		return s.try(func() (bool, error) { k = s.pick(); return s.remove(ctx, k) })
	}
	if s.turn%2 == 0 {
		return s.tx(ctx, func() (bool, error) {
			if done, err := remove(); err != nil || !done {
				return false, err
			}
			return s.insertAt(ctx, k)
		})
	}
	if done, err := s.tx(ctx, remove); err != nil || !done {
		return false, err
	}
	return s.tx(ctx, func() (bool, error) { return s.insertAt(ctx, k) })
}

// toastUnchanged sees to it, in a transaction of its own, that the row has a long value, then updates it beside that.
func (s *session) toastUnchanged(ctx context.Context) (bool, error) {
	c, k := s.w.toast, s.pickToast()
	null, full := quote(c.Name)+" IS NULL", quote(c.Name)+" IS NOT NULL"
	filled, err := s.tx(ctx, func() (bool, error) {
		return s.update(ctx, k, []Column{c}, []any{c.Gen(s.r)}, null)
	})
	if err != nil {
		return false, err
	}
	return s.tx(ctx, func() (bool, error) {
		if filled {
			return s.touch(ctx, k, full)
		}
		return s.try(func() (bool, error) { return s.touch(ctx, s.pickToast(), full) })
	})
}

// free returns up to n keys, in order, that have no row now.
func (s *session) free(ctx context.Context, n int) ([]key, error) {
	var keys []key
	for i := 0; i < tries && len(keys) < n; i++ {
		k := s.keyOf(s.w.spec.space.pick(s.r))
		if slices.ContainsFunc(keys, func(other key) bool { return other.ord == k.ord }) {
			continue
		}
		rows, err := s.query(ctx, s.w.sql.exists(), k.args()...)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return int(a.ord - b.ord) })
	return keys, nil
}

// copyIn copies some rows in, between others or at the far end.
func (s *session) copyIn(ctx context.Context) (bool, error) {
	n := 2 + s.r.IntN(8)
	var keys []key
	if space := s.w.spec.space; space.limit || s.turn%2 == 0 {
		free, err := s.free(ctx, n)
		if err != nil || len(free) == 0 {
			return false, err
		}
		keys = free
	} else {
		first := space.takeFar(int64(n))
		for i := range int64(n) {
			keys = append(keys, s.keyOf(s.reserve(first+i)))
		}
	}
	var data strings.Builder
	for _, k := range keys {
		for i, v := range s.newRow(k) {
			if i > 0 {
				data.WriteByte('\t')
			}
			data.WriteString(copyText(v))
		}
		data.WriteByte('\n')
	}
	for _, on := range []side{onTable, onMirror} {
		sql := s.w.sql.copyIn(on)
		tag, err := s.conn.PgConn().CopyFrom(ctx, strings.NewReader(data.String()), sql)
		if err != nil && on == onMirror {
			err = s.mirrorError(err, sql, fmt.Sprintf("%d rows", len(keys)))
		}
		if err != nil {
			return false, fmt.Errorf("running %q: %w", sql, err)
		}
		if tag.RowsAffected() != int64(len(keys)) {
			return false, fmt.Errorf("running %q: %d rows instead of %d", sql, tag.RowsAffected(), len(keys))
		}
	}
	return true, nil
}

var copyEscapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

func copyText(v any) string {
	if text, ok := v.(string); ok {
		return copyEscapes.Replace(text)
	}
	return `\N`
}

// multiRow inserts, updates and deletes several rows per statement.
func (s *session) multiRow(ctx context.Context) (bool, error) {
	picks := func(n int) (args []any) {
		for range n {
			args = append(args, s.pick().args()...)
		}
		return args
	}
	return s.steps(
		func() (bool, error) { return s.insertMany(ctx, 3) },
		func() (bool, error) { return s.updateMany(ctx, picks(8)) },
		func() (bool, error) { return s.removeMany(ctx, picks(4)) },
	)
}

// steps tries one after the other; false if one of them found no row to work on.
func (s *session) steps(steps ...func() (bool, error)) (bool, error) {
	for _, step := range steps {
		if done, err := s.try(step); err != nil || !done {
			return false, err
		}
	}
	return true, nil
}

func (s *session) savepointRollback(ctx context.Context) (bool, error) {
	return s.steps(
		func() (bool, error) { return s.upsert(ctx, s.pick()) },
		func() (bool, error) { _, err := s.exec(ctx, "SAVEPOINT undone"); return true, err },
		func() (bool, error) { return s.touch(ctx, s.pick(), "") },
		func() (bool, error) { return s.remove(ctx, s.pick()) },
		func() (bool, error) { return s.touch(ctx, s.pick(), "") },
		func() (bool, error) { return s.insertAt(ctx, s.pick()) },
		func() (bool, error) { _, err := s.exec(ctx, "ROLLBACK TO SAVEPOINT undone"); return true, err },
		func() (bool, error) { _, err := s.exec(ctx, "SAVEPOINT kept"); return true, err },
		func() (bool, error) { return s.touch(ctx, s.pick(), "") },
		func() (bool, error) { _, err := s.exec(ctx, "RELEASE SAVEPOINT kept"); return true, err },
	)
}

// uniqueSwap locks two rows, compares their unique values with the mirror's, and swaps them.
func (s *session) uniqueSwap(ctx context.Context) (bool, error) {
	c := s.w.unique
	lock := func() (k key, text *string, err error) {
		_, err = s.try(func() (bool, error) {
			k = s.pick()
			rows, err := s.query(ctx, s.w.sql.lock(onTable, c, s.filter("", 1)), k.args()...)
			if err != nil || len(rows) == 0 {
				return false, err
			}
			text = rows[0][0]
			return true, s.mirror(ctx, rows, s.w.sql.lock(onMirror, c, filter{}), k.args()...)
		})
		return k, text, err
	}
	k1, code1, err := lock()
	if err != nil || code1 == nil {
		return false, err
	}
	k2, code2, err := lock()
	if err != nil || code2 == nil || *code1 == *code2 {
		return false, err
	}
	sets := []struct {
		k   key
		val any
	}{{k1, nil}, {k2, *code1}, {k1, *code2}}
	for _, set := range sets {
		done, err := s.update(ctx, set.k, []Column{c}, []any{set.val}, "")
		if err != nil {
			return false, err
		}
		if !done {
			return false, &Diverged{Kind: s.kind, SQL: "UPDATE of a row locked before", Table: "no row", Mirror: "not asked"}
		}
	}
	return true, nil
}

// abort writes and rolls back.
func (s *session) abort(ctx context.Context) (bool, error) {
	wrote := false
	_, err := s.tx(ctx, func() (done bool, err error) {
		wrote, err = s.steps(
			func() (bool, error) { return s.upsert(ctx, s.pick()) },
			func() (bool, error) { return s.touch(ctx, s.pick(), "") },
			func() (bool, error) { return s.remove(ctx, s.pick()) },
		)
		s.at = s.w.ledger.stamp()
		return false, err
	})
	return wrote && err == nil, err
}
