package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
)

// residentLimit is what a run may take, and a run of these tests far less.
const residentLimit = 100 << 10 // kB

// The parser's memory is not in the process of the run.
func TestParserMemoryIsElsewhere(t *testing.T) {
	t.Parallel()
	_, env := orders(t, 5000)
	slow := startSlow(t, env)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", slow.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no VmHWM in\n%s", status)
	}
	peak, err := strconv.Atoi(string(found[1]))
	if err != nil || peak >= residentLimit {
		t.Errorf("the run took %d kB, %v", peak, err)
	}
	if err := slow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if got := slow.end(); got.code != 5 {
		t.Errorf("got %s", got)
	}
	// The kernel's figure includes the children that were waited for.
	all := slow.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	t.Logf("the run took %d kB, the parser %d kB", peak, all)
}
