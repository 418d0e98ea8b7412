package migration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgshadow/pgshadow/copier"
	"github.com/pgshadow/pgshadow/cutover"
	"github.com/pgshadow/pgshadow/pkg/keyset"
	"github.com/pgshadow/pgshadow/pkg/shadow"
	"github.com/pgshadow/pgshadow/pkg/verify"
	"github.com/pgshadow/pgshadow/replication"
	"github.com/pgshadow/pgshadow/replication/replay"
)

func serverError(code string) error {
	return &pgconn.PgError{Code: code, Message: "the server's words"}
}

// TestOutcomes: what each kind of error makes of a run, however deep it lies and
// whatever stands beside it.
func TestOutcomes(t *testing.T) {
	refusal := &shadow.Refusal{Check: "key", Reason: "none", Remedy: "add one"}
	key := keyset.NewKey("1")
	for name, c := range map[string]struct {
		err  error
		want Outcome
		code int
	}{
		"none":                        {nil, Done, 0},
		"a refusal":                   {refusal, Refused, 3},
		"several refusals":            {Refusals{refusal, refusal}, Refused, 3},
		"a syntax error":              {&shadow.SyntaxError{Message: "syntax error", Text: "x"}, Refused, 3},
		"a row that is refused":       {&copier.DataError{Key: key, Cause: serverError("22001")}, Aborted, 4},
		"a value that is refused":     {&shadow.RejectedError{Cause: serverError("23514")}, Aborted, 4},
		"a code of pgshadow's own":    {serverError("23514"), Failed, 1},
		"a run taken by another":      {&takenError{}, Stopped, 5},
		"the owner's code that fails": {shadow.Rejected(serverError("P0001")), Aborted, 4},
		"rows that conflict":          {&replay.ConflictError{Cause: &pgconn.PgError{Code: "23505"}}, Aborted, 4},
		"rows that differ":            {&verify.MismatchError{Keys: []keyset.Key{key}}, Aborted, 4},
		"an original that changed":    {replication.ErrChanged, Aborted, 4},
		"attempts used up":            {&cutover.AttemptsError{Attempts: 3, Last: errors.New("no lock")}, Stopped, 5},
		"a signal":                    {context.Canceled, Stopped, 5},
		"a connection lost":           {io.ErrUnexpectedEOF, Stopped, 5},
		"a slot that is gone":         {errSlotGone, Stopped, 5},
		"a server that stops":         {serverError("57P01"), Stopped, 5},
		"an unknown outcome":          {cutover.ErrUnknown, Unknown, 6},
		"a privilege that is missing": {serverError("42501"), Failed, 1},
		"a full dirty set":            {replay.ErrOverflow, Failed, 1},
		"anything else":               {errors.New("other"), Failed, 1},
		"an artifact that stays":      {errors.Join(&verify.MismatchError{}, errNotRemoved), Failed, 1},
		// The unknown outcome comes first: nothing may be dropped after it.
		"an unknown outcome by a lost connection": {fmt.Errorf("%w: %w", cutover.ErrUnknown, io.EOF), Unknown, 6},
		"an unknown outcome beside a mismatch":    {errors.Join(&verify.MismatchError{}, cutover.ErrUnknown), Unknown, 6},
		"a mismatch and then the end":             {errors.Join(&verify.MismatchError{}, context.Canceled), Aborted, 4},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("verify: %w", errors.Join(errors.New("beside"), err))
		}
		if got := outcomeOf(err); got != c.want || got.ExitCode() != c.code {
			t.Errorf("%s: %s with exit code %d, want %s with %d", name, got, got.ExitCode(), c.want, c.code)
		}
	}
	if Outcome("").ExitCode() != 1 {
		t.Error("no outcome is a success")
	}
}

// TestOnlyDefiniteErrorsRemove what a run has made.
func TestOnlyDefiniteErrorsRemove(t *testing.T) {
	for _, err := range []error{nil, context.Canceled, io.EOF, cutover.ErrUnknown, errors.New("other"), serverError("57014"), serverError("40P01"), serverError("42P01"),
		&cutover.AttemptsError{Last: serverError("55P03")}, &shadow.Refusal{}, replay.ErrTruncated, replay.ErrOverflow} {
		if definite(err) {
			t.Errorf("%v removes everything", err)
		}
	}
}

func TestReportOfAnError(t *testing.T) {
	first := &shadow.Refusal{Check: "key", Reason: "none", Remedy: "add one"}
	second := &shadow.Refusal{Check: "view", Reason: "one", Remedy: "drop it"}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a refusal":      {first, "key | add one |  | 0"},
		"refusals":       {Refusals{first, second}, "key | add one |  | 2"},
		"a syntax error": {&shadow.SyntaxError{Message: "no"}, "alter | correct the text of --alter; it is what follows ALTER TABLE name, in the server's own grammar, up to PostgreSQL 18's |  | 0"},
		"a data error":   {&copier.DataError{Cause: serverError("22001")}, " |  | 22001 | 0"},
		"other":          {errors.New("other"), " |  |  | 0"},
	} {
		m := &Migration{report: Report{Table: "public.t", RunID: "abc"}}
		report := m.conclude(fmt.Errorf("copy: %w", c.err), "")
		e := report.Error
		if got := fmt.Sprintf("%s | %s | %s | %d", e.Check, e.Remedy, e.SQLState, len(e.Refusals)); got != c.want || !strings.Contains(e.Message, c.err.Error()) {
			t.Errorf("%s: %s (%s), want %s", name, got, e.Message, c.want)
		}
		if report.ExitCode != report.Outcome.ExitCode() || report.Method != "shadow" {
			t.Errorf("%s: the report is %+v", name, report)
		}
	}
	if report := (&Migration{}).conclude(nil, ""); report.Error != nil || report.Outcome != Done {
		t.Errorf("without an error the report is %+v", report)
	}
	if got, want := Refusals([]*shadow.Refusal{first, second}).Error(), "key: none; add one\nview: one; drop it"; got != want {
		t.Errorf("refusals say %q", got)
	}
}

// TestStateSaysWhatIsLeft for every outcome, and that the original is untouched
// where it is.
func TestStateSaysWhatIsLeft(t *testing.T) {
	for _, c := range []struct {
		outcome Outcome
		runID   string
		want    []string
	}{
		{Refused, "abc", []string{"nothing was created", "run abc", "is kept", "the slot holds back 7 MB", "pgshadow abort --table public.t"}},
		{Refused, "", []string{"nothing was created", "public.t is untouched"}},
		{Failed, "", []string{"nothing was created", "public.t is untouched"}},
		{Stopped, "abc", []string{"public.t is untouched", "run abc", "the slot holds back 7 MB", "resume", "pgshadow cleanup"}},
		{Failed, "abc", []string{"public.t is untouched", "run abc", "resume"}},
		{Aborted, "abc", []string{"has been removed", "public.t is untouched"}},
		{Unknown, "abc", []string{"nothing was dropped", "public.t", "pgshadow cleanup"}},
	} {
		m := &Migration{report: Report{Table: "public.t", RunID: c.runID}}
		for _, want := range c.want {
			if got := m.state(c.outcome, "the slot holds back 7 MB"); !strings.Contains(got, want) {
				t.Errorf("%s: %q says nothing of %q", c.outcome, got, want)
			}
		}
	}
	if strings.Contains((&Migration{report: Report{Table: "public.t"}}).state(Unknown, ""), "untouched") {
		t.Error("an unknown outcome promises too much")
	}
}
