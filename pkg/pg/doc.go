// Package pg owns everything about talking to a PostgreSQL server that is not
// about schema changes: opening sessions with pinned settings, reading SQLSTATEs,
// quoting identifiers, log sequence numbers, transaction snapshots, and the
// advisory lock that keeps two runs off one table. It is the only package of
// pgshadow that opens a connection.
package pg
