package migration

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pgshadow/pgshadow/pkg/checkpoint"
	"github.com/pgshadow/pgshadow/pkg/pg"
)

// settled are the settings that decide what expressions come to, how values are written
// and read, and where new objects are put.
var settled = []string{"client_encoding", "standard_conforming_strings", "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output",
	"lc_monetary", "lc_numeric", "lc_time", "array_nulls", "xmloption", "xmlbinary", "transform_null_equals", "default_text_search_config", "row_security",
	"default_tablespace", "default_table_access_method", "default_toast_compression", "search_path"}

// settings reads those that the sessions of a run have.
func (p *planner) settings(ctx context.Context) error {
	values := make([]string, len(settled))
	err := p.control.QueryRow(ctx, "SELECT ARRAY(SELECT pg_catalog.current_setting(name) FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS s(name, n) ORDER BY n)", settled).Scan(&values)
	if err != nil {
		return fmt.Errorf("reading the settings of a session: %w", err)
	}
	p.report.Settings = make(map[string]string, len(settled))
	for i, name := range settled {
		p.report.Settings[name] = values[i]
	}
	p.report.Settings["search_path"] = p.sessionPath() // as expressions of the user's are read
	return nil
}

// Script writes the statements as SQL for psql, which makes the same change offline.
func (r PlanReport) Script() string {
	s := &script{settings: r.Settings}
	s.note("%s, verdict %s, method %s.", r.Table, r.Verdict, r.Method)
	for _, refusal := range r.Refusals {
		s.note("refused by %s: %s", refusal.Check, refusal.Reason)
	}
	switch r.Method {
	case checkpoint.MethodNative:
		s.native(r)
	case checkpoint.MethodShadow:
		s.shadow(r)
	default: // refused, or not known
	}
	return s.String()
}

// script is for psql. A name may hold whatever one likes, a line that psql would run
// among it: names are in statements as SQL quotes them, and in comments on one line.
type script struct {
	strings.Builder
	settings map[string]string
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func (s *script) note(format string, args ...any) {
	s.WriteString("-- " + oneLine(fmt.Sprintf(format, args...)) + "\n")
}

// run writes a statement of the user's, which may end in a comment.
func (s *script) run(sql string) {
	s.WriteString(forPsql(sql))
	if strings.Contains(sql, "--") {
		s.WriteString("\n")
	}
	s.WriteString(";\n")
}

// quoted are the parts of a statement in which psql looks for no variables: strings, names, comments, and dollar quotes, of
// which the end is looked for apart.
var quoted = regexp.MustCompile(`(?s)^(?:[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?:[\pL_][\pL\d_]*)?\$|[\pL_][\pL\d_$]*)`)

// forPsql keeps psql from taking a colon for one of its variables, as in an array's slice,
// where a blank behind it changes nothing.
func forPsql(sql string) string {
	var b strings.Builder
	for sql != "" {
		end := 1
		if part := quoted.FindString(sql); part != "" {
			end = len(part)
			if part[0] == '$' {
				if i := strings.Index(sql[end:], part); i >= 0 {
					end += i + len(part)
				}
			}
		} else if strings.HasPrefix(sql, "::") || strings.HasPrefix(sql, ":=") {
			end = len("::")
		}
		b.WriteString(sql[:end])
		if sql[:end] == ":" {
			b.WriteString(" ")
		}
		sql = sql[end:]
	}
	return b.String()
}

func (s *script) set(local, name, value string) {
	if name != "search_path" { // a list of names, quoted already
		value = pg.Literal(value)
	}
	fmt.Fprintf(s, "SET %s%s = %s;\n", local, pg.Ident(name), value)
}

// begin is for what a session of pgshadow has from its beginning.
func (s *script) begin() {
	s.WriteString("SET ROLE NONE;\nSET statement_timeout = 0;\n")
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		s.set("", name, s.settings[name])
	}
}

// statement writes one with its role and settings, which last for it alone.
func (s *script) statement(of PlanStatement) {
	local := "LOCAL "
	if of.Alone {
		local = ""
	}
	s.note("%s: %s", of.Phase, of.Why)
	names := slices.Sorted(maps.Keys(of.Settings))
	for _, name := range names {
		s.set(local, name, of.Settings[name])
	}
	if of.Role != "" {
		fmt.Fprintf(s, "SET %sROLE %s;\n", local, pg.Ident(of.Role))
	}
	s.run(of.SQL)
	if of.Role != "" {
		fmt.Fprintf(s, "SET %sROLE NONE;\n", local)
	}
	for _, name := range names {
		if value, known := s.settings[name]; known {
			s.set(local, name, value)
		} else {
			fmt.Fprintf(s, "SET %s%s TO DEFAULT;\n", local, pg.Ident(name))
		}
	}
}

const (
	scriptOwner = "Defaults, checks and other expressions of the table are code of its owner, and so is what they call. It runs in this session: SET ROLE does not keep it from the rights of the role that has logged in. " +
		"Let a role run this that may do no more than the owner, or trust the owner."
	scriptRun = "Run it with psql -X -v ON_ERROR_STOP=1."
)

// native writes the steps of a recipe: each is committed before the next one begins.
func (s *script) native(r PlanReport) {
	several := slices.ContainsFunc(r.Statements[min(1, len(r.Statements)):], func(of PlanStatement) bool { return of.Begins || of.Alone })
	if several {
		s.note("It is several transactions, each committed before the next one begins. What reads rows or builds an index (CREATE INDEX CONCURRENTLY, in no transaction) does so beside readers and writers; " +
			"the other locks are waited for no longer than lock_timeout, after which the script fails: it does not try again, as pgshadow alter does.")
	} else {
		s.note("It is one transaction, which changes the catalog. Its lock is waited for no longer than lock_timeout, after which the script fails: it does not try again, as pgshadow alter does.")
	}
	s.note("%s", scriptOwner)
	s.note("%s", scriptRun)
	s.takenBack(r, several)
	s.begin()
	open := false
	end := func() {
		if open {
			s.WriteString("COMMIT;\n")
		}
		open = false
	}
	for _, of := range r.Statements {
		if of.Begins {
			end()
		}
		switch {
		case of.Alone:
			s.WriteString("SET lock_timeout = 0;\n")
		case of.Begins:
			fmt.Fprintf(s, "BEGIN;\nSET LOCAL lock_timeout = %d;\n", of.LockTimeoutMS)
			open = true
		}
		s.statement(of)
	}
	end()
}

// takenBack says how a script is taken back that has failed half way.
func (s *script) takenBack(r PlanReport, several bool) {
	switch {
	case !several:
		s.note("When it fails, nothing of it is left.")
	case len(r.Undo) == 0:
		s.note("When it fails half way, it can be run again.")
	default:
		s.note("When it fails before its first COMMIT, nothing of it is left, and there is nothing to take back. When it fails later, what it has committed stays, and may keep rows from being written. " +
			"This takes it back, as the role of the table's owner and each by itself, once you have seen that it is the script's and that nobody has come to use it; then it can be run again:")
		for _, undo := range r.Undo {
			s.WriteString("--   " + lineBreaks.Replace(undo.SQL) + ";\n")
		}
	}
}

// lineBreaks keeps each line of a statement, which a name may break, in the comment.
var lineBreaks = strings.NewReplacer("\r\n", "\n--", "\n", "\n--", "\r", "\n--")

// shadow leaves out what only a run needs that is not alone with the table.
func (s *script) shadow(r PlanReport) {
	s.note("pgshadow alter makes this change while the table is written. This script makes it offline, in one transaction: it locks the table until it has ended, and is for a small one. When it fails, nothing of it is left.")
	s.note("%s", scriptOwner)
	s.note("%s", scriptRun)
	s.begin()
	fmt.Fprintf(s, "BEGIN;\nSET LOCAL lock_timeout = %d;\nSET LOCAL ROLE %s;\nLOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE;\nSET LOCAL ROLE NONE;\n", r.lockTimeout(), pg.Ident(r.Facts.Owner), r.Facts.Quoted())
	for _, of := range r.Statements {
		if !of.Alone && !of.Online {
			s.statement(of)
		}
	}
	s.WriteString("COMMIT;\n")
	s.note("What was the original is kept in schema %s, of which pgshadow has no record. When you are sure: DROP SCHEMA %s CASCADE", r.retired, pg.Ident(r.retired))
}

func (r PlanReport) lockTimeout() int64 {
	for _, s := range r.Statements {
		if s.Phase == Cutover.String() {
			return s.LockTimeoutMS
		}
	}
	return pg.DefaultLockTimeout.Milliseconds()
}
