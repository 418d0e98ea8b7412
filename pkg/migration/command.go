package migration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
	"github.com/pgshadow/pgshadow/pkg/shadow"
)

// The commands that steer a run.
const (
	CommandPause   = "pause"
	CommandResume  = "resume"
	CommandCutover = "cutover"
	CommandAbort   = "abort"
	CommandSet     = "set"
)

const (
	// answerLimit bounds the wait for the process that works on the run; removeLimit
	// that for an aborted run to have removed what it made.
	answerLimit = 30 * time.Second
	removeLimit = 2 * time.Minute
	answerPoll  = time.Second
)

// Commanded says what became of a command.
type Commanded struct {
	RunID    string `json:"run_id"`
	Table    string `json:"table"`
	Command  string `json:"command"`
	Accepted bool   `json:"accepted"`
	Answer   string `json:"answer"`
}

// Command has the process that works on a table's run pause, resume, cut over,
// abort, or set NAME=VALUE, wherever it runs, and waits for its answer. A stopped
// run is aborted here and now; for anything else a process must be at work. It
// returns a *shadow.Refusal where there is no such run or the answer is no.
func Command(ctx context.Context, dsn, table, name, argument string) (done Commanded, err error) {
	m, err := connectControl(ctx, dsn)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, m.control)) }()
	m.config.Table = table
	run, err := m.openRunOf(ctx)
	if err != nil {
		return done, err
	}
	done = Commanded{RunID: run.ID, Table: run.Table, Command: name}
	atWork, err := pg.Locked(ctx, m.control, run.TableOID)
	switch {
	case err != nil:
		return done, err
	case atWork:
		return m.ask(ctx, *run, done, argument)
	case name == CommandAbort:
		leftover := Leftover{RunID: run.ID, State: unfinished, oid: run.TableOID}
		if err := m.removeLeftover(ctx, leftover, "aborted by the operator after it had stopped"); err != nil {
			return done, err
		}
		done.Accepted, done.Answer = true, "the run had stopped; what it made has been removed, and the original is untouched"
		if len(m.kept) > 0 {
			done.Answer = "the run had stopped; what it made has been taken back, but: " + strings.Join(m.kept, "; ")
		}
		return done, nil
	default:
		return done, &shadow.Refusal{Check: "run", Reason: fmt.Sprintf("no process works on run %s of %s: process %d on host %s has stopped", run.ID, run.Table, run.Owner.PID, run.Owner.Host),
			Remedy: "run its pgshadow alter again, which resumes it; or remove it with pgshadow abort"}
	}
}

// openRunOf finds the open run of the table.
func (m *Migration) openRunOf(ctx context.Context) (*checkpoint.Run, error) {
	oid, err := m.resolve(ctx)
	if err != nil {
		return nil, err
	}
	exists, err := m.stateExists(ctx)
	if err != nil {
		return nil, err
	}
	var run *checkpoint.Run
	if exists {
		if run, err = checkpoint.OpenRun(ctx, m.control, oid); err != nil {
			return nil, err
		}
	}
	if run == nil {
		return nil, &shadow.Refusal{Check: "run", Reason: fmt.Sprintf("there is no unfinished run of %s in database %s", m.config.Table, m.db.Target()),
			Remedy: "see pgshadow status for the runs of this database"}
	}
	return run, nil
}

// ask leaves the command for the process at work, and waits for its answer.
func (m *Migration) ask(ctx context.Context, run checkpoint.Run, done Commanded, argument string) (_ Commanded, err error) {
	conn, err := m.db.Listen(ctx, "command", checkpoint.Channel)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, pg.Close(ctx, conn)) }()
	id, err := checkpoint.Issue(ctx, conn, run.ID, done.Command, argument)
	if err != nil {
		return done, err
	}
	answer, err := m.awaitAnswer(ctx, conn, run, id)
	if err != nil {
		return done, err
	}
	done.Accepted, done.Answer = answer.Accepted, answer.Text
	if !answer.Accepted {
		return done, &shadow.Refusal{Check: done.Command, Reason: fmt.Sprintf("run %s of %s says no: %s", run.ID, run.Table, answer.Text), Remedy: "see pgshadow status"}
	}
	if done.Command == CommandAbort {
		return m.awaitEnd(ctx, conn, run, done)
	}
	return done, nil
}

func (m *Migration) awaitAnswer(ctx context.Context, conn *pgx.Conn, run checkpoint.Run, id int64) (checkpoint.Answer, error) {
	deadline := time.Now().Add(answerLimit)
	for {
		answer, err := checkpoint.LoadAnswer(ctx, conn, id)
		if err != nil || answer.Given {
			return answer, err
		}
		if time.Now().After(deadline) {
			return m.withdraw(ctx, conn, run, id)
		}
		if err := pg.AwaitNotification(ctx, conn, answerPoll); err != nil {
			_, withdrawn := m.withdraw(context.WithoutCancel(ctx), conn, run, id)
			return answer, errors.Join(err, withdrawn)
		}
	}
}

// withdraw takes a command back that nobody has answered.
func (m *Migration) withdraw(ctx context.Context, conn *pgx.Conn, run checkpoint.Run, id int64) (checkpoint.Answer, error) {
	withdrawn, err := checkpoint.NewStore(run.ID).Answer(ctx, conn, id, false, "withdrawn: there was no answer")
	if err != nil {
		return checkpoint.Answer{}, err
	}
	if !withdrawn {
		return checkpoint.LoadAnswer(ctx, conn, id)
	}
	return checkpoint.Answer{}, fmt.Errorf("run %s of %s, process %d on host %s, has not answered within %s; the command was taken back: see pgshadow status, and the log of that process",
		run.ID, run.Table, run.Owner.PID, run.Owner.Host, answerLimit)
}

// awaitEnd waits until an aborted run has removed what it made.
func (m *Migration) awaitEnd(ctx context.Context, conn *pgx.Conn, run checkpoint.Run, done Commanded) (Commanded, error) {
	deadline := time.Now().Add(removeLimit)
	for {
		outcome, ended, err := checkpoint.NewStore(run.ID).LoadEnd(ctx, conn)
		switch {
		case err != nil:
			return done, err
		case ended && outcome == string(Done):
			done.Accepted, done.Answer = false, "it was too late: the swap is committed"
			return done, &shadow.Refusal{Check: done.Command, Reason: fmt.Sprintf("run %s of %s: the swap was committed before it could be aborted", run.ID, run.Table), Remedy: "see pgshadow status"}
		case ended:
			done.Answer, err = m.abortedAnswer(ctx, run.ID)
			return done, err
		case time.Now().After(deadline):
			return done, fmt.Errorf("run %s has taken the command, and has not removed what it made within %s: see its log, and pgshadow cleanup --dry-run", run.ID, removeLimit)
		}
		if err := pg.AwaitNotification(ctx, conn, answerPoll); err != nil {
			return done, err
		}
	}
}

// abortedAnswer says what became of what a run had made that was aborted at work.
func (m *Migration) abortedAnswer(ctx context.Context, runID string) (string, error) {
	ended, err := checkpoint.FindRun(ctx, m.control, runID)
	if err != nil || ended == nil {
		return "", err
	}
	if ended.Method == checkpoint.MethodNative {
		return "the run is aborted, and what it made has been taken back: " + ended.Detail, nil
	}
	return "the run is aborted; what it made has been removed, and the original is untouched", nil
}
