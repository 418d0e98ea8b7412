package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// Snapshot is the server's pg_current_snapshot() (PostgreSQL manual section
// 9.27.4): which transactions' effects a statement sees.
type Snapshot struct {
	xmin, xmax uint64
	running    map[uint64]struct{}
}

// ParseSnapshot reads the form xmin:xmax:xip,xip.
func ParseSnapshot(text string) (Snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return Snapshot{}, fmt.Errorf("reading %q as a snapshot: want xmin:xmax:list", text)
	}
	s := Snapshot{running: map[uint64]struct{}{}}
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return Snapshot{}, fmt.Errorf("reading %q as a snapshot: %w", text, err)
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return Snapshot{}, fmt.Errorf("reading %q as a snapshot: %w", text, err)
	}
	if parts[2] == "" {
		return s, nil
	}
	for _, id := range strings.Split(parts[2], ",") {
		xid, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("reading %q as a snapshot: %w", text, err)
		}
		s.running[xid] = struct{}{}
	}
	return s, nil
}

// Sees tells whether the effects of a committed top-level transaction are
// visible in the snapshot. The xid is the 32-bit one of the replication
// protocol; it is widened by the epoch that puts it nearest to the snapshot.
// Zero, no transaction, is always visible.
func (s Snapshot) Sees(xid uint32) bool {
	if xid == 0 {
		return true
	}
	full := s.widen(xid)
	if full < s.xmin {
		return true
	}
	if full >= s.xmax {
		return false
	}
	_, running := s.running[full]
	return !running
}

// widen returns the 64-bit transaction id with the given low half that lies
// nearest to the snapshot: no two running transactions are 2^31 apart.
func (s Snapshot) widen(xid uint32) uint64 {
	distance := int32(xid - uint32(s.xmax))
	return uint64(int64(s.xmax) + int64(distance))
}

// Xmax is the first transaction id that had not been assigned yet.
func (s Snapshot) Xmax() uint64 { return s.xmax }
