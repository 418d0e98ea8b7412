package e2e

import (
	"testing"

	"github.com/pgshadow/pgshadow/test/workload"
)

// TestEveryKindOfKey changes a column that is not part of the key, on tables
// with each kind of key, under every kind of write.
func TestEveryKindOfKey(t *testing.T) {
	for _, spec := range workload.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			rows := 3000
			if spec.Limit > 0 {
				rows = int(spec.Limit / 3)
			}
			change{spec: spec, rows: rows, alters: []string{"ADD COLUMN added int DEFAULT 7"}}.run(t)
		})
	}
}
