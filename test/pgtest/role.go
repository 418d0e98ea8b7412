package pgtest

import (
	"net/url"
	"strings"
	"testing"
)

// Role creates a role with the attributes of CREATE ROLE, called after the database, and returns its name. It is
// dropped after the database, with which goes whatever it owns there.
func (db *DB) Role(t testing.TB, suffix, attributes string) string {
	t.Helper()
	name := db.Name + "_" + suffix
	db.Exec(t, "CREATE ROLE "+quote(name)+" "+attributes)
	db.roles = append(db.roles, name)
	return name
}

// As is the database's DSN with another role to log in as.
func (db *DB) As(role string) string {
	if !strings.HasPrefix(db.DSN, "postgres://") && !strings.HasPrefix(db.DSN, "postgresql://") {
		return db.DSN + " user=" + role // keyword=value: the last one counts
	}
	parsed, err := url.Parse(db.DSN)
	if err != nil {
		panic(err) // it was read before
	}
	parsed.User = url.User(role)
	return parsed.String()
}
