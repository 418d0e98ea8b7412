package migration

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// TestUnfinishedRunIsNamedByItsAlters: as they were given, not as its record has them.
func TestUnfinishedRunIsNamedByItsAlters(t *testing.T) {
	open := &checkpoint.Run{ID: "abc", Change: []byte(`{"alters": ["ADD COLUMN a int", "DROP COLUMN b"]}`)}
	recorded, err := readChange(open)
	if err != nil {
		t.Fatal(err)
	}
	rehearsal := recorded
	rehearsal.Rehearsal = true
	rehearsing := &Migration{rehearsal: newRehearsal(&Rehearsal{})}
	for name, err := range map[string]error{
		"another change":      refuseUnfinished(open),
		"met by a rehearsal":  rehearsing.meetRehearsal(t.Context(), open, shadow.Names{}, recorded),
		"a rehearsal is open": (&Migration{}).meetRehearsal(t.Context(), open, shadow.Names{}, rehearsal),
	} {
		var refusal *shadow.Refusal
		if !errors.As(err, &refusal) || !strings.HasSuffix(refusal.Reason, ": ADD COLUMN a int; DROP COLUMN b") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
