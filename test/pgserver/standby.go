package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// StartStandby makes a hot standby of the server, which must run, and returns once it accepts connections, on a port of
// its own. name is the application_name by which synchronous_standby_names knows it, and the name of the physical slot
// that keeps the WAL for it. settings are added to the primary's Options. It is stopped, restarted and closed as any
// server is; Close it before the primary.
func (s *Server) StartStandby(ctx context.Context, name string, settings map[string]string) (*Server, error) {
	opts := s.opts
	opts.BinDir, opts.Dir, opts.LogFile = s.binDir, "", ""
	opts.Settings = maps.Clone(s.opts.Settings)
	if opts.Settings == nil {
		opts.Settings = map[string]string{}
	}
	opts.Settings["synchronous_standby_names"] = "" // it has no standby of its own once it is promoted
	opts.Settings["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=%s", s.Port(), name)
	opts.Settings["primary_slot_name"] = name
	opts.Settings["wal_retrieve_retry_interval"] = "100ms" // it follows again soon after either was away
	maps.Copy(opts.Settings, settings)
	return launch(ctx, opts, func(ctx context.Context, standby *Server) error { return s.backUp(ctx, standby, name) })
}

// backUp copies the running cluster into the standby's data folder (PostgreSQL manual, "Making a Base Backup Using the
// Low Level API"): pg_basebackup is not in every folder of server programs.
func (s *Server) backUp(ctx context.Context, standby *Server, slot string) (err error) {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to the primary: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err = conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", slot); err != nil {
		return fmt.Errorf("creating the standby's slot: %w", err)
	}
	start, stop := "SELECT pg_backup_start($1, true)", "SELECT labelfile FROM pg_backup_stop(false)"
	version, err := strconv.Atoi(conn.PgConn().ParameterStatus("server_version")[:2])
	if err != nil {
		return fmt.Errorf("reading the primary's version: %w", err)
	}
	if version < 15 {
		start, stop = "SELECT pg_start_backup($1, true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	if _, err = conn.Exec(ctx, start, slot); err != nil {
		return fmt.Errorf("beginning the standby's backup: %w", err)
	}
	if err = standby.copyCluster(s.DataDir()); err != nil {
		return err
	}
	var label string
	if err = conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return fmt.Errorf("ending the standby's backup: %w", err)
	}
	if err = standby.write("backup_label", strings.NewReader(label)); err != nil {
		return err
	}
	return standby.write("standby.signal", strings.NewReader(""))
}

// What a backup leaves out: the contents of these folders, and these files.
var (
	leftOutFolders = []string{"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp",
		"pg_subtrans", "pg_wal"}
	leftOutFiles = []string{"postmaster.pid", "postmaster.opts", "postgresql.auto.conf", "pg_internal.init"}
)

// copyCluster copies the files of a running cluster. What goes meanwhile is not needed: the WAL tells of it.
func (s *Server) copyCluster(from string) error {
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case slices.Contains(leftOutFolders, filepath.Dir(name)) && entry.IsDir():
			return filepath.SkipDir
		case entry.IsDir():
			return s.makeFolder(name)
		case slices.Contains(leftOutFolders, filepath.Dir(name)), slices.Contains(leftOutFiles, entry.Name()), !entry.Type().IsRegular():
			return nil
		default:
			return s.copyFile(path, name)
		}
	})
	if err != nil {
		return fmt.Errorf("copying the primary's files: %w", err)
	}
	return nil
}

func (s *Server) makeFolder(name string) error {
	path := filepath.Join(s.DataDir(), name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return s.account.own(path)
}

func (s *Server) copyFile(from, name string) error {
	file, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read from
	return s.write(name, file)
}

// write makes a file of the data folder.
func (s *Server) write(name string, content io.Reader) error {
	path := filepath.Join(s.DataDir(), name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("making the standby's files: %w", err)
	}
	if _, err = io.Copy(file, content); err != nil {
		return fmt.Errorf("writing the standby's files: %w", errors.Join(err, file.Close()))
	}
	if err = file.Close(); err != nil {
		return fmt.Errorf("writing the standby's files: %w", err)
	}
	return s.account.own(path)
}
