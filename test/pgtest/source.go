package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

const (
	dsnEnv   = "PGSHADOW_TEST_DSN"
	imageEnv = "PGSHADOW_TEST_IMAGE"
	// containersEnv asks for a container, whatever else there is. Its value is the container's label containerLabel, by
	// which who asked for it can remove it.
	containersEnv  = "PGSHADOW_TEST_CONTAINERS"
	containerLabel = "pgshadow.test"
	defaultImage   = "postgres:15"
)

// source is a server to create databases on.
type source struct {
	adminDSN string
	server   *pgserver.Server // nil: not started by pgserver
	pgDump   dumper
}

// dumper runs pg_dump with the arguments and returns what it prints.
type dumper func(ctx context.Context, args ...string) (string, error)

// surroundings are what decides on the source.
type surroundings struct {
	dsn, image string
	containers string // what containersEnv says
	start      func(context.Context) (*pgserver.Server, error)
	contain    func(ctx context.Context, image, label string) (*source, error)
}

func environment() surroundings {
	image := os.Getenv(imageEnv)
	if image == "" {
		image = defaultImage
	}
	return surroundings{
		dsn:        os.Getenv(dsnEnv),
		image:      image,
		containers: os.Getenv(containersEnv),
		start: func(ctx context.Context) (*pgserver.Server, error) {
			return pgserver.Start(ctx, pgserver.Options{})
		},
		contain: startContainer,
	}
}

// openSource takes the server named by the environment, else one from installed programs, else one in a container; where
// a container is asked for, nothing else.
func openSource(ctx context.Context, env surroundings) (*source, error) {
	if env.containers != "" {
		return env.contain(ctx, env.image, env.containers)
	}
	if env.dsn != "" {
		return &source{adminDSN: env.dsn, pgDump: installedDump("", env.dsn)}, nil
	}
	server, notInstalled := env.start(ctx)
	if notInstalled == nil {
		return serverSource(server), nil
	}
	var missing *pgserver.NotFoundError
	if !errors.As(notInstalled, &missing) { // it is there and does not work: say that
		return nil, notInstalled
	}
	contained, noDocker := env.contain(ctx, env.image, "")
	if noDocker != nil {
		return nil, fmt.Errorf("getting a PostgreSQL server to test with: %w", errors.Join(notInstalled, noDocker))
	}
	return contained, nil
}

func serverSource(server *pgserver.Server) *source {
	return &source{adminDSN: server.DSN("postgres"), server: server, pgDump: installedDump(server.BinDir(), server.DSN("postgres"))}
}

// dsn is the source's DSN with another database.
func (s *source) dsn(database string) (string, error) {
	if !strings.HasPrefix(s.adminDSN, "postgres://") && !strings.HasPrefix(s.adminDSN, "postgresql://") {
		return s.adminDSN + " dbname=" + database, nil // keyword=value: the last one counts
	}
	parsed, err := url.Parse(s.adminDSN)
	if err != nil {
		return "", fmt.Errorf("reading the URL in %s: %w", dsnEnv, err)
	}
	parsed.Path = "/" + database
	query := parsed.Query()
	query.Del("dbname")
	parsed.RawQuery = query.Encode()
	return parsed.String(), nil
}

// administer runs a statement in a session that never waits for a synchronous standby.
func (s *source) administer(ctx context.Context, sql string) error {
	return session(ctx, s.adminDSN, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SET synchronous_commit = local"); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, sql)
		return err
	})
}
