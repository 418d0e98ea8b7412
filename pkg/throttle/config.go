package throttle

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// DefaultMaxReplicaLag is what --max-replica-lag is without being given.
	DefaultMaxReplicaLag = 10 * time.Second
	// DefaultInterval is the time between two measures of a source.
	DefaultInterval = time.Second
)

// Config of a Throttle. The zero value waits for nothing but an operator's pause.
type Config struct {
	// MaxReplicaLag is the replay lag of a physical standby above which the run
	// waits. Zero: replicas do not count. --max-replica-lag gives DefaultMaxReplicaLag.
	MaxReplicaLag time.Duration
	// MaxActiveSessions is the number of client sessions of the whole server, not
	// counting pgshadow's own, that may be active at once; above it the run waits.
	// Zero (default): they do not count.
	MaxActiveSessions int
	// Query is one SELECT of the operator's that gives one value; the run waits
	// while it is true or a number above zero. It runs read only, for two seconds
	// at most, with an empty search_path: names in it are qualified. Empty (default): none.
	Query string
	// File is a path; the run waits while there is something. Empty (default): none.
	File string
	// MaxRowsPerSecond is the pace of the rows that Wait is told of. Zero (default): no limit.
	MaxRowsPerSecond int
	// Interval is the time between two measures of a source. Zero: DefaultInterval.
	Interval time.Duration
	// OnChange is told when the run begins to wait, when the sources that make it
	// wait change, and, with "", when it goes on; not when only a figure in the
	// reason changes, nor of the pace. Called from Run, one call at a time. May be nil.
	OnChange func(reason string)
	// OnNote is told what an operator should know though the run does not wait for
	// it, such as a replica that is gone. One call at a time. May be nil.
	OnNote func(note string)
}

// Validate returns all problems, joined.
func (c Config) Validate() error {
	var problems []error
	if c.Interval < 0 {
		problems = append(problems, fmt.Errorf("the interval of the throttle is %v: want more than zero", c.Interval))
	}
	return errors.Join(append(problems, validLag(c.MaxReplicaLag), validSessions(c.MaxActiveSessions), validQuery(c.Query),
		validFile(c.File), validRows(c.MaxRowsPerSecond))...)
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.OnChange == nil {
		c.OnChange = func(string) {}
	}
	if c.OnNote == nil {
		c.OnNote = func(string) {}
	}
	return c
}

func validLag(limit time.Duration) error {
	if limit < 0 {
		return fmt.Errorf("max-replica-lag is %v: want a duration of zero (off) or more", limit)
	}
	return nil
}

func validSessions(limit int) error {
	if limit < 0 {
		return fmt.Errorf("max-active-sessions is %d: want zero (off) or more", limit)
	}
	return nil
}

func validQuery(text string) error {
	if text != "" && strings.TrimSpace(text) == "" {
		return errors.New("throttle-query is blank: want a SELECT, or nothing")
	}
	return nil
}

func validFile(path string) error {
	if path != "" && strings.TrimSpace(path) == "" {
		return errors.New("throttle-file is blank: want a path, or nothing")
	}
	return nil
}

func validRows(limit int) error {
	if limit < 0 {
		return fmt.Errorf("max-rows-per-second is %d: want zero (off) or more", limit)
	}
	return nil
}
