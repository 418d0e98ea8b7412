package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const completionHelp = `Print what a shell needs to complete the commands, the flags and the fixed values of
pgshadow.

Usage: pgshadow completion bash|zsh|fish

  bash  eval "$(pgshadow completion bash)" in ~/.bashrc, or the output as pgshadow in a
        folder that bash-completion reads, such as /etc/bash_completion.d
  zsh   the output as _pgshadow in a folder of $fpath, before compinit is called
  fish  the output as ~/.config/fish/completions/pgshadow.fish
`

// shells make the script of each shell.
var shells = map[string]func(specs []spec) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}

var shellNames = []string{"bash", "zsh", "fish"}

func (p *program) completionCommand() spec {
	return spec{
		name: "completion", brief: "print the completion script of a shell", help: completionHelp,
		argument: strings.Join(shellNames, "|"), offers: shellNames,
		check: func(shell string) error {
			if shell == "" {
				return errors.New("the shell is missing: want bash, zsh or fish")
			}
			if shells[shell] == nil {
				return fmt.Errorf("there is no completion for %s: want bash, zsh or fish", quoteArgument(shell))
			}
			return nil
		},
		run: func(_ context.Context, shell string, _ origins) error {
			if _, err := io.WriteString(p.stdout, shells[shell](p.specs())); err != nil {
				return fmt.Errorf("writing the script: %w", err)
			}
			return nil
		},
	}
}

// settings are those of all sections, in the order of the help.
func (s spec) settings() []setting {
	var all []setting
	for _, section := range s.sections {
		all = append(all, section.settings...)
	}
	return all
}

// withHelp are the settings, and --help.
func (s spec) withHelp() []setting {
	return append(s.settings(), setting{name: "help", help: "print this"})
}

// flags are the settings as one types them.
func (s spec) flags() []string {
	var flags []string
	for _, setting := range s.withHelp() {
		flags = append(flags, "--"+setting.name)
	}
	return flags
}

// pair is a NAME= that the argument of a command begins with, and its values.
type pair struct {
	name  string
	words []string
}

// pairs are the offers of a command that go on with one of a few values: those of the
// flag of the same name.
func pairs(s spec, specs []spec) []pair {
	var found []pair
	for _, offer := range s.offers {
		name, goesOn := strings.CutSuffix(offer, "=")
		if !goesOn {
			continue
		}
		for _, other := range specs {
			i := slices.IndexFunc(other.settings(), func(s setting) bool { return s.name == name && len(s.words) > 0 })
			if i >= 0 {
				found = append(found, pair{name, other.settings()[i].words})
				break
			}
		}
	}
	return found
}

func commandNames(specs []spec) []string {
	var names []string
	for _, s := range specs {
		names = append(names, s.name)
	}
	return names
}

// oneLine is a help text without its line breaks.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }
