package replay

import (
	"sync"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// invisible keeps what a batch left out, since no snapshot sees its transaction.
type invisible struct {
	mu     sync.Mutex
	keys   int64
	xid    uint32    // one of the transactions, for as long as it is not seen; 0: none
	since  time.Time // when a batch first met it
	looked time.Time // when the last batch was taken
}

// note takes what a batch found: the keys that its snapshot does not see.
func (i *invisible) note(now time.Time, snapshot pg.Snapshot, batch []taken) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys, i.looked = 0, now
	var other uint32
	for _, t := range batch {
		if !snapshot.Sees(t.xid) {
			i.keys++
			other = t.xid
		}
	}
	if snapshot.Sees(i.xid) {
		i.xid, i.since = other, now
	}
}

func (i *invisible) clear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys, i.xid = 0, 0
}

// Invisible counts the keys whose transaction the stream delivered but no
// snapshot sees yet, as when a synchronous standby is away (INV-1).
func (r *Replayer) Invisible() int64 {
	r.invisible.mu.Lock()
	defer r.invisible.mu.Unlock()
	return r.invisible.keys
}

// InvisibleFor is for how long replay has found one and the same transaction
// invisible; zero when there is none. While replay rests it stands still.
func (r *Replayer) InvisibleFor() time.Duration {
	r.invisible.mu.Lock()
	defer r.invisible.mu.Unlock()
	if r.invisible.xid == 0 {
		return 0
	}
	return r.invisible.looked.Sub(r.invisible.since)
}
