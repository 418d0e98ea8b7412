package replication

import "github.com/pgshadow/pgshadow/pkg/pg"

// Positions say how far the run has come in the stream. It is immutable; the
// stream is its only writer, and Received >= Applied >= Confirmed.
type Positions struct {
	Received  pg.LSN // read from the stream
	Applied   pg.LSN // every change below it is in the shadow
	Confirmed pg.LSN // and durable: what the slot has been told (INV-4)
}

// receive returns the positions with the stream read up to lsn.
func (p Positions) receive(lsn pg.LSN) Positions {
	p.Received = max(p.Received, lsn)
	return p
}

// apply returns the positions with every change below lsn replayed.
func (p Positions) apply(lsn pg.LSN) Positions {
	p.Applied = min(max(p.Applied, lsn), p.Received)
	return p
}

// confirm returns the positions with every change below lsn durable.
func (p Positions) confirm(lsn pg.LSN) Positions {
	p.Confirmed = min(max(p.Confirmed, lsn), p.Applied)
	return p
}
