// Package replay owns the dirty set and its replay: re-reading dirty keys from
// the original and writing what they hold now into the shadow.
package replay

import (
	"sync"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/replication"
)

// entryBytes is what a dirty key costs beside its own text, twice over: map
// slot, queue slot, headers. Measured with go test -bench Set -benchmem.
const entryBytes = 160

// overflow is how many times the limit the set may take while it is lifted.
const overflow = 16

// entry is what is known of one dirty key.
type entry struct {
	xid     uint32 // last transaction that dirtied it; 0 for none (INV-1)
	first   pg.LSN // commit position of the first change not yet replayed; 0 for none
	ordinal uint64 // when it was first dirtied, to know when a drain is done
	touched uint64 // when it was last dirtied, to know a change since it was taken
	queued  bool   // waits in the queue; else it has been taken
	// What first and ordinal will be once the replay under way has been committed:
	// a key that is dirtied all the time must not hold back the position for ever.
	nextFirst   pg.LSN
	nextOrdinal uint64
}

// Set is the dirty set: the keys of the original's rows that changed and have
// not been replayed. It is safe for concurrent use.
type Set struct {
	limit int // bytes

	mu        sync.Mutex
	entries   map[keyset.Key]entry
	queue     []keyset.Key // in the order they were first dirtied; may name keys that are gone
	bytes     int
	clock     uint64
	dirtied   uint64        // keys that got dirty so far, and again after they were taken
	room      chan struct{} // closed and replaced when there is room again
	waiting   bool          // somebody was told to wait for room
	lifted    bool          // the limit does not count for now
	wake      chan struct{} // holds a token when something was added
	watched   map[keyset.Key]bool
	truncated *Truncation
	cut       chan struct{} // closed and replaced at a truncation
}

// Truncation is a TRUNCATE of the original that the stream delivered.
type Truncation struct {
	XID    uint32
	Commit pg.LSN
}

// NewSet makes an empty set that calls itself full at about limit bytes.
func NewSet(limit int) *Set {
	return &Set{limit: limit, entries: map[keyset.Key]entry{}, room: make(chan struct{}), wake: make(chan struct{}, 1), cut: make(chan struct{})}
}

var _ replication.Sink = (*Set)(nil)

// Add marks the key of a change dirty.
func (s *Set) Add(change replication.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	e, dirty := s.entries[change.Key]
	if !dirty {
		e = s.enter(change.Key)
		s.dirtied++
	}
	if e.first == 0 {
		e.first = change.Commit
	}
	if !e.queued && e.nextOrdinal == 0 {
		e.nextFirst, e.nextOrdinal = change.Commit, s.clock
		s.dirtied++
	}
	e.xid, e.touched = change.XID, s.clock
	s.entries[change.Key] = e
	if _, watching := s.watched[change.Key]; watching {
		s.watched[change.Key] = true
	}
	s.signal()
}

// Doubt marks keys dirty that no change of the stream did: verification found
// them to differ. They hold back no position.
func (s *Set) Doubt(keys []keyset.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		s.clock++
		e, dirty := s.entries[key]
		if !dirty {
			e = s.enter(key)
		}
		e.touched = s.clock
		s.entries[key] = e
	}
	s.signal()
}

// enter makes the entry of a key that was clean and puts it in the queue.
func (s *Set) enter(key keyset.Key) entry {
	s.queue = append(s.queue, key)
	s.bytes += cost(key)
	return entry{ordinal: s.clock, queued: true}
}

// Truncate forgets every older key: the rows they stand for are gone.
func (s *Set) Truncate(xid uint32, commit pg.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.truncated = &Truncation{XID: xid, Commit: commit}
	close(s.cut)
	s.cut = make(chan struct{})
	for key := range s.watched {
		s.watched[key] = true
	}
	s.signal()
}

// Truncated returns the last truncation that was not yet dealt with.
func (s *Set) Truncated() *Truncation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.truncated
}

// AwaitTruncation returns a channel that is closed at the next truncation; it is
// closed already when one is waiting to be dealt with.
func (s *Set) AwaitTruncation() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.truncated != nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return s.cut
}

// ClearTruncated says that the shadow is empty too and the copy starts again.
func (s *Set) ClearTruncated(done *Truncation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.truncated == done {
		s.truncated = nil
	}
}

// Full implements replication.Sink.
func (s *Set) Full() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = s.full()
	return s.waiting, s.room
}

func (s *Set) full() bool {
	return s.bytes >= s.limit && !s.lifted || s.bytes >= overflow*s.limit
}

// reading is what there is to know of the set for the pace.
func (s *Set) reading() reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return reading{keys: len(s.entries), dirtied: s.dirtied, full: s.full()}
}

// Oldest implements replication.Sink. A truncation that was not dealt with holds
// the position back too.
func (s *Set) Oldest() (pg.LSN, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest pg.LSN
	if s.truncated != nil {
		oldest = s.truncated.Commit
	}
	for _, e := range s.entries {
		if e.first != 0 && (oldest == 0 || e.first < oldest) {
			oldest = e.first
		}
	}
	return oldest, oldest != 0
}

// Len is the number of dirty keys.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// Watch starts recording which of the keys the stream dirties from now on,
// whether or not they are replayed meanwhile. It replaces an earlier watch.
func (s *Set) Watch(keys []keyset.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = make(map[keyset.Key]bool, len(keys))
	for _, key := range keys {
		s.watched[key] = false
	}
}

// Touched tells whether a watched key was dirtied since Watch.
func (s *Set) Touched(key keyset.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watched[key]
}

// taken is a dirty key handed out for replay. It stays in the set until done.
type taken struct {
	key     keyset.Key
	xid     uint32
	touched uint64
}

// take hands out up to n keys, the longest dirty first. Each must come back by
// done or giveBack.
func (s *Set) take(n int) []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := make([]taken, 0, min(n, len(s.entries)))
	next := 0
	for ; next < len(s.queue) && len(batch) < n; next++ {
		key := s.queue[next]
		e, dirty := s.entries[key]
		if !dirty || !e.queued {
			continue // cleared since it was queued
		}
		e.queued = false
		s.entries[key] = e
		batch = append(batch, taken{key: key, xid: e.xid, touched: e.touched})
	}
	s.queue = s.queue[next:]
	return batch
}

// done removes the keys that no change has dirtied since they were taken, and
// queues the others again.
func (s *Set) done(batch []taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range batch {
		e, dirty := s.entries[t.key]
		switch {
		case dirty && e.touched == t.touched:
			delete(s.entries, t.key)
			s.bytes -= cost(t.key)
		case dirty && e.nextOrdinal != 0:
			e.first, e.ordinal = e.nextFirst, e.nextOrdinal
			s.entries[t.key] = e
		}
	}
	s.requeue(batch)
	if len(s.entries) == 0 {
		s.clear()
	}
	s.makeRoom()
}

// giveBack queues keys that could not be replayed, behind all others.
func (s *Set) giveBack(batch []taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requeue(batch)
}

// lift lets the set grow beyond its limit, for the stream to reach a fence that
// resolves a conflict.
func (s *Set) lift(lifted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifted = lifted
	if lifted && s.waiting {
		close(s.room)
		s.room, s.waiting = make(chan struct{}), false
	}
}

// overflows tells that the set is full although it was lifted.
func (s *Set) overflows() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes >= overflow*s.limit
}

// requeueAll queues every key that was taken and is still dirty.
func (s *Set) requeueAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, e := range s.entries {
		if !e.queued {
			s.enqueue(key, e)
		}
	}
}

// enqueue puts a dirty key that was taken back into the queue.
func (s *Set) enqueue(key keyset.Key, e entry) {
	e.queued, e.nextFirst, e.nextOrdinal = true, 0, 0
	s.entries[key] = e
	s.queue = append(s.queue, key)
}

func (s *Set) requeue(batch []taken) {
	for _, t := range batch {
		if e, dirty := s.entries[t.key]; dirty && !e.queued {
			s.enqueue(t.key, e)
		}
	}
}

// now is the set's clock: keys dirtied up to now have a smaller or equal ordinal.
func (s *Set) now() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

// drainedTo tells whether every key first dirtied at or before clock is gone.
func (s *Set) drainedTo(clock uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.ordinal <= clock {
			return false
		}
	}
	return s.truncated == nil
}

func (s *Set) clear() {
	s.entries, s.queue, s.bytes = map[keyset.Key]entry{}, nil, 0
	s.makeRoom()
}

func (s *Set) makeRoom() {
	if s.waiting && s.bytes < s.limit {
		close(s.room)
		s.room, s.waiting = make(chan struct{}), false
	}
}

func (s *Set) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func cost(key keyset.Key) int { return entryBytes + len(key) }
