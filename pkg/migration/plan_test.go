package migration

import (
	"encoding/json"
	"testing"
	"time"
)

// TestPlanNamesEverything: what the contract of the command line names is in the JSON of every plan, of a refused
// change and of a standby's too, and what is not known is null.
func TestPlanNamesEverything(t *testing.T) {
	t.Parallel()
	document, err := json.Marshal(newPlanReport(PlanConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(document, &fields); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"table": `""`, "verdict": `"unknown"`, "method": "null", "estimate": "null", "statements": "[]", "refusals": "[]",
		"sizes": `{"rows":0,"heap_bytes":0,"toast_bytes":0,"index_bytes":0,"total_bytes":0}`} {
		if got := string(fields[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	statement, err := json.Marshal(PlanStatement{})
	if err != nil {
		t.Fatal(err)
	}
	fields = nil
	if err := json.Unmarshal(statement, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sql", "lock", "lock_timeout_ms", "why"} {
		if fields[name] == nil {
			t.Errorf("a statement has no %s: %s", name, statement)
		}
	}
	var again PlanReport
	if err := json.Unmarshal(document, &again); err != nil || again.Method != "" {
		t.Errorf("read again the method is %q, %v", again.Method, err)
	}
}

// TestGrown: what an empty table takes does not grow with the rows.
func TestGrown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		empty, full, want time.Duration
		times             float64
	}{
		{36 * time.Millisecond, 37 * time.Millisecond, 36*time.Millisecond + 1000*time.Second, 1e6},
		{37 * time.Millisecond, 36 * time.Millisecond, 37 * time.Millisecond, 1e6}, // measured, it may be so
		{0, 5 * time.Millisecond, 10 * time.Millisecond, 2},
	} {
		if got := grown(c.empty, c.full, c.times); got != c.want {
			t.Errorf("from %s to %s, %g times: %s, want %s", c.empty, c.full, c.times, got, c.want)
		}
	}
}
