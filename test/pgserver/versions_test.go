package pgserver

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestFindVersion(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	patterns, cache := []string{filepath.Join(root, "installed", "*", "bin")}, filepath.Join(root, "cache")
	fifteen := install(t, root, "installed/15/bin", programs...)
	install(t, root, "installed/16/bin", "postgres")
	install(t, root, "cache/15.18.0-beta.17/bin", programs...)
	install(t, root, "cache/16.9.0-beta.17/bin", programs...)
	sixteen := install(t, root, "cache/16.14.0-beta.1/bin", programs...)
	install(t, root, "cache/16.20.0-beta.1/bin", "initdb")
	install(t, root, "cache/.incoming.x/package/native/bin", programs...)
	for major, want := range map[int]string{15: fifteen, 16: sixteen} {
		if got, err := findVersion(major, patterns, cache); err != nil || got != want {
			t.Errorf("PostgreSQL %d: got %q, %v; want %q", major, got, err, want)
		}
	}
	_, err := findVersion(17, patterns, cache)
	var missing *VersionNotFoundError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "scripts/server-programs.sh 17") {
		t.Errorf("PostgreSQL 17: got %v, want the remedy", err)
	}
}

// TestVersionsAreHere: FindVersion finds what the script says it has seen to.
func TestVersionsAreHere(t *testing.T) {
	t.Parallel()
	for _, major := range Versions {
		dir, err := FindVersion(major)
		if err != nil {
			t.Error(err)
			continue
		}
		printed, err := exec.Command("../../scripts/server-programs.sh", strconv.Itoa(major)).Output()
		if err != nil || strings.TrimSpace(string(printed)) != dir {
			t.Errorf("PostgreSQL %d: the script says %q, %v; found %q", major, printed, err, dir)
		}
		about, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if want := "postgres (PostgreSQL) " + strconv.Itoa(major) + "."; err != nil || !strings.HasPrefix(string(about), want) {
			t.Errorf("PostgreSQL %d: %s is %q, %v", major, dir, about, err)
		}
	}
}
