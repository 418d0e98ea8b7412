package workload

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// tries is how often a transaction looks for a row to work on.
const tries = 24

// key is the key of a row, in text form.
type key struct {
	ord  int64 // negative: an edge key
	vals []string
}

func (k key) args() []any {
	args := make([]any, len(k.vals))
	for i, v := range k.vals {
		args[i] = v
	}
	return args
}

func (s *session) keyOf(ord int64) key { return key{ord, s.w.spec.KeyOf(ord)} }

// pick returns a key to write to, in any spelling; whether there is a row with it, nobody knows.
func (s *session) pick() key {
	spec := s.w.spec
	if n := len(spec.Edges); n > 0 && s.r.IntN(64) == 0 {
		i := s.r.IntN(n)
		return key{int64(-1 - i), spec.Edges[i]}
	}
	k := s.keyOf(spec.space.pick(s.r))
	if spec.Respell != nil && s.r.IntN(4) == 0 {
		k.vals = spec.Respell(s.r, k.vals)
	}
	return k
}

// pickToast returns the key of a row that is likely to have a long value.
func (s *session) pickToast() key {
	ords := s.w.spec.space.toast
	return s.keyOf(ords[s.r.IntN(len(ords))])
}

// try repeats op until it has done something.
func (s *session) try(op func() (bool, error)) (bool, error) {
	for range tries {
		if done, err := op(); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// newRow returns the argument values of a whole row with key k.
func (s *session) newRow(k key) []any {
	args := k.args()
	for _, c := range s.w.sql.values {
		args = append(args, c.value(s.r))
	}
	return args
}

// insertAt inserts a row with the given key, unless there is one.
func (s *session) insertAt(ctx context.Context, k key) (bool, error) {
	q, args := s.w.sql, s.newRow(k)
	rows, err := s.query(ctx, q.insert(onTable, q.cols, true), args...)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	return true, s.mirror(ctx, rows, q.insert(onMirror, q.cols, false), args...)
}

// append inserts a row at the end: a key from the server if it makes them, else the next ordinal.
func (s *session) append(ctx context.Context) (bool, error) {
	q, space := s.w.sql, s.w.spec.space
	if !s.w.spec.Key[0].Server {
		if space.limit {
			return s.insertAt(ctx, s.pick())
		}
		return s.insertAt(ctx, s.keyOf(s.reserve(space.takeNext())))
	}
	var cols []Column
	var args []any
	for _, c := range q.cols {
		if !c.Server {
			cols, args = append(cols, c), append(args, c.value(s.r))
		}
	}
	rows, err := s.query(ctx, q.insert(onTable, cols, false), args...)
	if err != nil {
		return false, err
	}
	full, given := make([]any, len(q.cols)), 0
	for i, c := range q.cols {
		if c.Server && rows[0][i] != nil {
			full[i] = *rows[0][i]
		} else if !c.Server {
			full[i], given = args[given], given+1
		}
	}
	if ord, err := strconv.ParseInt(*rows[0][0], 10, 64); err == nil {
		s.reserve(ord)
	}
	return true, s.mirror(ctx, rows, q.insert(onMirror, q.cols, false), full...)
}

// filter keeps a transaction that locks several rows from waiting for a second one: a deadlock costs a second.
func (s *session) filter(more string, rows int) filter {
	return filter{more: more, skip: s.locked || rows > 1}
}

// update sets columns of the row with key k; more is a further condition on the row in the table.
func (s *session) update(ctx context.Context, k key, cols []Column, vals []any, more string) (bool, error) {
	q, args := s.w.sql, slices.Concat(vals, k.args())
	rows, err := s.query(ctx, q.update(onTable, cols, 1, s.filter(more, 1)), args...)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	return true, s.mirror(ctx, rows, q.update(onMirror, cols, 1, filter{}), args...)
}

// touch gives one plain column of the row with key k a new value.
func (s *session) touch(ctx context.Context, k key, more string) (bool, error) {
	c := s.w.plain[s.r.IntN(len(s.w.plain))]
	return s.update(ctx, k, []Column{c}, []any{c.value(s.r)}, more)
}

// remove deletes the row with key k.
func (s *session) remove(ctx context.Context, k key) (bool, error) {
	return s.removeMany(ctx, k.args())
}

// removeMany deletes the rows with the keys in args. The mirror's statement names the rows that the table's did touch: more
// may have come since.
func (s *session) removeMany(ctx context.Context, args []any) (bool, error) {
	q, keys := s.w.sql, len(s.w.spec.Key)
	rows, err := s.query(ctx, q.remove(onTable, len(args)/keys, s.filter("", len(args)/keys)), args...)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	return true, s.mirror(ctx, rows, q.remove(onMirror, len(rows), filter{}), s.keysOf(rows)...)
}

// updateMany gives a plain column of the rows with the keys in args the same new value; see removeMany.
func (s *session) updateMany(ctx context.Context, args []any) (bool, error) {
	q, keys := s.w.sql, len(s.w.spec.Key)
	c := s.w.plain[s.r.IntN(len(s.w.plain))]
	cols, val := []Column{c}, []any{c.value(s.r)}
	rows, err := s.query(ctx, q.update(onTable, cols, len(args)/keys, s.filter("", len(args)/keys)), slices.Concat(val, args)...)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	return true, s.mirror(ctx, rows, q.update(onMirror, cols, len(rows), filter{}), slices.Concat(val, s.keysOf(rows))...)
}

// insertMany inserts rows at n different keys, leaving out those that are taken; false if all are.
func (s *session) insertMany(ctx context.Context, n int) (bool, error) {
	var ords []int64
	for len(ords) < n {
		if ord := s.w.spec.space.pick(s.r); !slices.Contains(ords, ord) {
			ords = append(ords, ord)
		}
	}
	slices.Sort(ords) // two who insert the same keys wait for each other in the same order
	var args []any
	given := map[string][]any{}
	for _, ord := range ords {
		k := s.keyOf(ord)
		vals := s.newRow(k)
		given[strings.Join(k.vals, "\x00")] = vals
		args = append(args, vals...)
	}
	rows, err := s.query(ctx, s.w.sql.insertMany(onTable, n), args...)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	args = nil
	for _, r := range rows {
		vals := make([]string, len(s.w.spec.Key))
		for i := range vals {
			vals[i] = *r[i]
		}
		row, ok := given[strings.Join(vals, "\x00")]
		if !ok {
			return false, fmt.Errorf("inserting several rows: the server prints key %q unlike Spec.KeyOf", vals)
		}
		args = append(args, row...)
	}
	return true, s.mirror(ctx, rows, s.w.sql.insertMany(onMirror, len(rows)), args...)
}

// move gives the row with key from the key to, unless that is taken.
func (s *session) move(ctx context.Context, from, to key) (bool, error) {
	return s.update(ctx, from, s.w.spec.Key, to.args(), s.w.sql.absent(onTable, 1))
}

// respell writes the same key in another spelling.
func (s *session) respell(ctx context.Context, k key) (bool, error) {
	return s.update(ctx, k, s.w.spec.Key, toArgs(s.w.spec.Respell(s.r, k.vals)), "")
}

// upsert inserts a row with key k or updates the plain columns of the one there.
func (s *session) upsert(ctx context.Context, k key) (bool, error) {
	q, args := s.w.sql, s.newRow(k)
	rows, err := s.query(ctx, q.upsert(onTable, s.w.plain), args...)
	if err != nil {
		return false, err
	}
	return true, s.mirror(ctx, rows, q.upsert(onMirror, s.w.plain), args...)
}

func toArgs(vals []string) []any { return key{vals: vals}.args() }

// keysOf returns the keys of returned rows as arguments.
func (s *session) keysOf(rows []row) []any {
	var args []any
	for _, r := range rows {
		for i := range s.w.spec.Key {
			args = append(args, *r[i])
		}
	}
	return args
}

// reserve notes an ordinal at the end of its range, to be published when the transaction has committed.
func (s *session) reserve(ord int64) int64 {
	s.fresh = append(s.fresh, ord)
	return ord
}
