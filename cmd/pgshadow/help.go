package main

import (
	"fmt"
	"strings"
)

// appHelp is the help of pgshadow itself. Like that of a command it goes through
// the library as a template, so it may hold no braces.
const appHelp = `pgshadow changes a table of PostgreSQL while it is being used.

Usage: pgshadow COMMAND [flags]

  alter      change a table online
  status     where the unfinished runs are
  pause      have a run wait
  resume     let it go on
  cutover    let a run swap the tables that waits for it
  abort      end a run and remove what it made
  set        change a setting of a run while it is on
  cleanup    list and remove what abandoned runs left
  finish     drop the retired table of a change that is done
  version    print the version

pgshadow COMMAND --help tells more.
`

// helpColumn is where the explanations of flags begin.
const helpColumn = 34

// commandHelp is the help of a command, made of its settings.
func commandHelp(s spec) string {
	var b strings.Builder
	b.WriteString(s.help)
	for _, section := range s.sections {
		fmt.Fprintf(&b, "\n%s:\n", section.title)
		for _, setting := range section.settings {
			writeSetting(&b, setting)
		}
	}
	if len(s.sections) > 0 {
		writeSetting(&b, setting{name: "help", help: "print this"})
	}
	if s.tail != "" {
		b.WriteString("\n" + s.tail)
	}
	return b.String()
}

func writeSetting(b *strings.Builder, s setting) {
	head := strings.TrimRight("  --"+s.name+" "+s.value, " ")
	lines := strings.Split(s.help, "\n")
	if s.preset != "" {
		lines[len(lines)-1] += " [" + s.preset + "]"
	}
	for i, line := range lines {
		if i > 0 {
			head = ""
		}
		fmt.Fprintf(b, "%-*s %s\n", helpColumn, head, line)
	}
}

// configSetting names the file that the other settings may come from.
func configSetting(path *string) setting {
	return setting{name: configName, value: "FILE.yaml", take: text(path), help: "file with any of these flags"}
}
