package pg

import "github.com/jackc/pgx/v5/pgconn"

// Hearing returns a Database whose sessions pass on what the server says beside its
// results, without severity or position; client_min_messages decides what that is.
func (d *Database) Hearing(hear func(message string)) *Database {
	listening := *d
	listening.config = d.config.Copy()
	listening.config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { hear(notice.Message) }
	return &listening
}
