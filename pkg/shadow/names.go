// Package shadow turns catalog facts and a change into what the server is to be
// told: the statements that build the shadow table, the mapping of the
// original's columns to it, and the statements of the swap. It is pure: it talks
// to no server, so that what is planned is what is run.
package shadow

import (
	"fmt"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Prefix begins the name of everything that pgshadow leaves on a server.
const Prefix = "pgshadow"

// Names are a run's artifacts. They derive from the run id alone, so a later
// process finds every artifact of a run that it did not start.
type Names struct {
	RunID string `json:"run_id"`
	Table string `json:"table"`
}

// ShadowSchema holds the shadow table until the swap.
func (n Names) ShadowSchema() string { return Prefix + "_" + n.RunID }

// RetiredSchema holds the original after the swap.
func (n Names) RetiredSchema() string { return Prefix + "_" + n.RunID + "_retired" }

// Publication publishes the original's changes, and nothing else.
func (n Names) Publication() string { return Prefix + "_" + n.RunID }

// Slot is the logical replication slot.
func (n Names) Slot() string { return Prefix + "_" + n.RunID }

// KeyIndex is the unique index that the shadow gets for the length of the run
// when the changed table has none on the key's columns.
func (n Names) KeyIndex() string { return Prefix + "_key" }

// Shadow is the shadow table's quoted name.
func (n Names) Shadow() string { return pg.Ident(n.ShadowSchema(), n.Table) }

// Retired is the retired table's quoted name.
func (n Names) Retired() string { return pg.Ident(n.RetiredSchema(), n.Table) }

// MessagePrefix is the prefix of the run's fence messages in the WAL.
func (n Names) MessagePrefix() string { return Prefix }

// Refusal is a "no" from before anything was created: which check, why, and
// what the user can do about it.
type Refusal struct {
	Check  string `json:"check"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s; %s", r.Check, r.Reason, r.Remedy) }

// Statement is one command to the server, and what it costs there.
type Statement struct {
	SQL      string            `json:"sql"`
	Lock     string            `json:"lock"`               // the strongest lock it takes, and on what
	Why      string            `json:"why"`                // for the plan and the log
	Role     string            `json:"role,omitempty"`     // SET ROLE around it; empty: the session's own
	Settings map[string]string `json:"settings,omitempty"` // SET LOCAL around it
}
