package main

import (
	"strings"
	"testing"
)

func TestManPage(t *testing.T) {
	t.Parallel()
	golden(t, "man", manPage((&program{}).specs(), build{Version: "v1.2.3", Date: "2026-01-31T12:00:00Z"}))
	got := runProgram(t, nil, "man")
	if got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, ".TH PGSHADOW 1 ") {
		t.Errorf("got %s", got)
	}
}

// Text must not become a request, whatever it holds.
func TestRoff(t *testing.T) {
	t.Parallel()
	r := &roff{}
	r.text(".pl 1\n'br \\fB --flag\n\n  0  done\n  'a'  \"b\" c^d~e")
	want := `\&.pl 1
\&'br \efB \-\-flag
.PP
.nf
  0  done
  'a'  \(dqb\(dq c\(had\(tie
.fi
`
	if r.String() != want {
		t.Errorf("got\n%s", r)
	}
}
