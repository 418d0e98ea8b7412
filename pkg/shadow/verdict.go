package shadow

import (
	"fmt"
	"slices"
	"strings"
)

// Verdict is what a change costs when PostgreSQL makes it in place.
type Verdict int

// The verdicts, in the order of what they cost.
const (
	Instant      Verdict = iota // the catalog changes, and nothing else
	IndexRebuild                // indexes are built, under the lock
	Scan                        // every row is read, under the lock
	Rewrite                     // every row is written anew, under the lock
	Refused                     // PostgreSQL does not make it in place
)

var verdictNames = map[Verdict]string{Instant: "instant", IndexRebuild: "index_rebuild", Scan: "scan", Rewrite: "rewrite", Refused: "refused"}

func (v Verdict) String() string { return verdictNames[v] }

// MarshalText makes the verdict its name in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads the name.
func (v *Verdict) UnmarshalText(text []byte) error {
	for verdict, name := range verdictNames {
		if name == string(text) {
			*v = verdict
			return nil
		}
	}
	return fmt.Errorf("reading a verdict: there is none called %q", text)
}

// Files are the files of a table and of its indexes (pg_relation_filenode). An index
// that is made anew may take over the file of the one before.
type Files struct {
	Table   uint32
	Indexes []uint32
}

// Traces are what an ALTER TABLE leaves on the empty copy of a table: the files
// before and after it, and what the server said of its work, as DEBUG1.
type Traces struct {
	Before, After Files
	Messages      []string
	// Muted tells that code of the table's owner has turned the messages off.
	Muted bool
}

// Verdict reads the traces as what the same does to the rows of the original
// (PostgreSQL's tablecmds.c, where the messages are not translated).
func (t Traces) Verdict() Verdict {
	said := func(prefix string) bool {
		return slices.ContainsFunc(t.Messages, func(message string) bool { return strings.HasPrefix(message, prefix) })
	}
	built := slices.ContainsFunc(t.After.Indexes, func(file uint32) bool { return !slices.Contains(t.Before.Indexes, file) })
	switch {
	case t.Before.Table != t.After.Table:
		return Rewrite
	case t.Muted, said("verifying table"), said("validating foreign key"):
		return Scan
	case built:
		return IndexRebuild
	default:
		return Instant
	}
}
