package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// setting is one flag of a command. Its value may also come from the variable
// PGSHADOW_<NAME> and from the --config file.
type setting struct {
	name   string
	value  string   // stands for the value in the help; empty for a switch, and where there are words
	words  []string // all the values there are, where they are few
	help   string
	preset string // the value when none is given
	many   bool   // may be repeated
	file   bool   // the value is the path of a file
	take   func(texts []string) error
}

// section is a heading of the help and the settings below it.
type section struct {
	title    string
	settings []setting
}

// variable is the name of the setting's environment variable.
func (s setting) variable() string {
	return "PGSHADOW_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// placeholder stands for the setting's value; empty for a switch.
func (s setting) placeholder() string {
	if s.value == "" {
		return strings.Join(s.words, "|")
	}
	return s.value
}

func (s setting) flag() cli.Flag {
	switch {
	case s.placeholder() == "":
		return &cli.BoolFlag{Name: s.name}
	case s.many:
		return &cli.StringSliceFlag{Name: s.name, KeepSpace: true}
	default:
		return &cli.StringFlag{Name: s.name}
	}
}

// accept gives the setting what was found for it. The problems it returns, joined,
// begin with place and the setting's name.
func (s setting) accept(texts []string, place string) error {
	var err error
	if len(texts) > 1 && !s.many {
		err = fmt.Errorf("given %d times: want one value", len(texts))
	} else {
		err = s.take(texts)
	}
	if err == nil {
		return nil
	}
	var problems []error
	for _, problem := range unjoin(err) {
		problems = append(problems, fmt.Errorf("%s%s is %w", place, s.name, problem))
	}
	return errors.Join(problems...)
}

func cliFlags(sections []section) []cli.Flag {
	var flags []cli.Flag
	for _, section := range sections {
		for _, s := range section.settings {
			flags = append(flags, s.flag())
		}
	}
	return flags
}

// What follows makes the take of a setting. The errors go on from "name is".

func text[T ~string](into *T) func([]string) error {
	return func(texts []string) error {
		*into = T(texts[0])
		return nil
	}
}

func oneOf(into *string, words ...string) func([]string) error {
	return func(texts []string) error {
		if !slices.Contains(words, texts[0]) {
			last := len(words) - 1
			return fmt.Errorf("%q: want %s or %s", texts[0], strings.Join(words[:last], ", "), words[last])
		}
		*into = texts[0]
		return nil
	}
}

func list(into *[]string) func([]string) error {
	return func(texts []string) error {
		*into = texts
		return nil
	}
}

func toggle(into *bool) func([]string) error {
	return func(texts []string) error {
		value, err := strconv.ParseBool(texts[0])
		if err != nil {
			return fmt.Errorf("%q: want true or false", texts[0])
		}
		*into = value
		return nil
	}
}

func number(into *int, least int) func([]string) error {
	return func(texts []string) error {
		value, err := strconv.Atoi(strings.TrimSpace(texts[0]))
		if err != nil || value < least {
			return fmt.Errorf("%q: want a whole number of at least %d", texts[0], least)
		}
		*into = value
		return nil
	}
}

// duration takes zero only where least is zero: there it means off. A duration
// below a millisecond would reach the server as zero, which it takes for no limit.
func duration(into *time.Duration, least time.Duration) func([]string) error {
	return func(texts []string) error {
		value, err := time.ParseDuration(strings.TrimSpace(texts[0]))
		switch {
		case err != nil:
			return fmt.Errorf("%q: want a duration such as 500ms, 10s or 2m", texts[0])
		case value < least && least > 0:
			return fmt.Errorf("%q: want a duration of at least %s", texts[0], least)
		case value < least:
			return fmt.Errorf("%q: want a duration of zero (off) or more", texts[0])
		}
		*into = value
		return nil
	}
}

// size takes a number of bytes, with PostgreSQL's units.
func size(into *int64) func([]string) error {
	return func(texts []string) (err error) {
		*into, err = migration.ParseBytes(texts[0])
		return err
	}
}

// assignments takes column=expression, once for each column. The column follows
// SQL's rules: without double quotes its letters become lower-case.
func assignments(into *map[string]string) func([]string) error {
	return func(texts []string) error {
		var problems []error
		found := make(map[string]string, len(texts))
		for _, text := range texts {
			column, expression, err := assignment(text)
			if _, twice := found[column]; twice && err == nil {
				err = fmt.Errorf("%q: column %q has a value already", text, column)
			}
			problems = append(problems, err)
			found[column] = expression
		}
		*into = found
		return errors.Join(problems...)
	}
}

func assignment(text string) (column, expression string, err error) {
	wrong := fmt.Errorf("%q: want column=expression", text)
	rest := strings.TrimSpace(text)
	if strings.HasPrefix(rest, `"`) {
		column, rest = quotedName(rest[1:])
	} else {
		end := max(strings.IndexByte(rest, '='), 0)
		column, rest = lowerASCII(strings.TrimSpace(rest[:end])), rest[end:]
	}
	expression, found := strings.CutPrefix(strings.TrimSpace(rest), "=")
	expression = strings.TrimSpace(expression)
	if column == "" || !found || expression == "" {
		return "", "", wrong
	}
	return column, expression, nil
}

// quotedName reads a name in double quotes, after the first one.
func quotedName(text string) (name, rest string) {
	for {
		before, after, closed := strings.Cut(text, `"`)
		if !closed {
			return "", ""
		}
		name += before
		if !strings.HasPrefix(after, `"`) {
			return name, after
		}
		name, text = name+`"`, after[1:]
	}
}

func lowerASCII(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}
