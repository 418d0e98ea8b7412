package main

import (
	"context"
	"fmt"
	"io"
	"strings"
)

const manHelp = `Print the manual page, for man. To read it: pgshadow man | man -l -

Usage: pgshadow man
`

func (p *program) manCommand() spec {
	return spec{
		name: "man", brief: "print the manual page", help: manHelp,
		check: func(string) error { return nil },
		run: func(context.Context, string, origins) error {
			if _, err := io.WriteString(p.stdout, manPage(p.specs(), thisBuild())); err != nil {
				return fmt.Errorf("writing the manual page: %w", err)
			}
			return nil
		},
	}
}

const manIntroduction = `Every command is explained below, with its flags. A value in brackets is the one a flag has when it is not given.`

const manEnvironment = `PGSHADOW_ and the name of a flag, in capitals and with underscores, gives that flag its value where it is not on
the command line, such as PGSHADOW_DSN or PGSHADOW_COPY_WORKERS.

PGHOST, PGPORT, PGUSER, PGPASSWORD, PGPASSFILE, PGDATABASE, PGSERVICE, PGSSLMODE and what else libpq knows say where to
connect to, as far as --dsn does not.`

// manPage is the manual page in the macros of man(7).
func manPage(specs []spec, b build) string {
	r := &roff{}
	day, _, _ := strings.Cut(b.Date, "T")
	r.line(`.TH PGSHADOW 1 "%s" "pgshadow %s"`, roffEscape(day), roffEscape(b.Version))
	r.line(".SH NAME")
	r.line(`pgshadow \- change a table of PostgreSQL while it is being used`)
	r.line(".SH SYNOPSIS")
	for i, s := range specs {
		if i > 0 {
			r.line(".br")
		}
		r.line(".B pgshadow %s", roffEscape(s.name))
		if s.argument != "" {
			r.line("%s", roffLine(s.argument))
		}
		if len(s.sections) > 0 {
			r.line("[flags]")
		}
	}
	r.line(".SH DESCRIPTION")
	r.text(purpose + " " + manIntroduction)
	r.line(".SH COMMANDS")
	for _, s := range specs {
		r.command(s)
	}
	r.line(".SH ENVIRONMENT")
	r.text(manEnvironment)
	return r.String()
}

// roff is a manual page being written.
type roff struct{ strings.Builder }

func (r *roff) line(format string, args ...any) { fmt.Fprintf(&r.Builder, format+"\n", args...) }

func (r *roff) command(s spec) {
	r.line(".SS pgshadow %s", roffEscape(s.name))
	r.text(s.help)
	for _, section := range s.sections {
		r.line(".PP")
		r.line(".B %s:", roffEscape(section.title))
		for _, setting := range section.settings {
			r.setting(setting)
		}
	}
	if s.tail != "" {
		r.line(".PP")
		r.text(s.tail)
	}
}

func (r *roff) setting(s setting) {
	r.line(".TP")
	head := `\fB` + roffEscape("--"+s.name) + `\fR`
	if s.placeholder() != "" {
		head += ` \fI` + roffEscape(s.placeholder()) + `\fR`
	}
	r.line("%s", head)
	help := oneLine(s.help)
	if s.preset != "" {
		help += " [" + s.preset + "]"
	}
	r.text(help)
}

// text writes paragraphs, which blank lines part. One with an indented line keeps its
// line breaks.
func (r *roff) text(text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			r.line(".PP")
		}
		asIs := strings.Contains(paragraph, "\n ") || strings.HasPrefix(paragraph, " ")
		if asIs {
			r.line(".nf")
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			r.line("%s", roffLine(line))
		}
		if asIs {
			r.line(".fi")
		}
	}
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "^", `\(ha`, "~", `\(ti`)

// roffEscape is text within a line.
func roffEscape(text string) string { return roffEscapes.Replace(text) }

// roffLine is a line of text, which must not look like a request.
func roffLine(text string) string {
	escaped := roffEscape(text)
	if strings.HasPrefix(escaped, ".") || strings.HasPrefix(escaped, "'") {
		return `\&` + escaped
	}
	return escaped
}
