package fault

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// lastWords is how long a process that hangs has to say where.
const lastWords = 10 * time.Second

// process is a child, as its parent sees it.
type process struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	ended chan struct{} // closed when it has exited and all that it said has been read

	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed, and replaced, with every line
	stderr  bytes.Buffer
	report  *migration.Report
}

func startChild(todo task) (*process, error) {
	text, err := json.Marshal(todo)
	if err != nil {
		return nil, fmt.Errorf("encoding the task: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the test binary: %w", err)
	}
	p := &process{cmd: exec.Command(program), ended: make(chan struct{}), changed: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = &p.stderr // read only after the exit
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("opening the child's input: %w", err)
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("opening the child's output: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the child: %w", err)
	}
	go p.follow(output)
	return p, nil
}

// follow reads what the child says until it has exited.
func (p *process) follow(output io.Reader) {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		p.hear(lines.Text())
	}
	_ = p.cmd.Wait() // how it ended is in its ProcessState
	close(p.ended)
}

func (p *process) hear(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text, ok := strings.CutPrefix(line, lineReport+"\t"); ok {
		var report migration.Report
		if err := json.Unmarshal([]byte(text), &report); err == nil {
			p.report = &report
		}
	}
	p.lines = append(p.lines, line)
	close(p.changed)
	p.changed = make(chan struct{})
}

// heard tells whether the child has said a line, or one that begins with it and a tab.
func (p *process) heard(line string) (bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.lines, func(said string) bool {
		return said == line || strings.HasPrefix(said, line+"\t")
	}), p.changed
}

// await returns when the child says a line; it is an error if it ends without.
func (p *process) await(ctx context.Context, fields ...string) error {
	line := strings.Join(fields, "\t")
	for {
		heard, changed := p.heard(line)
		if heard {
			return nil
		}
		select {
		case <-changed:
		case <-p.ended:
			if heard, _ := p.heard(line); heard {
				return nil
			}
			return fmt.Errorf("waiting for %q: the child ended (%s)", line, p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q: %w", line, ctx.Err())
		}
	}
}

// tell gives the child an order. One that has exited needs none.
func (p *process) tell(order string) error {
	if _, err := fmt.Fprintln(p.input, order); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("telling the child to %s: %w", order, err)
	}
	return nil
}

func (p *process) signal(signal os.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending the child %v: %w", signal, err)
	}
	return nil
}

// wait returns when the child has ended. One that does not in time has to say
// where it hangs.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
	}
	err := fmt.Errorf("waiting for the child's end: %w", ctx.Err())
	return errors.Join(err, p.end())
}

// end sees to it that the child is gone.
func (p *process) end() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	quit := p.signal(syscall.SIGQUIT)
	timer := time.AfterFunc(lastWords, func() { _ = p.signal(syscall.SIGKILL) }) // it had its time
	defer timer.Stop()
	<-p.ended
	return quit
}

// story is all that the child said.
func (p *process) story() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.Join(p.lines, "\n")
	select {
	case <-p.ended:
		return fmt.Sprintf("%s\nended: %s\nstderr:\n%s", text, p.cmd.ProcessState, p.stderr.String())
	default:
		return text + "\n(it still runs)"
	}
}
