package throttle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pgshadow/pgshadow/pkg/pg"
)

// Source is one reason to wait.
type Source interface {
	// Name is the source's word in reasons: "replica lag".
	Name() string
	// Enabled tells whether the source has a say at all. It does not block.
	Enabled() bool
	// Check measures once. The reason is one line, "" means go; an error means
	// that it could not be measured, and makes the run wait as well. It is called
	// while the source is enabled, never twice at a time.
	Check(ctx context.Context) (reason string, err error)
	// Changed is sent to when the source should be asked again at once. Nil: never.
	Changed() <-chan struct{}
}

// Pause is the operator's own wish, held in memory.
type Pause struct{ reason *setting[string] }

const defaultPause = "paused by the operator"

func newPause() *Pause { return &Pause{reason: newSetting("")} }

// Set makes the run wait from now on: no Wait that begins later returns before
// Clear. reason is what status shows; "" means "paused by the operator".
func (p *Pause) Set(reason string) {
	p.reason.set(cmp.Or(reason, defaultPause))
}

// Clear ends the pause.
func (p *Pause) Clear() { p.reason.set("") }

// Name of the source.
func (p *Pause) Name() string { return "pause" }

// Enabled tells whether the pause is set.
func (p *Pause) Enabled() bool { return p.reason.isSet() }

// Check gives the pause's reason. It never says go: a pause that ends is not enabled,
// and one that is set again meanwhile must not find such an answer.
func (p *Pause) Check(context.Context) (string, error) {
	return cmp.Or(p.reason.get(), defaultPause), nil
}

// Changed is sent to by Set and Clear.
func (p *Pause) Changed() <-chan struct{} { return p.reason.changed }

// File makes the run wait while there is something at a path.
type File struct{ path *setting[string] }

func newFile(path string) *File { return &File{path: newSetting(path)} }

// SetPath changes the path; "" turns the source off.
func (f *File) SetPath(path string) error {
	if err := validFile(path); err != nil {
		return err
	}
	f.path.set(path)
	return nil
}

// Name of the source.
func (f *File) Name() string { return "throttle file" }

// Enabled tells whether there is a path.
func (f *File) Enabled() bool { return f.path.isSet() }

// Check looks whether the path exists; a link counts even when it leads nowhere.
func (f *File) Check(context.Context) (string, error) {
	path := f.path.get()
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return "file " + path + " exists", nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	default:
		return "", fmt.Errorf("looking for the file: %w", err)
	}
}

// Changed is sent to by SetPath.
func (f *File) Changed() <-chan struct{} { return f.path.changed }

// RightsError says that the server hides from the session's role what a source
// has to see.
type RightsError struct {
	Hidden string // what is hidden: "the lag of replica standby1"
	Role   string // the session's role
}

// Error names what is hidden and the remedy.
func (e *RightsError) Error() string {
	return fmt.Sprintf("role %q may not see %s; remedy: %s", e.Role, e.Hidden, e.Remedy())
}

// Remedy is what the operator can do about it.
func (e *RightsError) Remedy() string {
	return fmt.Sprintf("GRANT pg_read_all_stats TO %s (which must inherit its rights), or turn the limit off", pg.Ident(e.Role))
}
