package main

import (
	"fmt"
	"strings"
)

// zshFrame goes round the cases that are generated. As a file of $fpath it is the body
// of the function itself; sourced, it names the function.
const zshFrame = `#compdef pgshadow
# Completion of pgshadow for zsh. Made by: pgshadow completion zsh

_pgshadow_commands() {
	local -a commands=(
%s	)
	_describe -t commands command commands
}

%s_pgshadow() {
	local curcontext=$curcontext state state_descr line
	typeset -A opt_args
	_arguments -C \
		'(- *)--help[print the help]' \
		'(- *)--version[print the version]' \
		'1:command:_pgshadow_commands' \
		'*:: :->rest'
	[[ $state == rest ]] || return
	case $words[1] in
%s	help) _arguments '1:command:_pgshadow_commands' ;;
	esac
}

if [[ $funcstack[1] == _pgshadow ]]; then
	_pgshadow "$@"
else
	compdef _pgshadow pgshadow
fi
`

func zshCompletion(specs []spec) string {
	var commands, functions, cases strings.Builder
	for _, s := range specs {
		fmt.Fprintf(&commands, "\t\t%s\n", bashQuote(s.name+":"+zshEscape(s.brief)))
		fmt.Fprintf(&cases, "\t%s)\n\t\t_arguments", s.name)
		for _, setting := range s.withHelp() {
			fmt.Fprintf(&cases, " \\\n\t\t\t%s", bashQuote(zshFlag(setting)))
		}
		switch {
		case len(pairs(s, specs)) > 0:
			fmt.Fprintf(&cases, " \\\n\t\t\t%s", bashQuote("1:"+zshEscape(s.argument)+":_pgshadow_"+s.name))
			functions.WriteString(zshPairs(s, specs))
		case len(s.offers) > 0:
			fmt.Fprintf(&cases, " \\\n\t\t\t%s", bashQuote("1:"+zshEscape(s.argument)+":("+strings.Join(s.offers, " ")+")"))
		}
		cases.WriteString("\n\t\t;;\n")
	}
	return fmt.Sprintf(zshFrame, commands.String(), functions.String(), cases.String())
}

// zshFlag is a setting as _arguments takes it.
func zshFlag(s setting) string {
	spec := "--" + s.name
	if s.placeholder() != "" {
		spec += "="
	}
	if s.many {
		spec = "*" + spec
	}
	spec += "[" + zshEscape(oneLine(s.help)) + "]"
	if s.placeholder() == "" {
		return spec
	}
	spec += ":" + zshEscape(s.placeholder()) + ":"
	switch {
	case len(s.words) > 0:
		spec += "(" + strings.Join(s.words, " ") + ")"
	case s.file:
		spec += "_files"
	}
	return spec
}

// zshPairs is the function that completes NAME=VALUE of a command.
func zshPairs(s spec, specs []spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "_pgshadow_%s() {\n\tif ! compset -P 1 '*='; then\n", s.name)
	var names []string
	for _, offer := range s.offers {
		names = append(names, strings.TrimSuffix(offer, "="))
	}
	fmt.Fprintf(&b, "\t\tcompadd -S = -- %s\n\t\treturn\n\tfi\n\tcase $IPREFIX in\n", strings.Join(names, " "))
	for _, pair := range pairs(s, specs) {
		fmt.Fprintf(&b, "\t%s=) compadd -- %s ;;\n", pair.name, strings.Join(pair.words, " "))
	}
	b.WriteString("\tesac\n}\n\n")
	return b.String()
}

var zshEscapes = strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`)

// zshEscape is a text within a specification of _arguments or _describe.
func zshEscape(text string) string { return zshEscapes.Replace(text) }
