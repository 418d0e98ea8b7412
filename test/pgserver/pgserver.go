// Package pgserver starts throwaway PostgreSQL clusters from installed server programs, for tests, demos and
// benchmarks. A server never outlives the process that started it, however that process ends, and takes its files
// with it.
package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	pollInterval = 20 * time.Millisecond
	readyLimit   = time.Minute // for a start, crash recovery included
	stopLimit    = time.Minute // per signal
	bindAttempts = 5           // starts in which another process may have taken the port
	logTailLines = 60
	logTailBytes = 64 << 10
)

// Options of one cluster. The zero value is a server for logical replication, without fsync, with what Find finds.
type Options struct {
	// BinDir is the folder of the server programs. Default: what Find returns.
	BinDir string
	// Settings are added to the default ones in postgresql.conf, or take their place.
	Settings map[string]string
	// Fsync writes through to disk. Default false: faster, and only a crash of the machine loses the cluster.
	Fsync bool
	// Locale and Encoding of the cluster. Default C.UTF-8 (C where there is none) and UTF8.
	Locale, Encoding string
	// InitdbArgs are more arguments for initdb.
	InitdbArgs []string
	// Dir is an empty or new folder to make the cluster in, which Close keeps. As root, other users must be able to
	// enter it. Default: a temporary folder, which goes with the server.
	Dir string
	// LogFile is what the server's log is appended to. Default: postgres.log beside the data folder.
	LogFile string
}

// StopMode is the way a server is shut down.
type StopMode int

const (
	// Fast ends the sessions, writes a checkpoint and exits.
	Fast StopMode = iota
	// Immediate exits at once; the next start recovers, as after a crash.
	Immediate
)

// String names the mode as pg_ctl does.
func (m StopMode) String() string {
	switch m {
	case Fast:
		return "fast"
	case Immediate:
		return "immediate"
	}
	return "unknown"
}

// Server is one cluster; all methods may be called from several goroutines.
type Server struct {
	opts    Options
	binDir  string
	dir     string
	id      string // a setting of this cluster alone, by which a connection proves to have reached it
	account account
	janitor *janitor

	mu      sync.Mutex
	port    int
	process *process // nil while stopped
	closed  bool
}

// Start makes a cluster and starts its server, and returns once it accepts connections. The context bounds the start
// only. End it with Close; it also ends with this process.
func Start(ctx context.Context, opts Options) (*Server, error) {
	return launch(ctx, opts, func(ctx context.Context, s *Server) error { return s.initdb(ctx) })
}

// launch starts a server on the cluster that fill makes.
func launch(ctx context.Context, opts Options, fill func(context.Context, *Server) error) (*Server, error) {
	s := &Server{opts: opts, binDir: opts.BinDir, id: rand.Text()}
	var err error
	if s.binDir == "" {
		if s.binDir, err = Find(); err != nil {
			return nil, err
		}
	}
	if s.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if err = s.makeDir(); err != nil {
		return nil, err
	}
	if s.janitor, err = startJanitor(s.dir, opts.Dir == ""); err != nil {
		return nil, err
	}
	if err = s.begin(ctx, fill); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) begin(ctx context.Context, fill func(context.Context, *Server) error) error {
	if err := fill(ctx, s); err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start(ctx)
}

func (s *Server) makeDir() (err error) {
	if s.opts.Dir == "" {
		s.dir, err = os.MkdirTemp("", "pgshadow-test-")
	} else if s.dir, err = filepath.Abs(s.opts.Dir); err == nil {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("making the server's folder: %w", err)
	}
	return s.account.own(s.dir)
}

// start tries until the port is not taken by another process: on the first start any free port, then always the same.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	firstStart := s.port == 0
	var failed error
	for range bindAttempts {
		if firstStart {
			port, err := freePort(ctx)
			if err != nil {
				return err
			}
			s.port = port
		}
		err := s.startOnce(ctx)
		if err == nil || !errors.Is(err, errPortTaken) {
			return err
		}
		failed = errors.Join(failed, err)
		select { // whoever has it may be on the way out
		case <-ctx.Done():
			return errors.Join(failed, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
	return failed
}

var errPortTaken = errors.New("the port is taken")

func (s *Server) startOnce(ctx context.Context) error {
	logFile, err := os.OpenFile(s.logFile(), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("opening the server's log: %w", err)
	}
	defer logFile.Close() //nolint:errcheck // the child has its own descriptor and nothing is written to this one
	begin, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("finding the end of the server's log: %w", err)
	}
	cmd := exec.Command(filepath.Join(s.binDir, "postgres"), "-D", s.DataDir(), "-p", strconv.Itoa(s.port))
	s.account.prepare(cmd, s.dir)
	dieWithParent(cmd.SysProcAttr)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	running, err := startProcess(cmd)
	if err != nil {
		return err
	}
	if err = s.awaitReady(ctx, running); err == nil {
		s.process = running
		return nil
	}
	if !running.exited() {
		return errors.Join(err, running.stop(syscall.SIGQUIT, stopLimit))
	}
	if strings.Contains(tail(s.logFile(), begin), "could not create any TCP/IP sockets") {
		return fmt.Errorf("starting postgres on port %d: %w", s.port, errPortTaken)
	}
	return err
}

// awaitReady returns once a connection reaches this very cluster.
func (s *Server) awaitReady(ctx context.Context, running *process) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // what holds the port instead may accept a connection and say nothing
		select {
		case <-running.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
		if running.exited() {
			return fmt.Errorf("starting postgres: %v; its log ends with:\n%s", running.cmd.ProcessState, s.Log())
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for postgres to accept connections: %w; its log ends with:\n%s",
				errors.Join(ctx.Err(), err), s.Log())
		}
	}
}

func (s *Server) ping(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, s.dsn("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to postgres: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var id string
	if err = conn.QueryRow(ctx, "SELECT current_setting('pgserver.id', true)").Scan(&id); err != nil {
		return fmt.Errorf("asking postgres who it is: %w", err)
	}
	if id != s.id {
		return fmt.Errorf("another server listens on port %d", s.port)
	}
	return nil
}

func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err = listener.Close(); err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	return port, nil
}

// Stop shuts the server down and returns once it has exited; its files stay. A stopped server is no error.
func (s *Server) Stop(mode StopMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop(mode)
}

func (s *Server) stop(mode StopMode) error {
	if s.process == nil {
		return nil
	}
	signals := []os.Signal{syscall.SIGQUIT, syscall.SIGKILL}
	if mode == Fast {
		signals = append([]os.Signal{syscall.SIGINT}, signals...)
	}
	var failed error
	for _, signal := range signals {
		err := s.process.stop(signal, stopLimit)
		if err == nil {
			s.process = nil
			return failed
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// Restart stops the server (Fast) if it runs and starts it again on the same port, so that DSNs stay valid.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(Fast); err != nil {
		return err
	}
	return s.start(ctx)
}

// Close stops the server at once and removes its files, unless Options.Dir named their place. A second Close does
// nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.stop(Immediate), s.janitor.dismiss())
}

// DSN is the URL of a database of the server for its superuser "postgres", over TCP.
func (s *Server) DSN(dbname string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dsn(dbname)
}

func (s *Server) dsn(dbname string) string {
	dsn := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + dbname,
		RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// Port is the TCP port on 127.0.0.1, the same for all the server's life.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// BinDir is the folder of the server programs.
func (s *Server) BinDir() string { return s.binDir }

// Log is the end of the server's log, for error messages.
func (s *Server) Log() string { return tail(s.logFile(), 0) }

func (s *Server) logFile() string {
	if s.opts.LogFile != "" {
		return s.opts.LogFile
	}
	return filepath.Join(s.dir, "postgres.log")
}
