package replay

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/replication"
)

// live is the memory in use after a collection.
func live() int {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

// fill dirties n keys of about the given length, and returns what memory each takes.
func fill(s *Set, n, length int) (perKey int) {
	before := live()
	for i := range n {
		s.Add(replication.Change{Key: keyset.NewKey(fmt.Sprintf("%0*d", length, i)), XID: 1, Commit: 1})
	}
	return (live() - before) / n
}

// BenchmarkSet reports what a dirty key takes, beside what the set believes.
func BenchmarkSet(b *testing.B) {
	for _, length := range []int{8, 36, 200} {
		b.Run(fmt.Sprintf("key of %d bytes", length), func(b *testing.B) {
			s := NewSet(roomy)
			b.ResetTimer()
			perKey := fill(s, b.N, length)
			b.ReportMetric(float64(perKey), "live-B/key")
			b.ReportMetric(float64(s.bytes/b.N), "counted-B/key")
			runtime.KeepAlive(s)
		})
	}
}

// TestTheSetKnowsItsSize holds the constant entryBytes against the memory that
// keys take, at several fillings of the map.
func TestTheSetKnowsItsSize(t *testing.T) {
	for _, n := range []int{50_000, 65_000, 80_000, 100_000, 115_000} {
		s := NewSet(roomy)
		perKey := fill(s, n, 8)
		counted := s.bytes / n
		t.Logf("%d keys: %d bytes each, %d counted", n, perKey, counted)
		if perKey > counted*5/4 || perKey < counted/3 {
			t.Errorf("%d keys take %d bytes each, the set counts %d", n, perKey, counted)
		}
		runtime.KeepAlive(s)
	}
}
