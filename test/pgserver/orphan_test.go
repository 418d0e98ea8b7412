package pgserver

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	helperEnv  = "PGSERVER_TEST_HELPER"
	awaitLimit = time.Minute
)

// TestMain turns the test binary into a program that runs a server, where the environment asks for it. The program
// prints the server's port and folder, and exits without a Close once its input ends.
func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		os.Exit(m.Run())
	}
	s, err := Start(context.Background(), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.Port(), s.dir)
	bufio.NewScanner(os.Stdin).Scan()
	os.Exit(0)
}

func TestServerDoesNotOutliveItsProcess(t *testing.T) {
	for name, end := range map[string]func(*exec.Cmd, func() error) error{
		"killed": func(helper *exec.Cmd, _ func() error) error { return helper.Process.Kill() },
		"exits":  func(_ *exec.Cmd, closeInput func() error) error { return closeInput() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			helper := exec.Command(os.Args[0])
			helper.Env = append(os.Environ(), helperEnv+"=1")
			helper.Stderr = os.Stderr
			input, err := helper.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			output, err := helper.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err = helper.Start(); err != nil {
				t.Fatal(err)
			}
			var port int
			var dir string
			if _, err = fmt.Fscan(output, &port, &dir); err != nil {
				t.Fatal(err)
			}
			if !listens(port) {
				t.Fatalf("nothing listens on port %d", port)
			}
			if err = end(helper, input.Close); err != nil {
				t.Fatal(err)
			}
			_ = helper.Wait() // it was killed
			await(t, "the server's port is closed", func() bool { return !listens(port) })
			await(t, "the server's folder is gone", func() bool {
				_, err := os.Stat(dir)
				return os.IsNotExist(err)
			})
			if left := processesOf(t, dir); left != "" {
				t.Errorf("processes left: %s", left)
			}
		})
	}
}

func listens(port int) bool {
	conn, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close() // it served its purpose
	return true
}

// processesOf are the processes whose command line names the folder, as far as the system tells.
func processesOf(t *testing.T, dir string) string {
	t.Helper()
	list, err := exec.Command("ps", "-eo", "pid,args").Output()
	if err != nil {
		t.Logf("cannot list processes: %v", err)
	}
	var left strings.Builder
	for line := range strings.Lines(string(list)) {
		if strings.Contains(line, dir) {
			left.WriteString(line)
		}
	}
	return left.String()
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	limit := time.NewTimer(awaitLimit)
	defer limit.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatalf("waiting until %s: not within %v", what, awaitLimit)
		}
	}
}
