package main

import (
	"fmt"
	"strings"
)

// bashFrame goes round the cases that are generated. It runs in bash 3.2, which macOS
// has: without compopt a name that ends with = is followed by a space there. = parts
// words only where COMP_WORDBREAKS has it, as it has by default.
const bashFrame = `# Completion of pgshadow for bash. Made by: pgshadow completion bash

_pgshadow() {
	local IFS=$' \t\n' current=${COMP_WORDS[COMP_CWORD]} before='' lead='' command=${COMP_WORDS[1]} words=''
	if ((COMP_CWORD > 0)); then before=${COMP_WORDS[COMP_CWORD - 1]}; fi
	if [[ $current == = ]]; then
		before+='=' current=''
	elif [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}=
	elif [[ $current == *=* ]]; then
		lead=${current%%%%=*}= current=${current#*=}
		before=$lead
	fi
	if [[ $before == -*= ]]; then before=${before%%=}; fi
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		words='%s help --help --version'
	else
		case "$command $before" in
%s		*=) ;;
		*)
			case "$command" in
%s			esac
			;;
		esac
	fi
	COMPREPLY=($(compgen -P "$lead" -W "$words" -- "$current"))
	if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
		compopt -o nospace 2>/dev/null
	fi
	return 0
}

_pgshadow_files() {
	compopt -o default 2>/dev/null && return
	local IFS=$'\n'
	COMPREPLY=($(compgen -f -- "$1"))
}

complete -F _pgshadow pgshadow
`

func bashCompletion(specs []spec) string {
	var values, commands strings.Builder
	for _, s := range specs {
		var free []string // take a value that cannot be guessed
		for _, setting := range s.settings() {
			pattern := bashQuote(s.name + " --" + setting.name)
			switch {
			case len(setting.words) > 0:
				fmt.Fprintf(&values, "\t\t%s) words=%s ;;\n", pattern, bashQuote(strings.Join(setting.words, " ")))
			case setting.file:
				fmt.Fprintf(&values, "\t\t%s) _pgshadow_files \"$current\"; return ;;\n", pattern)
			case setting.placeholder() != "":
				free = append(free, pattern)
			}
		}
		if len(free) > 0 {
			fmt.Fprintf(&values, "\t\t%s) ;;\n", strings.Join(free, " | "))
		}
		for _, pair := range pairs(s, specs) {
			fmt.Fprintf(&values, "\t\t%s) words=%s ;;\n", bashQuote(s.name+" "+pair.name+"="), bashQuote(strings.Join(pair.words, " ")))
		}
		flags := "words=" + bashQuote(strings.Join(s.flags(), " "))
		if len(s.offers) > 0 {
			flags = fmt.Sprintf("words=%s; [[ $current == -* ]] && %s", bashQuote(strings.Join(s.offers, " ")), flags)
		}
		fmt.Fprintf(&commands, "\t\t\t%s) %s ;;\n", s.name, flags)
	}
	names := strings.Join(commandNames(specs), " ")
	fmt.Fprintf(&commands, "\t\t\thelp) words=%s ;;\n", bashQuote(names))
	return fmt.Sprintf(bashFrame, names, values.String(), commands.String())
}

// bashQuote is a word for bash, and for every other shell that has POSIX's quotes.
func bashQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
