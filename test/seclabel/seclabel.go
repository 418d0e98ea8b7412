// Package seclabel gives a test server a provider of security labels, without which PostgreSQL sets none.
package seclabel

import (
	"context"
	_ "embed" // the provider's source
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/pgshadow/pgshadow/test/pgserver"
)

// Provider takes every label but Refused, and Secret from a superuser alone. Other does too.
const (
	Provider = "pgshadow_test"
	Other    = "pgshadow test 2"
	Refused  = "refused"
	Secret   = "secret"
)

//go:embed testdata/provider.c
var source string

// Build compiles the library of both providers for a server, and returns its path, for LOAD and
// session_preload_libraries. It is kept in the server's data folder, and goes with it; name is the library's own there.
func Build(ctx context.Context, server *pgserver.Server, name string) (string, error) {
	major, err := majorVersion(ctx, server)
	if err != nil {
		return "", err
	}
	compiler, err := findCompiler()
	if err != nil {
		return "", err
	}
	library := filepath.Join(server.DataDir(), name+".so")
	args := []string{"-DPG_MAJOR=" + major, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, "-xc", "-"}
	if runtime.GOOS == "darwin" {
		args = append([]string{"-undefined", "dynamic_lookup"}, args...)
	}
	compile := exec.CommandContext(ctx, compiler, args...)
	compile.Stdin = strings.NewReader(source)
	if output, err := compile.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the label provider with %s: %w\n%s", compiler, err, output)
	}
	if err := os.Chmod(library, 0o755); err != nil { // the server may run as another account
		return "", fmt.Errorf("opening the label provider to the server: %w", err)
	}
	return library, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func majorVersion(ctx context.Context, server *pgserver.Server) (string, error) {
	about, err := exec.CommandContext(ctx, filepath.Join(server.BinDir(), "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking postgres for its version: %w", err)
	}
	found := versionPattern.FindSubmatch(about)
	if found == nil {
		return "", fmt.Errorf("asking postgres for its version: it says %q", about)
	}
	return string(found[1]), nil
}

// findCompiler finds a C compiler: that of CC, else those that Go itself looks for.
func findCompiler() (string, error) {
	for _, name := range []string{os.Getenv("CC"), "cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("finding a C compiler for the label provider: no cc, gcc or clang in PATH; remedy: run scripts/setup.sh, as make test does, or install gcc and the headers of libc (apt-get install gcc libc6-dev)")
}
