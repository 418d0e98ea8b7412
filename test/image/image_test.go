//go:build release

// Package image checks the container image that -image names, with the Docker that answers: scripts/test-image.sh.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

var image = flag.String("image", "", "the image to check")

// docker runs the docker program and returns what it prints on stdout.
func docker(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.Bytes()
}

// contained runs pgshadow in a container as strict as one can ask for.
func contained(t *testing.T, dsn string, args ...string) []byte {
	t.Helper()
	options := []string{"run", "--rm", "--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--env", "PGSHADOW_DSN=" + dsn, *image}
	return docker(t, append(options, args...)...)
}

// The image holds the program and the certificate authorities, and is no root's.
func TestContents(t *testing.T) {
	t.Parallel()
	if got := strings.TrimSpace(string(docker(t, "image", "inspect", "--format", "{{.Config.User}} {{.Config.Entrypoint}}", *image))); got != "65532:65532 [/usr/bin/pgshadow]" {
		t.Errorf("its user and entry point are %s", got)
	}
	files := exported(t)
	if got, want := slices.Sorted(maps.Keys(files)), []string{"etc/ssl/certs/ca-certificates.crt", "usr/bin/pgshadow"}; !slices.Equal(got, want) {
		t.Errorf("it holds %q, want %q", got, want)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"]) {
		t.Error("it holds no certificate authorities")
	}
}

// exported are the files of a container that has not been started, but for the empty
// ones that Docker mounts something on.
func exported(t *testing.T) map[string][]byte {
	t.Helper()
	container := strings.TrimSpace(string(docker(t, "create", *image)))
	defer docker(t, "rm", container)
	files := map[string][]byte{}
	for archive := tar.NewReader(bytes.NewReader(docker(t, "export", container))); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg || header.Size == 0 {
			continue
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	want := ", " + runtime.Version() + " linux/" + runtime.GOARCH + "\n"
	if got := string(contained(t, "", "version")); !strings.HasPrefix(got, "pgshadow ") || !strings.HasSuffix(got, want) {
		t.Errorf("it says %q, want a version and %q", got, want)
	}
}

// The whole way: the program starts itself once more to parse, and nothing is written
// but what goes to the database.
func TestAlter(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, `CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL);
		INSERT INTO orders (customer_id) SELECT generate_series(1, 1000)`)
	if got := strings.TrimSpace(string(contained(t, db.DSN, "status", "--output", "json"))); got != "[]" {
		t.Errorf("before the change the status is %s", got)
	}
	output := contained(t, db.DSN, "alter", "--table", "orders", "--alter", "ALTER customer_id TYPE bigint", "--output", "json")
	var report migration.Report
	if err := json.Unmarshal(output, &report); err != nil {
		t.Fatalf("%v in %s", err, output)
	}
	if report.Outcome != migration.Done || report.RowsCopied != 1000 {
		t.Errorf("it reports %s", output)
	}
	if got := pgtest.Scalar[string](t, db, "SELECT pg_typeof(max(customer_id)) || ' ' || count(*) FROM orders"); got != "bigint 1000" {
		t.Errorf("the table holds %s", got)
	}
}
