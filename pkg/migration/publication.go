package migration

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// publicationNotes tell by which publications subscribers get the table, and of
// those by which they would get the copy too.
func (m *Migration) publicationNotes(ctx context.Context) ([]string, error) {
	var names, all *string
	err := m.control.QueryRow(ctx, `SELECT pg_catalog.string_agg(pg_catalog.quote_ident(t.pubname), ', ' ORDER BY t.pubname),
			pg_catalog.string_agg(pg_catalog.quote_ident(t.pubname), ', ' ORDER BY t.pubname) FILTER (WHERE p.puballtables)
		FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_publication p USING (pubname)
		WHERE t.schemaname = $1 AND t.tablename = $2 AND NOT pg_catalog.starts_with(t.pubname, 'pgshadow')`,
		m.target.table.Schema, m.target.table.Name).Scan(&names, &all)
	if err != nil {
		return nil, fmt.Errorf("looking up the publications of %s: %w", m.target.table, err)
	}
	var notes []string
	if names != nil {
		notes = append(notes, fmt.Sprintf("publication %s goes on with the new table: on every subscriber make the same change to its table before the cutover, and ALTER SUBSCRIPTION ... REFRESH PUBLICATION after it", *names))
	}
	if all != nil {
		notes = append(notes, fmt.Sprintf("publication %s is FOR ALL TABLES, and no slot sends it now: a subscriber that is created, or connects, during the run gets the copy, and stops since it has no such table. Let none be created or refreshed before the retired table is gone (pgshadow finish), and schema pgshadow with it", *all))
	}
	return notes, nil
}

// refuseUnidentified refuses a copy whose rows replay could not update or delete:
// once a table is published, PostgreSQL asks for a replica identity, and a
// publication of all tables has the copy, whose own may come after the rows only.
func (m *Migration) refuseUnidentified(ctx context.Context, tx pgx.Tx, names shadow.Names) error {
	var publication *string
	err := tx.QueryRow(ctx, `SELECT pg_catalog.min(pg_catalog.quote_ident(p.pubname))
		FROM pg_catalog.pg_publication p, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE p.puballtables AND (p.pubupdate OR p.pubdelete) AND n.nspname = $1 AND c.relname = $2 AND c.relreplident <> 'f'
		  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))`,
		names.ShadowSchema(), names.Table).Scan(&publication)
	if err != nil {
		return fmt.Errorf("looking up the publications of the shadow: %w", err)
	}
	if publication == nil {
		return nil
	}
	return &shadow.Refusal{Check: "publication", Reason: fmt.Sprintf("publication %s is FOR ALL TABLES, and the changed table has no replica identity on the key by which rows are followed: PostgreSQL would let no row of the copy be updated or deleted", *publication),
		Remedy: "replace it by one that lists its tables, or their schemas; or keep the key as the primary key, and make another after the change"}
}
