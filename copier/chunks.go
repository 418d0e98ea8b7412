// Package copier owns the copy: cutting the key space into chunks, copying one
// chunk in one short transaction, the chunk size, and the two watermarks.
package copier

import (
	"slices"
	"sync"

	"github.com/pgshadow/pgshadow/pkg/keyset"
)

// Done is a chunk that an earlier process of the run has committed.
type Done struct {
	Range keyset.Range
	Rows  int64
}

// piece is a part of the key space that was handed out, or is to be.
type piece struct {
	keyset.Range
	taken bool
	done  bool
}

// Chunks keeps track of the key space: which chunks were handed out, which are
// committed, and so the low and the high watermark. It is safe for concurrent use.
type Chunks struct {
	mu     sync.Mutex
	pieces []*piece // in key order, without gaps, from the low to the high watermark
	low    keyset.Watermark
	high   keyset.Watermark
	rows   int64
}

// NewChunks starts with the chunks that are committed already, in key order.
// What lies between them was handed out and lost, and is handed out again.
func NewChunks(committed []Done) *Chunks {
	c := &Chunks{}
	for _, chunk := range committed {
		c.rows += chunk.Rows
		if !sameBound(chunk.Range.Lo, c.high) {
			c.pieces = append(c.pieces, &piece{Range: keyset.Range{Lo: c.high.Key, Hi: chunk.Range.Lo}})
		}
		c.pieces = append(c.pieces, &piece{Range: chunk.Range, taken: true, done: true})
		c.high = after(chunk.Range)
	}
	c.raiseLow()
	return c
}

func sameBound(lo *keyset.Key, high keyset.Watermark) bool {
	if lo == nil || high.Key == nil {
		return lo == nil && high.Key == nil && !high.End
	}
	return *lo == *high.Key
}

// after is the watermark that a chunk reaches: its upper bound, or the end.
func after(r keyset.Range) keyset.Watermark {
	return keyset.Watermark{Key: r.Hi, End: r.Hi == nil}
}

// Watermarks returns both (design section 4): every chunk at or below low is
// committed, every chunk at or below high has been handed out.
func (c *Chunks) Watermarks() (low, high keyset.Watermark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.low, c.high
}

// Rows counts the rows that committed chunks have copied.
func (c *Chunks) Rows() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rows
}

// Complete tells that the whole key space is committed.
func (c *Chunks) Complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.low.End
}

// reuse hands out a piece that was cut before and not copied, if there is one.
func (c *Chunks) reuse() (*piece, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pieces {
		if !p.taken {
			p.taken = true
			return p, true
		}
	}
	return nil, false
}

// frontier is where the next new chunk begins; end tells that there is none.
func (c *Chunks) frontier() (lo *keyset.Key, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.high.Key, c.high.End
}

// extend hands out the next new chunk. Raising the high watermark comes before
// any statement of the chunk can begin (INV-3).
func (c *Chunks) extend(r keyset.Range) *piece {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &piece{Range: r, taken: true}
	c.pieces = append(c.pieces, p)
	c.high = after(r)
	return p
}

// split shortens a chunk that was handed out to end at hi; the rest is handed
// out again.
func (c *Chunks) split(p *piece, hi keyset.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := &piece{Range: keyset.Range{Lo: &hi, Hi: p.Hi}}
	p.Hi = &hi
	c.pieces = slices.Insert(c.pieces, slices.Index(c.pieces, p)+1, rest)
}

// finish records that a chunk is committed.
func (c *Chunks) finish(p *piece, rows int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.done = true
	c.rows += rows
	c.raiseLow()
}

// raiseLow moves the low watermark over the committed prefix; what completed
// out of order stays parked behind it.
func (c *Chunks) raiseLow() {
	prefix := 0
	for prefix < len(c.pieces) && c.pieces[prefix].done {
		c.low = after(c.pieces[prefix].Range)
		prefix++
	}
	c.pieces = slices.Delete(c.pieces, 0, prefix)
}
