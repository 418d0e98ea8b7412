package pgtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

func TestOpenSourceOrder(t *testing.T) {
	t.Parallel()
	notInstalled := &pgserver.NotFoundError{Looked: []string{"PATH"}}
	broken := errors.New("starting postgres: exit status 1")
	contained := &source{adminDSN: "postgres://contained"}
	for name, c := range map[string]struct {
		dsn, containers string
		start, docker   error
		want, wantError string
	}{
		"external server":             {dsn: "host=db", start: broken, want: "host=db"},
		"container":                   {start: notInstalled, want: contained.adminDSN},
		"container asked for":         {dsn: "host=db", containers: "label", want: contained.adminDSN},
		"container not to be had":     {dsn: "host=db", containers: "label", docker: errors.New("no daemon"), wantError: "no daemon"},
		"broken, not missing":         {start: broken, wantError: broken.Error()},
		"nothing: installing helps":   {start: notInstalled, docker: errors.New("x"), wantError: "apt-get install postgresql"},
		"nothing: Docker helps":       {start: notInstalled, docker: errors.New("x"), wantError: "start Docker"},
		"nothing: a server helps":     {start: notInstalled, docker: errors.New("x"), wantError: "PGSHADOW_TEST_DSN"},
		"nothing: Docker's own words": {start: notInstalled, docker: errors.New("no daemon"), wantError: "no daemon"},
	} {
		got, err := openSource(t.Context(), surroundings{
			dsn:        c.dsn,
			image:      "postgres:15",
			containers: c.containers,
			start:      func(context.Context) (*pgserver.Server, error) { return nil, c.start },
			contain: func(_ context.Context, _, label string) (*source, error) {
				if label != c.containers {
					t.Errorf("%s: the container's label is %q", name, label)
				}
				return contained, c.docker
			},
		})
		switch {
		case c.wantError != "":
			if err == nil || !strings.Contains(err.Error(), c.wantError) {
				t.Errorf("%s: got error %v, want one with %q", name, err, c.wantError)
			}
		case err != nil || got.adminDSN != c.want:
			t.Errorf("%s: got %v, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestSourceDSN(t *testing.T) {
	t.Parallel()
	for admin, want := range map[string]string{
		"postgres://u:p%40@h:1/postgres?sslmode=disable": "postgres://u:p%40@h:1/d?sslmode=disable",
		"postgresql://h": "postgresql://h/d",
		"postgres://h/x?dbname=y&connect_timeout=3": "postgres://h/d?connect_timeout=3",
		"host=/tmp user=postgres dbname=x":          "host=/tmp user=postgres dbname=x dbname=d",
	} {
		got, err := (&source{adminDSN: admin}).dsn("d")
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", admin, got, err, want)
		}
	}
}

func TestDockerThatIsAwayIsAnError(t *testing.T) {
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	_, err := startContainer(t.Context(), "postgres:15", "")
	if err == nil || !strings.Contains(err.Error(), "asking Docker") {
		t.Errorf("got %v, want an error", err)
	}
}

func TestContainedDump(t *testing.T) {
	t.Parallel()
	got := insideContainer([]string{"--schema-only", "--dbname=" + containerDSN("localhost", "49153")})
	want := []string{"--schema-only", "--dbname=postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExternalServer(t *testing.T) {
	t.Parallel()
	db := New(t)
	external, err := openSource(t.Context(), surroundings{dsn: db.DSN})
	if err != nil {
		t.Fatal(err)
	}
	other := create(t, external, newDatabase)
	other.Exec(t, "CREATE TABLE orders ()")
	if other.Server() != nil || !strings.Contains(Dump(t, other), "CREATE TABLE public.orders") {
		t.Error("a database of an external server has a server of ours, or no dump")
	}
	if err = other.drop(t.Context()); err != nil {
		t.Error(err)
	}
}
