package copier

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// search is for the refused rows of one chunk.
type search struct {
	rows  int  // the chunk has no more than these, once it was cut down
	empty bool // it was refused, and then had no row
}

// leaveOut cuts a refused chunk down to half its rows, to be tried again; the rest is
// handed out again. A chunk of one row is that of the refused row: it is told, and
// the chunk counts as copied (done), without its row and without a record. Where no
// refused row is to be left out, the error names one of the chunk's.
func (c *Copier) leaveOut(ctx context.Context, conn *pgx.Conn, chunk *piece, s *search, cause error) (done bool, err error) {
	if c.config.OnRefused == nil {
		return false, c.locate(ctx, conn, chunk.Range, cause)
	}
	c.cutting.Lock()
	defer c.cutting.Unlock()
	for {
		s.rows = max(s.rows/2, 1)
		hi, err := c.cutter.cut(ctx, conn, chunk.Range, s.rows)
		switch {
		case err != nil:
			return false, errors.Join(cause, err)
		case hi != nil && (chunk.Hi == nil || *chunk.Hi != *hi):
			c.chunks.split(chunk, *hi)
			return false, nil
		case s.rows == 1:
			return c.leaveOutRow(chunk, hi, s, cause)
		}
	}
}

// leaveOutRow ends a chunk of the one row with key; nil: it has none.
func (c *Copier) leaveOutRow(chunk *piece, key *keyset.Key, s *search, cause error) (done bool, err error) {
	switch {
	case key == nil && s.empty:
		return false, shadow.Rejected(cause) // whatever the rows are
	case key == nil:
		s.empty = true // the row has gone meanwhile
		return false, nil
	}
	refused := &DataError{Key: *key, Cause: cause}
	c.chunks.finish(chunk, 0)
	if !c.config.OnRefused(refused) {
		return false, refused
	}
	return true, nil
}
