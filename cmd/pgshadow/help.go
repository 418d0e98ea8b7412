package main

import (
	"fmt"
	"strings"
)

// purpose is pgshadow in a sentence.
const purpose = "pgshadow changes a table of PostgreSQL while it is being used."

// appHelp is the help of pgshadow itself. Like that of a command it goes through
// the library as a template, so it may hold no braces.
func appHelp(specs []spec) string {
	var b strings.Builder
	b.WriteString(purpose + "\n\nUsage: pgshadow COMMAND [flags]\n\n")
	for _, s := range specs {
		fmt.Fprintf(&b, "  %-11s %s\n", s.name, s.brief)
	}
	b.WriteString("\npgshadow COMMAND --help tells more.\n")
	return b.String()
}

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
	head := strings.TrimRight("  --"+s.name+" "+s.placeholder(), " ")
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
	return setting{name: configName, value: "FILE.yaml", file: true, take: text(path), help: "file with any of these flags"}
}
