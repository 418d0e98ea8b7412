package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/log"
)

const (
	containerPort  = "5432/tcp"
	containerLimit = 5 * time.Minute // pulling the image included
)

// containerCommand starts the server with the settings that pgserver gives its own.
var containerCommand = []string{
	"postgres",
	"-c", "wal_level=logical",
	"-c", "max_wal_senders=32",
	"-c", "max_replication_slots=32",
	"-c", "max_connections=200",
	"-c", "max_prepared_transactions=20",
	"-c", "fsync=off",
	"-c", "max_wal_size=2GB",
	"-c", "TimeZone=UTC",
}

// startContainer runs the image, in a container with the label; testcontainers' reaper removes the
// container when this process is gone, unless TESTCONTAINERS_RYUK_DISABLED leaves that to others.
func startContainer(ctx context.Context, image, label string) (*source, error) {
	ctx, cancel := context.WithTimeout(ctx, containerLimit)
	defer cancel()
	if err := dockerAnswers(ctx); err != nil {
		return nil, err
	}
	container, err := testcontainers.Run(ctx, image,
		testcontainers.WithLogger(log.NewNoopLogger()),
		testcontainers.WithEnv(map[string]string{"POSTGRES_HOST_AUTH_METHOD": "trust"}),
		testcontainers.WithLabels(map[string]string{containerLabel: label}),
		testcontainers.WithExposedPorts(containerPort),
		testcontainers.WithCmd(containerCommand...),
	)
	if err != nil {
		return nil, fmt.Errorf("starting a container of %s: %w", image, err)
	}
	host, err := container.Host(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for the container's host: %w", err)
	}
	port, err := container.MappedPort(ctx, containerPort)
	if err != nil {
		return nil, fmt.Errorf("asking for the container's port: %w; it says:\n%s", err, said(ctx, container))
	}
	contained := &source{adminDSN: containerDSN(host, port.Port()), pgDump: containedDump(container)}
	if err = contained.awaitConnection(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the server in the container of %s: %w; it says:\n%s", image, err, said(context.WithoutCancel(ctx), container))
	}
	return contained, nil
}

// said is what the container has printed, for error messages.
func said(ctx context.Context, container testcontainers.Container) string {
	logs, err := container.Logs(ctx)
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	defer logs.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(logs)
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	return string(text)
}

// awaitConnection returns once the server accepts a session. The first server that the image starts, for its own
// set-up, listens on no port.
func (s *source) awaitConnection(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := s.administer(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-ticker.C:
		}
	}
}

// dockerAnswers says in one error what testcontainers says partly by panicking.
func dockerAnswers(ctx context.Context) (err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			err = fmt.Errorf("asking Docker: %v", trouble)
		}
	}()
	provider, err := testcontainers.NewDockerProvider(testcontainers.WithLogger(log.NewNoopLogger()))
	if err != nil {
		return fmt.Errorf("asking Docker: %w", err)
	}
	defer provider.Close() //nolint:errcheck // it was only asked for its health
	if err = provider.Health(ctx); err != nil {
		return fmt.Errorf("asking Docker: %w", err)
	}
	return nil
}

func containerDSN(host, port string) string {
	dsn := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: net.JoinHostPort(host, port),
		Path: "/postgres", RawQuery: "sslmode=disable"}
	return dsn.String()
}

// containedDump runs the pg_dump of the container, whose version is the server's.
func containedDump(container testcontainers.Container) dumper {
	return func(ctx context.Context, args ...string) (string, error) {
		code, output, err := container.Exec(ctx, append([]string{"pg_dump"}, insideContainer(args)...),
			tcexec.Multiplexed())
		if err != nil {
			return "", fmt.Errorf("running pg_dump in the container: %w", err)
		}
		text, err := io.ReadAll(output)
		if err != nil {
			return "", fmt.Errorf("reading what pg_dump in the container says: %w", err)
		}
		if code != 0 {
			return "", fmt.Errorf("running pg_dump in the container: exit code %d: %s", code, text)
		}
		return string(text), nil
	}
}

// insideContainer makes a DSN among the arguments one that leads to the server from inside its container.
func insideContainer(args []string) []string {
	inside := make([]string, len(args))
	for i, arg := range args {
		inside[i] = arg
		before, dsn, found := strings.Cut(arg, "--dbname=")
		if !found || before != "" {
			continue
		}
		if parsed, err := url.Parse(dsn); err == nil {
			parsed.Host = "127.0.0.1:5432"
			inside[i] = "--dbname=" + parsed.String()
		}
	}
	return inside
}
