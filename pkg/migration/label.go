package migration

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// label sets security labels. A provider that is not loaded, or does not take one,
// is a refusal: nothing is left of the transaction then.
func (m *Migration) label(ctx context.Context, tx pgx.Tx, confined pg.Confined, labels []shadow.Rider) error {
	for _, rider := range labels {
		if err := execAll(ctx, tx, confined, rider.Statements); err != nil {
			return m.refuseLabel(rider, err)
		}
	}
	return nil
}

// refuseLabel makes a refusal of the server's no to a label.
func (m *Migration) refuseLabel(rider shadow.Rider, err error) error {
	pgErr := pg.Judged(err)
	if pgErr == nil {
		return err
	}
	remedy := fmt.Sprintf("have the provider's library loaded in every session of %s (shared_preload_libraries, or ALTER DATABASE ... SET session_preload_libraries)", m.target.server.Role)
	if pg.Is(err, pg.InsufficientRights) {
		remedy = "log in as a role that may set it, a superuser for one, or give the right to the owner, as whom any other role sets it"
	}
	return &shadow.Refusal{Check: "security label", Reason: rider.Cannot + ": " + pgErr.Message,
		Remedy: remedy + "; or remove the label for the change, and set it again after"}
}
