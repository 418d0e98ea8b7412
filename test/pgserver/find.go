package pgserver

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// binDirEnv names the environment variable that holds the folder of the server programs to use.
const binDirEnv = "PGSHADOW_TEST_PGBIN"

// programs are what a folder must hold to be taken.
var programs = []string{"initdb", "postgres"}

// installFolders are where packages put server programs outside PATH.
var installFolders = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
}

// NotFoundError says that no folder with PostgreSQL's server programs was found.
type NotFoundError struct {
	Looked []string // the places, in the order looked at
}

// Error names the places and the remedy.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("finding PostgreSQL server programs (%s) in %s: none there; remedy: %s",
		strings.Join(programs, ", "), strings.Join(e.Looked, ", "), e.Remedy())
}

// Remedy is what the user can do about it.
func (e *NotFoundError) Remedy() string {
	return "install them (apt-get install postgresql) and name their folder in " + binDirEnv +
		" if it is an unusual one, or start Docker, or set PGSHADOW_TEST_DSN to a server whose superuser may be used"
}

// Find returns the folder of the server programs: the one named by PGSHADOW_TEST_PGBIN, else the first in PATH, else
// the installed one of the highest version. The error is a *NotFoundError.
func Find() (binDir string, err error) {
	return find(os.Getenv(binDirEnv), os.Getenv("PATH"), installFolders)
}

func find(named, path string, patterns []string) (string, error) {
	if named != "" { // an explicit wish is not quietly replaced by something else
		if hasPrograms(named) {
			return named, nil
		}
		return "", &NotFoundError{Looked: []string{binDirEnv + "=" + named}}
	}
	for _, dir := range filepath.SplitList(path) {
		if filepath.IsAbs(dir) && hasPrograms(dir) {
			return behindLinks(dir), nil
		}
	}
	var installed []string
	for _, pattern := range patterns {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("looking for %s: %w", pattern, err)
		}
		installed = append(installed, dirs...)
	}
	slices.SortStableFunc(installed, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	for _, dir := range installed {
		if hasPrograms(dir) {
			return dir, nil
		}
	}
	return "", &NotFoundError{Looked: append([]string{binDirEnv, "PATH"}, patterns...)}
}

// behindLinks is the folder that the programs in dir are linked from, where pg_dump and the others of the same version
// are too; dir itself when they are not links.
func behindLinks(dir string) string {
	program, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil || !hasPrograms(filepath.Dir(program)) {
		return dir
	}
	return filepath.Dir(program)
}

var versionPattern = regexp.MustCompile(`(\d+(?:\.\d+)?)/bin$`)

// version is the number before /bin in a folder's name, 0 when there is none.
func version(binDir string) float64 {
	found := versionPattern.FindStringSubmatch(binDir)
	if found == nil {
		return 0
	}
	number, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		return 0
	}
	return number
}

func hasPrograms(dir string) bool {
	for _, program := range programs {
		info, err := os.Stat(filepath.Join(dir, program))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}
