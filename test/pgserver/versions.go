package pgserver

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Versions are the major versions that pgshadow is tested with.
var Versions = []int{14, 15, 16, 17, 18}

// VersionNotFoundError says that the server programs of a major version were not found.
type VersionNotFoundError struct {
	Major  int
	Looked []string // the places, in the order looked at
}

// Error names the places and the remedy.
func (e *VersionNotFoundError) Error() string {
	return fmt.Sprintf("finding the server programs of PostgreSQL %d in %q: none there; remedy: run scripts/server-programs.sh %d, as make test does",
		e.Major, e.Looked, e.Major)
}

// FindVersion returns the folder of the server programs of a major version: of the installed ones, else of those that
// scripts/server-programs.sh has fetched, the newest. The error is a *VersionNotFoundError.
func FindVersion(major int) (binDir string, err error) {
	cache, err := programCache()
	if err != nil {
		return "", err
	}
	return findVersion(major, installFolders, cache)
}

// programCache is the folder in which scripts/server-programs.sh keeps programs. Root's home is closed to the account
// that servers run as then.
func programCache() (string, error) {
	base := "/var/cache"
	if os.Geteuid() != 0 {
		if base = os.Getenv("XDG_CACHE_HOME"); base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("looking for the server programs: %w", err)
			}
			base = filepath.Join(home, ".cache")
		}
	}
	return filepath.Join(base, "pgshadow", "postgresql"), nil
}

func findVersion(major int, patterns []string, cache string) (string, error) {
	looked := append(slices.Clone(patterns), filepath.Join(cache, strconv.Itoa(major)+".*", "bin"))
	for _, pattern := range looked {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("looking for %s: %w", pattern, err)
		}
		slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(minor(b), minor(a)) })
		for _, dir := range dirs {
			if (int(version(dir)) == major || minor(dir) >= 0) && hasPrograms(dir) {
				return dir, nil
			}
		}
	}
	return "", &VersionNotFoundError{Major: major, Looked: looked}
}

var fetchedPattern = regexp.MustCompile(`/\d+\.(\d+)\.[^/]*/bin$`)

// minor is the minor version in the name of a folder of the cache, -1 in another's.
func minor(binDir string) int {
	found := fetchedPattern.FindStringSubmatch(binDir)
	if found == nil {
		return -1
	}
	number, err := strconv.Atoi(found[1])
	if err != nil {
		return -1
	}
	return number
}
