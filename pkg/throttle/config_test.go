package throttle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	good := Config{MaxReplicaLag: DefaultMaxReplicaLag, MaxActiveSessions: 1, Query: "SELECT 1", File: "stop", MaxRowsPerSecond: 1, Interval: 1}
	for _, config := range []Config{{}, good} {
		if err := config.Validate(); err != nil {
			t.Errorf("%+v: %v", config, err)
		}
	}
	bad := Config{MaxReplicaLag: -1, MaxActiveSessions: -1, Query: " \n", File: " ", MaxRowsPerSecond: -1, Interval: -1}
	err := bad.Validate()
	if err == nil {
		t.Fatal("a bad config was taken")
	}
	for _, word := range []string{"interval", "max-replica-lag", "max-active-sessions", "throttle-query", "throttle-file", "max-rows-per-second"} {
		if strings.Count(err.Error(), word) != 1 {
			t.Errorf("%q does not name %s once", err, word)
		}
	}
	if _, err := New(&pg.Database{}, bad); err == nil {
		t.Error("New took a bad config")
	}
}

func TestSettersTakeNoNonsense(t *testing.T) {
	t.Parallel()
	throttle, err := New(open(t, ""), Config{MaxReplicaLag: time.Second, MaxActiveSessions: 1, Query: "SELECT 1", File: "f", MaxRowsPerSecond: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := throttle.Sources
	for name, set := range map[string]struct{ nonsense, off func() error }{
		"replica lag":     {func() error { return s.ReplicaLag.SetLimit(-1) }, func() error { return s.ReplicaLag.SetLimit(0) }},
		"active sessions": {func() error { return s.ActiveSessions.SetLimit(-1) }, func() error { return s.ActiveSessions.SetLimit(0) }},
		"throttle query":  {func() error { return s.Query.SetText(" ") }, func() error { return s.Query.SetText("") }},
		"throttle file":   {func() error { return s.File.SetPath(" ") }, func() error { return s.File.SetPath("") }},
	} {
		enabled := func() bool {
			for _, w := range throttle.watched {
				if w.source.Name() == name {
					return w.source.Enabled()
				}
			}
			t.Fatalf("there is no source %q", name)
			return false
		}
		if err := set.nonsense(); err == nil || !enabled() {
			t.Errorf("%s: nonsense gives error %v, enabled %t", name, err, enabled())
		}
		if err := set.off(); err != nil || enabled() {
			t.Errorf("%s: off gives error %v, enabled %t", name, err, enabled())
		}
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "stop")
	l := run(t, "host=127.0.0.1 port=1", Config{File: path})
	l.mustGo(t)
	if err := os.Symlink(filepath.Join(dir, "nothing"), path); err != nil {
		t.Fatal(err)
	}
	if got := expect(t, l.changes); got != "file "+path+" exists" {
		t.Errorf("told %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := expect(t, l.changes); got != "" {
		t.Errorf("told %q", got)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, l.changes)
	if err := l.Sources.File.SetPath(filepath.Join(path, "below")); err != nil { // below a file: cannot be looked for
		t.Fatal(err)
	}
	if got := expect(t, l.changes); !strings.HasPrefix(got, "measuring throttle file: looking for the file: ") {
		t.Errorf("told %q", got)
	}
}
