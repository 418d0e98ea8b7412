package pg

import (
	"fmt"
)

// LSN is a position in the write-ahead log, in bytes (PostgreSQL manual section 8.20).
type LSN uint64

// String renders the position as PostgreSQL does, such as 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads a position in PostgreSQL's form.
func ParseLSN(s string) (LSN, error) {
	var high, low uint32
	if n, err := fmt.Sscanf(s, "%X/%X", &high, &low); n != 2 || err != nil {
		return 0, fmt.Errorf("reading %q as an LSN: want the form 16/B374D848", s)
	}
	return LSN(high)<<32 | LSN(low), nil
}

// MarshalText and UnmarshalText let an LSN stand in JSON in PostgreSQL's form.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	*l = parsed
	return err
}
