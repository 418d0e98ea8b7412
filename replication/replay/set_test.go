package replay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/replication"
)

const roomy = 1 << 30

func key(n int) keyset.Key { return keyset.NewKey(fmt.Sprint(n)) }

// changed is the change of a key by the transaction whose commit record is at commit.
func changed(n int, commit pg.LSN) replication.Change {
	return replication.Change{Key: key(n), XID: uint32(commit), Commit: commit}
}

func keysTaken(batch []taken) []int {
	keys := make([]int, len(batch))
	for i, t := range batch {
		_, _ = fmt.Sscan(t.key.Values()[0], &keys[i])
	}
	return keys
}

func requireTake(t *testing.T, s *Set, n int, want ...int) []taken {
	t.Helper()
	batch := s.take(n)
	if got := keysTaken(batch); !slices.Equal(got, want) {
		t.Fatalf("took %v, want %v", got, want)
	}
	return batch
}

func requireOldest(t *testing.T, s *Set, want pg.LSN) {
	t.Helper()
	if got, pending := s.Oldest(); got != want || pending != (want != 0) {
		t.Fatalf("oldest is %d (pending %t), want %d", got, pending, want)
	}
}

func TestKeysAreTakenInTheOrderTheyBecameDirty(t *testing.T) {
	s := NewSet(roomy)
	for i, n := range []int{3, 1, 2, 1, 3} {
		s.Add(changed(n, pg.LSN(i+1)))
	}
	first := requireTake(t, s, 2, 3, 1)
	s.giveBack(first[:1])
	second := requireTake(t, s, 5, 2, 3)
	s.done(append(first[1:], second...))
	if s.Len() != 0 || s.bytes != 0 {
		t.Errorf("%d keys and %d bytes are left", s.Len(), s.bytes)
	}
	requireTake(t, s, 5)
}

// TestKeyDirtiedWhileItIsReplayed is what keeps a change that comes between
// reading a row and its key's leaving the set.
func TestKeyDirtiedWhileItIsReplayed(t *testing.T) {
	for name, dirty := range map[string]func(*Set){
		"by a change": func(s *Set) { s.Add(changed(1, 20)) },
		"by a doubt":  func(s *Set) { s.Doubt([]keyset.Key{key(1)}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSet(roomy)
			s.Add(changed(1, 10))
			batch := requireTake(t, s, 1, 1)
			dirty(s)
			requireTake(t, s, 1) // it is in flight
			s.done(batch)
			if again := requireTake(t, s, 1, 1); s.entries[key(1)].xid != again[0].xid {
				t.Errorf("it was taken with transaction %d, the last to dirty it was %d", again[0].xid, s.entries[key(1)].xid)
			}
		})
	}
}

// TestHotKeyDoesNotHoldBack: of a key that is dirtied in every replay, the
// changes before that replay count as replayed: they hold back neither the
// position nor a drain.
func TestHotKeyDoesNotHoldBack(t *testing.T) {
	s := NewSet(roomy)
	s.Add(changed(1, 10))
	for commit := pg.LSN(20); commit < 100; commit += 10 {
		target := s.now()
		batch := requireTake(t, s, 1, 1)
		s.Add(changed(1, commit))
		s.Add(changed(1, commit+1))
		requireOldest(t, s, commit-10)
		s.done(batch)
		requireOldest(t, s, commit)
		if !s.drainedTo(target) || s.drainedTo(s.now()) {
			t.Fatalf("drained to %d: %t, to now: %t", target, s.drainedTo(target), s.drainedTo(s.now()))
		}
	}
	batch := requireTake(t, s, 1, 1)
	s.Add(changed(1, 200))
	s.giveBack(batch) // not replayed after all
	requireOldest(t, s, 90)
}

func TestOldestIsTheFirstChangeNotReplayed(t *testing.T) {
	s := NewSet(roomy)
	requireOldest(t, s, 0)
	s.Doubt([]keyset.Key{key(9)}) // holds nothing back
	requireOldest(t, s, 0)
	s.Add(changed(1, 10))
	s.Add(changed(2, 20))
	s.Add(changed(9, 30))
	s.Add(changed(1, 40))
	requireOldest(t, s, 10)
	batch := requireTake(t, s, 2, 9, 1)
	requireOldest(t, s, 10) // in flight is not replayed
	s.giveBack(batch)
	requireOldest(t, s, 10)
	s.done(s.take(1))
	requireOldest(t, s, 10)
	s.done(s.take(5))
	requireOldest(t, s, 0)
}

func TestFullAndRoom(t *testing.T) {
	s := NewSet(3 * cost(key(1)))
	requireFull := func(want bool) <-chan struct{} {
		t.Helper()
		full, room := s.Full()
		if full != want {
			t.Fatalf("full: %t, want %t, with %d keys", full, want, s.Len())
		}
		return room
	}
	for n := range 3 {
		requireFull(false)
		s.Add(changed(n, 1))
	}
	room := requireFull(true)
	s.Add(changed(0, 2)) // dirty already
	s.giveBack(s.take(1))
	requireOpen(t, room)
	s.done(s.take(1))
	requireClosed(t, room)
	room = requireFull(false)
	s.Add(changed(7, 3))
	requireOpen(t, room)
	room = requireFull(true)
	s.Truncate(4, 4)
	requireClosed(t, room)
	requireFull(false)
}

func requireClosed(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	default:
		t.Fatal("the channel is open")
	}
}

func requireOpen(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
		t.Fatal("the channel is closed")
	default:
	}
}

func TestTruncation(t *testing.T) {
	s := NewSet(roomy)
	requireOpen(t, s.AwaitTruncation())
	s.Add(changed(1, 10))
	s.Add(changed(2, 20))
	batch := s.take(1)
	waiting := s.AwaitTruncation()
	s.Truncate(30, 30)
	requireClosed(t, waiting)
	requireClosed(t, s.AwaitTruncation())
	if s.Len() != 0 {
		t.Errorf("%d keys from before the truncation are left", s.Len())
	}
	s.Add(changed(1, 40))
	s.done(batch) // of before: it must not take the new change with it
	requireTake(t, s, 5, 1)
	requireOldest(t, s, 30) // until the shadow is empty too
	first := s.Truncated()
	s.Truncate(50, 50)
	s.ClearTruncated(first)
	if again := s.Truncated(); again == nil || *again != (Truncation{XID: 50, Commit: 50}) {
		t.Fatalf("clearing an older truncation left %v", again)
	}
	if s.drainedTo(s.now()) {
		t.Error("it counts as drained while a truncation waits")
	}
	s.ClearTruncated(s.Truncated())
	requireOldest(t, s, 0)
	requireOpen(t, s.AwaitTruncation())
	if !s.drainedTo(s.now()) {
		t.Error("it is not drained")
	}
}

func TestWatch(t *testing.T) {
	s := NewSet(roomy)
	requireTouched := func(want ...int) {
		t.Helper()
		for n := range 5 {
			if got := s.Touched(key(n)); got != slices.Contains(want, n) {
				t.Errorf("key %d is touched: %t", n, got)
			}
		}
	}
	s.Add(changed(0, 1)) // before the watch
	s.Watch([]keyset.Key{key(0), key(1), key(2)})
	s.Doubt([]keyset.Key{key(0)}) // not the stream's doing
	s.Add(changed(1, 2))
	s.Add(changed(4, 3)) // not watched
	s.done(s.take(5))
	requireTouched(1)
	s.Watch([]keyset.Key{key(1), key(3)})
	requireTouched()
	s.Truncate(4, 4)
	requireTouched(1, 3)
}

func TestDrainedWaitsForEarlierKeysOnly(t *testing.T) {
	s := NewSet(roomy)
	s.Add(changed(1, 10))
	target := s.now()
	s.Add(changed(2, 20))
	if s.drainedTo(target) {
		t.Error("drained while the key is dirty")
	}
	batch := s.take(1)
	if s.drainedTo(target) {
		t.Error("drained while the key is in flight")
	}
	s.done(batch)
	if !s.drainedTo(target) || s.drainedTo(s.now()) {
		t.Error("want drained to the first key, and not to the second")
	}
}

// TestQueueDoesNotGrow replays few keys many times over, while others cannot be replayed.
func TestQueueDoesNotGrow(t *testing.T) {
	s := NewSet(roomy)
	for n := range 100 {
		s.Add(changed(n, 1))
	}
	for i := range 10_000 {
		s.Add(changed(i%10, pg.LSN(i)))
		batch := s.take(10)
		s.Add(changed(i%10, pg.LSN(i)))
		s.done(batch[:1])
		s.giveBack(batch)
	}
	if len(s.queue) > 100 || cap(s.queue) > 1000 {
		t.Errorf("the queue of %d keys has %d places, %d in use", s.Len(), cap(s.queue), len(s.queue))
	}
}

// TestSetKeepsItsInvariants holds the set, through random calls, against what is
// known of each key: its last change, and whether that has been replayed.
func TestSetKeepsItsInvariants(t *testing.T) {
	const keys = 12
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		s := NewSet(roomy)
		var clock pg.LSN
		var inFlight []taken
		owed := map[int]pg.LSN{} // by key, the commit of its last change, while it is not replayed
		seen := map[keyset.Key]pg.LSN{}
		for step := range 200 {
			clock++
			n := random.IntN(keys)
			switch random.IntN(10) {
			case 0, 1, 2, 3:
				s.Add(changed(n, clock))
				owed[n] = clock
			case 4:
				s.Doubt([]keyset.Key{key(n)})
			case 5, 6:
				batch := s.take(1 + random.IntN(4))
				for i, n := range keysTaken(batch) {
					seen[batch[i].key] = owed[n]
				}
				inFlight = append(inFlight, batch...)
			case 7, 8:
				for i, n := range keysTaken(inFlight) {
					if owed[n] == seen[inFlight[i].key] {
						delete(owed, n)
					}
				}
				s.done(inFlight)
				inFlight = nil
			case 9:
				s.giveBack(inFlight)
				inFlight = nil
				if random.IntN(10) == 0 {
					s.Truncate(uint32(clock), clock)
					s.ClearTruncated(s.Truncated())
					clear(owed)
				}
			}
			if err := checkSet(s, inFlight, owed); err != nil {
				t.Fatalf("round %d, step %d: %v", round, step, err)
			}
		}
	}
}

func checkSet(s *Set, inFlight []taken, owed map[int]pg.LSN) error {
	var oldest pg.LSN
	for n, commit := range owed {
		e, dirty := s.entries[key(n)]
		if !dirty || uint64(e.xid) != uint64(commit) || e.first == 0 || e.first > commit {
			return fmt.Errorf("key %d was changed at %d and not replayed; the set has %+v", n, commit, e)
		}
		if oldest == 0 || commit < oldest {
			oldest = commit
		}
	}
	if at, pending := s.Oldest(); len(owed) > 0 && (!pending || at > oldest) {
		return fmt.Errorf("oldest is %d (%t), a change of %d is not replayed", at, pending, oldest)
	}
	bytes := 0
	for k, e := range s.entries {
		bytes += cost(k)
		queued := 0
		for _, q := range s.queue {
			if q == k {
				queued++
			}
		}
		flying := slices.ContainsFunc(inFlight, func(t taken) bool { return t.key == k })
		if e.queued != (queued == 1) || queued > 1 || (!e.queued && !flying) {
			return fmt.Errorf("key %s: queued %t, %d times in the queue, in flight %t", k, e.queued, queued, flying)
		}
	}
	if bytes != s.bytes {
		return fmt.Errorf("%d bytes are counted, the keys make %d", s.bytes, bytes)
	}
	return nil
}
