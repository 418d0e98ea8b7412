package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// maxSocketPath is the shortest limit of the systems on the length of a socket's path.
const maxSocketPath = 103

// initdb makes the cluster's files.
func (s *Server) initdb(ctx context.Context) error {
	encoding, locale := s.opts.Encoding, s.opts.Locale
	if encoding == "" {
		encoding = "UTF8"
	}
	if locale == "" {
		locale = defaultLocale
	}
	args := []string{"--pgdata=" + s.DataDir(), "--username=postgres", "--auth=trust", "--encoding=" + encoding,
		"--locale=" + locale, "--lc-messages=C"}
	if !s.opts.Fsync {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, "initdb"), append(args, s.opts.InitdbArgs...)...)
	s.account.prepare(cmd, s.dir)
	dieWithParent(cmd.SysProcAttr)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	running, err := startProcess(cmd)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w; the server's user must be able to enter %s (set TMPDIR)", err, s.dir)
	}
	if err != nil {
		return err
	}
	<-running.done
	if running.err != nil {
		return fmt.Errorf("running initdb: %w\n%s", errors.Join(running.err, ctx.Err()), output.String())
	}
	return nil
}

// configure appends the settings to the cluster's configuration file; there, and not on the command line, ALTER SYSTEM
// can still change them.
func (s *Server) configure() error {
	settings := map[string]string{
		"wal_level":                 "logical",
		"max_wal_senders":           "32",
		"max_replication_slots":     "32",
		"max_connections":           "200",
		"max_prepared_transactions": "20",
		"fsync":                     onOff(s.opts.Fsync),
		"synchronous_commit":        "on",
		"shared_buffers":            "128MB",
		"max_wal_size":              "2GB",
		"TimeZone":                  "UTC",
		"log_timezone":              "UTC",
		"log_line_prefix":           "%m [%p] %e %q%u@%d %a ",
	}
	maps.Copy(settings, s.opts.Settings)
	settings["listen_addresses"] = "127.0.0.1"
	settings["unix_socket_directories"] = s.SocketDir()
	settings["pgserver.id"] = s.id
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	file, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the server's configuration: %w", err)
	}
	if _, err = file.WriteString(text.String()); err != nil {
		return fmt.Errorf("writing the server's configuration: %w", errors.Join(err, file.Close()))
	}
	if err = file.Close(); err != nil {
		return fmt.Errorf("writing the server's configuration: %w", err)
	}
	return nil
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// DataDir is the cluster's data folder.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// SocketDir is the folder of the unix socket: the data folder, or "" when its path is too long for a socket.
func (s *Server) SocketDir() string {
	if len(filepath.Join(s.DataDir(), ".s.PGSQL.65535")) > maxSocketPath {
		return ""
	}
	return s.DataDir()
}
