package pgserver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// install makes a folder below root with empty programs of the names.
func install(t *testing.T, root, folder string, names ...string) string {
	t.Helper()
	dir := filepath.Join(root, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindOrder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	patterns := []string{filepath.Join(root, "*", "bin")}
	install(t, root, "9.6/bin", programs...)
	fifteen := install(t, root, "15/bin", programs...)
	install(t, root, "18/bin", "postgres") // no initdb: a client's or a half removed package
	inPath := install(t, root, "path", programs...)
	clients := install(t, root, "clients", "psql")
	links := install(t, root, "links")
	for _, name := range programs {
		if err := os.Symlink(filepath.Join(fifteen, name), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	path := clients + string(os.PathListSeparator) + inPath

	for _, c := range []struct{ name, named, path, want string }{
		{"named", fifteen, path, fifteen},
		{"path", "", path, inPath},
		{"behind links in the path", "", links, fifteen},
		{"installed, highest complete version", "", clients, fifteen},
	} {
		got, err := find(c.named, c.path, patterns)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestFindNothingSaysTheRemedy(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for name, named := range map[string]string{"nothing installed": "", "named folder without programs": empty} {
		_, err := find(named, empty, []string{filepath.Join(empty, "*", "bin")})
		var missing *NotFoundError
		if !errors.As(err, &missing) {
			t.Fatalf("%s: got %v, want a *NotFoundError", name, err)
		}
		for _, remedy := range []string{"apt-get install postgresql", "Docker", "PGSHADOW_TEST_DSN"} {
			if !strings.Contains(err.Error(), remedy) {
				t.Errorf("%s: %q does not mention %q", name, err, remedy)
			}
		}
	}
}
