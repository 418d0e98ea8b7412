//go:build containers

package pgtest

import (
	"strings"
	"testing"
)

// TestContainer says what the tests of scripts/test-containers.sh run on: a server that is in a container, and started
// as pgserver starts its own.
func TestContainer(t *testing.T) {
	db := New(t)
	if db.Server() != nil || Scalar[bool](t, db, "SELECT host(inet_server_addr()) = '127.0.0.1'") {
		t.Error("the server is not in a container")
	}
	version := Scalar[string](t, db, "SHOW server_version")
	inside, err := db.source.pgDump(t.Context(), "--version")
	if err != nil || !strings.Contains(inside, version) {
		t.Errorf("the container has %q (%v), and the server is %s", inside, err, version)
	}
	for name, want := range map[string]string{"wal_level": "logical", "max_prepared_transactions": "20", "TimeZone": "UTC"} {
		if got := Scalar[string](t, db, "SELECT current_setting($1)", name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	number, _, _ := strings.Cut(version, " ")
	t.Logf("the container runs PostgreSQL %s", number)
}
