package replication

import (
	"math/rand/v2"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// TestPositionsKeepTheirOrder calls them in any order with any argument.
func TestPositionsKeepTheirOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var p Positions
		var asked pg.LSN // to be confirmed
		for range 50 {
			before, lsn := p, pg.LSN(random.Uint64N(100))
			switch random.IntN(3) {
			case 0:
				if p = p.receive(lsn); p.Received < lsn {
					t.Fatalf("received up to %s, the positions are %+v", lsn, p)
				}
			case 1:
				if p = p.apply(lsn); p.Applied > max(before.Applied, lsn) || p.Applied < min(lsn, p.Received) {
					t.Fatalf("applied up to %s, the positions are %+v", lsn, p)
				}
			case 2:
				asked = max(asked, lsn)
				if p = p.confirm(lsn); p.Confirmed < min(lsn, p.Applied) {
					t.Fatalf("confirmed up to %s, the positions are %+v", lsn, p)
				}
			}
			if p.Received < p.Applied || p.Applied < p.Confirmed || p.Confirmed > asked {
				t.Fatalf("the positions are out of order: %+v, asked to confirm %s", p, asked)
			}
			if p.Received < before.Received || p.Applied < before.Applied || p.Confirmed < before.Confirmed {
				t.Fatalf("a position went back: %+v after %+v", p, before)
			}
		}
	}
}
