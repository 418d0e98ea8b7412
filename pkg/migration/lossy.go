package migration

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// refuseLosses refuses a change that may lose something of values, unless that is
// allowed.
func (m *Migration) refuseLosses(losses []shadow.Loss) error {
	if len(losses) == 0 || m.config.AllowLossy {
		return nil
	}
	reasons := make([]string, len(losses))
	for i, loss := range losses {
		reasons[i] = fmt.Sprintf("column %q: %s", loss.Column, loss.Reason)
	}
	return &shadow.Refusal{Check: "lossy", Reason: "the change may lose something: " + strings.Join(reasons, "; "),
		Remedy: "give --allow-lossy if that is meant; pgshadow plan says how many rows lose something"}
}

// conversions asks the server what it says of conversions between types.
func conversions(ctx context.Context, tx pgx.Tx) (c shadow.Conversions, err error) {
	rows, err := tx.Query(ctx, "SELECT ARRAY[castsource, casttarget] FROM pg_catalog.pg_cast WHERE castmethod = 'b'")
	if err != nil {
		return c, fmt.Errorf("reading the casts: %w", err)
	}
	pairs, err := pgx.CollectRows(rows, pgx.RowTo[[]uint32])
	if err != nil {
		return c, fmt.Errorf("reading the casts: %w", err)
	}
	c.Coercible = make(map[[2]uint32]bool, len(pairs))
	for _, pair := range pairs {
		c.Coercible[[2]uint32(pair)] = true
	}
	err = tx.QueryRow(ctx, "SELECT pg_catalog.upper(pg_catalog.current_setting('TimeZone')) IN ('UTC', 'ETC/UTC', 'GMT', 'ETC/GMT', 'UCT', 'ETC/UCT', 'ZULU', 'UNIVERSAL')").Scan(&c.UTC)
	if err != nil {
		return c, fmt.Errorf("reading the time zone: %w", err)
	}
	return c, nil
}
