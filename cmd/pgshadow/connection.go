package main

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// connectionSettings say which database. Every command that connects has them.
func connectionSettings(dsn *string) []setting {
	return []setting{{name: "dsn", value: "URL|key=value", take: text(dsn),
		help: "connection string; without it libpq's variables: PGHOST, PGPORT,\nPGUSER, PGPASSWORD, PGPASSFILE, PGDATABASE, PGSERVICE,\nPGSSLMODE..."}}
}

// checkDSN finds what is wrong with the connection settings, without connecting.
// Nothing of a URL that cannot be read is shown: any of it may be the password.
func checkDSN(dsn string) error {
	if isURL(dsn) && misreads(dsn) {
		return errors.New("dsn is not a URL as PostgreSQL takes it: want postgres://user:password@host:port/database, " +
			"with %2F for / and %40 for @ in a password (%23 for #, %3F for ?)")
	}
	if _, err := pg.Open(dsn); err != nil {
		return fmt.Errorf("dsn is wrong: %w", err)
	}
	return nil
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

// misreads tells a URL that cannot be read, or whose user part ends early because
// of a / ? or # in the password: what is left of it would become the database's
// name, and so be printed.
func misreads(dsn string) bool {
	parsed, err := url.Parse(dsn)
	if err != nil {
		return true
	}
	rest := parsed.EscapedPath() + parsed.EscapedFragment()
	for option := range strings.SplitSeq(parsed.RawQuery, "&") {
		name, _, _ := strings.Cut(option, "=")
		rest += name
	}
	return strings.Contains(rest, "@")
}

var passwordKey = regexp.MustCompile(`(?i)(^|\s)(ssl)?password\s*=`)

// hasPassword tells whether a connection string holds a password.
func hasPassword(dsn string) bool {
	if !isURL(dsn) {
		return passwordKey.MatchString(dsn)
	}
	parsed, err := url.Parse(dsn)
	if err != nil {
		return false
	}
	_, given := parsed.User.Password()
	return given || parsed.Query().Has("password") || parsed.Query().Has("sslpassword")
}
