package migration

import (
	"fmt"
	"slices"
)

// Phase is where a run is. Its names are the headings of docs/how-it-works.md.
type Phase int

// The phases, in their order.
const (
	Preflight Phase = iota
	Prepare
	Native // PostgreSQL itself is led through the change: no shadow
	Copy
	Index
	CatchUp
	Verify
	Cutover
	CleanUp
	Ended
)

func (p Phase) String() string {
	switch p {
	case Preflight:
		return "preflight"
	case Prepare:
		return "prepare"
	case Native:
		return "native"
	case Copy:
		return "copy"
	case Index:
		return "index"
	case CatchUp:
		return "catch_up"
	case Verify:
		return "verify"
	case Cutover:
		return "cutover"
	case CleanUp:
		return "clean_up"
	case Ended:
		return "ended"
	default:
		return fmt.Sprintf("phase %d", int(p))
	}
}

// parsePhase reads the name of a phase out of a checkpoint.
func parsePhase(name string) (Phase, error) {
	for p := Preflight; p <= Ended; p++ {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("reading the checkpoint: no phase is called %q; a newer pgshadow may have written it", name)
}

// next lists which phases may follow each. A TRUNCATE of the original sends the
// run back to the copy from wherever the stream flows.
func (p Phase) next() []Phase {
	switch p {
	case Preflight:
		return []Phase{Prepare, Native, Copy, Index, CatchUp, Verify, Cutover}
	case Prepare:
		return []Phase{Copy}
	case Native:
		return []Phase{CleanUp}
	case Copy:
		return []Phase{Index, Copy}
	case Index:
		return []Phase{CatchUp, Copy}
	case CatchUp:
		return []Phase{Verify, Copy}
	case Verify:
		return []Phase{Cutover, Copy}
	case Cutover:
		return []Phase{CleanUp, Copy}
	case CleanUp:
		return []Phase{Ended}
	case Ended:
		return nil
	default:
		return nil
	}
}

// mayFollow tells whether a run in phase p may enter phase next.
func (p Phase) mayFollow(next Phase) bool { return slices.Contains(p.next(), next) }

// MarshalText and UnmarshalText let a phase stand in JSON by its name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Phase) UnmarshalText(text []byte) error {
	parsed, err := parsePhase(string(text))
	*p = parsed
	return err
}
