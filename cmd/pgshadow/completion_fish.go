package main

import (
	"fmt"
	"strings"
)

const fishFrame = `# Completion of pgshadow for fish. Made by: pgshadow completion fish

function __pgshadow_command
    set -l words (commandline -opc)
    if test (count $argv) -eq 0
        test (count $words) -eq 1
    else
        test (count $words) -gt 1; and test "$words[2]" = "$argv[1]"
    end
end

complete -c pgshadow -f
complete -c pgshadow -n __pgshadow_command -l help -d 'print the help'
complete -c pgshadow -n __pgshadow_command -l version -d 'print the version'
`

func fishCompletion(specs []spec) string {
	var b strings.Builder
	b.WriteString(fishFrame)
	for _, s := range specs {
		fmt.Fprintf(&b, "complete -c pgshadow -n __pgshadow_command -a %s -d %s\n", s.name, fishQuote(s.brief))
		fmt.Fprintf(&b, "complete -c pgshadow -n '__pgshadow_command help' -a %s -d %s\n", s.name, fishQuote(s.brief))
	}
	for _, s := range specs {
		fmt.Fprintf(&b, "\n")
		when := fmt.Sprintf("complete -c pgshadow -n '__pgshadow_command %s'", s.name)
		for _, setting := range s.withHelp() {
			fmt.Fprintf(&b, "%s -l %s%s -d %s\n", when, setting.name, fishValue(setting), fishQuote(oneLine(setting.help)))
		}
		offers := append([]string{}, s.offers...)
		for _, pair := range pairs(s, specs) {
			for _, word := range pair.words {
				offers = append(offers, pair.name+"="+word)
			}
		}
		if len(offers) > 0 {
			fmt.Fprintf(&b, "%s -a %s\n", when, fishQuote(strings.Join(offers, " ")))
		}
	}
	return b.String()
}

// fishValue says what follows a flag.
func fishValue(s setting) string {
	switch {
	case len(s.words) > 0:
		return " -x -a " + fishQuote(strings.Join(s.words, " "))
	case s.file:
		return " -r -F"
	case s.placeholder() != "":
		return " -x"
	default:
		return ""
	}
}

var fishEscapes = strings.NewReplacer(`\`, `\\`, "'", `\'`)

func fishQuote(text string) string { return "'" + fishEscapes.Replace(text) + "'" }
