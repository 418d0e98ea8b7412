package fault

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
)

// task is what a child process is to do.
type task struct {
	DSN          string
	ThrottleFile string
	Verify       verify.Mode
	Holds        []string // the events to stop at
	Change       *shadow.Change
	Native       bool
}

// reconnectFor is how long a process tries to take its run up again; what is taken away from it comes back much sooner.
const reconnectFor = time.Minute

// config is the run, of a child or of this process.
func (t task) config() migration.Config {
	config := migration.Config{DSN: t.DSN, Table: table, Alters: t.Change.Alters,
		// Parsing takes seconds of CPU in every process: one has done it for all.
		Parse: func(context.Context, string, []string, map[string]string) (*shadow.Change, error) {
			return t.Change, nil
		}}
	if t.Native {
		config.Native = migration.NativeOnly
	}
	config.Verify, config.ReconnectFor = t.Verify, reconnectFor
	config.Copy.ChunkTime = 20 * time.Millisecond
	config.Throttle.File, config.Throttle.Interval = t.ThrottleFile, 50*time.Millisecond
	return config
}

// What a child writes, a line each with fields separated by tabs; and what it reads.
const (
	lineEvent     = "event"     // name#n, details
	lineHeld      = "held"      // name#n: it waits there for a "go name#n" or "free"
	lineCancelled = "cancelled" // its context has ended, by "cancel" or a signal
	lineReport    = "report"    // JSON
)

// runChild does a task and returns the exit code that pgshadow would have.
func runChild(text string) int {
	var todo task
	if err := json.Unmarshal([]byte(text), &todo); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	signalled, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(signalled)
	defer cancel()
	o := &observer{holds: todo.Holds, counts: map[string]int{}, going: map[string]chan struct{}{}, freed: make(chan struct{})}
	context.AfterFunc(ctx, func() { o.say(lineCancelled) })
	go o.obey(cancel)
	config := todo.config()
	config.Observer = o
	report, err := migration.Run(ctx, config)
	told, marshalErr := json.Marshal(report)
	if err != nil || marshalErr != nil {
		fmt.Fprintln(os.Stderr, err, marshalErr)
	}
	o.say(lineReport, string(told))
	return report.ExitCode
}

// observer tells of every event and stops at some.
type observer struct {
	holds []string

	mu     sync.Mutex
	counts map[string]int
	going  map[string]chan struct{}
	freed  chan struct{}
}

// Observe implements migration.Observer.
func (o *observer) Observe(event migration.Event) {
	name := eventName(event)
	o.mu.Lock()
	o.counts[name]++
	name = fmt.Sprintf("%s#%d", name, o.counts[name])
	o.mu.Unlock()
	held := slices.Contains(o.holds, name)
	var going chan struct{}
	if held {
		going = o.gate(name)
	}
	o.say(lineEvent, name, strings.ReplaceAll(fmt.Sprintf("%+v", event), "\n", " "))
	if held {
		o.say(lineHeld, name)
		select {
		case <-going:
		case <-o.freed:
		}
	}
}

func (o *observer) gate(name string) chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.going[name] == nil {
		o.going[name] = make(chan struct{})
	}
	return o.going[name]
}

func (o *observer) say(fields ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Println(strings.Join(fields, "\t"))
}

// obey does what the parent says, and does not outlive it.
func (o *observer) obey(cancel context.CancelFunc) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch order, name, _ := strings.Cut(lines.Text(), " "); order {
		case "go":
			close(o.gate(name))
		case "free":
			close(o.freed)
		case "cancel":
			cancel()
		}
	}
	os.Exit(2)
}

// eventName is the stable name of the point at which an event is observed: its
// type's, and its phase's where that tells events apart.
func eventName(event migration.Event) string {
	name := pointName(reflect.TypeOf(event).Name())
	switch e := event.(type) {
	case migration.PhaseStarted:
		return name + ":" + e.Phase.String()
	case migration.PhaseFinished:
		return name + ":" + e.Phase.String()
	case migration.Progressed:
		return name + ":" + e.Progress.Phase.String()
	default:
		return name
	}
}

// pointName writes a type's name in lower case, with underscores.
func pointName(typeName string) string {
	var b strings.Builder
	for i, r := range typeName {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
