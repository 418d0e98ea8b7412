package pgtest

import (
	"context"
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/*.sql
var catalogSQL embed.FS

// noPublications is the one argument of pg_dump that catalogs knows.
const noPublications = "--no-publications"

// catalogs lists what the catalogs say of a database's objects, by name and without the schemas pgshadow*: a line each,
// sorted. Two databases of one server are alike when it is equal. It serves where pg_dump is missing or too old.
func catalogs(ctx context.Context, dsn string, args ...string) (string, error) {
	for _, arg := range args {
		if arg != noPublications {
			return "", fmt.Errorf("listing the catalogs of a database: %s is only for pg_dump, which is not there or older than the server", arg)
		}
	}
	files, err := catalogSQL.ReadDir("sql")
	if err != nil {
		return "", fmt.Errorf("reading the catalog queries: %w", err)
	}
	var lines []string
	err = session(ctx, dsn, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SET search_path = ''"); err != nil { // every name is qualified then
			return err
		}
		for _, file := range files {
			if file.Name() == "publications.sql" && slices.Contains(args, noPublications) {
				continue
			}
			query, err := catalogSQL.ReadFile(path.Join("sql", file.Name()))
			if err != nil {
				return err
			}
			found, err := column(ctx, conn, string(query))
			if err != nil {
				return fmt.Errorf("running %s: %w", file.Name(), err)
			}
			lines = append(lines, found...)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("listing the catalogs of a database: %w", err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", nil
}
