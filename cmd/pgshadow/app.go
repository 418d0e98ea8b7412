package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// program is what a command has of the world around it.
type program struct {
	stdin      io.Reader
	stdout     io.Writer
	stderr     io.Writer // a terminal where it is an *os.File that is one
	env        func(name string) (string, bool)
	executable func() (string, error) // for the process that parses
}

// exitError ends the process with a code; what there is to say has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// usageError is everything that is wrong with a command line.
type usageError struct {
	command string // with the program's name
	cause   error  // problems, joined
}

func (e *usageError) Error() string { return e.cause.Error() }

func (e *usageError) Unwrap() error { return e.cause }

// run carries out a command line and returns the process exit code.
func (p *program) run(args []string) int {
	err := p.app().Run(argumentLast(args))
	var ended *exitError
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return ended.code
	case errors.As(err, &usage):
		p.complain(usage)
		return exitUsage
	default:
		p.tell("pgshadow: %v\n", err)
		return exitFailed
	}
}

// complain names every problem, each on a line of its own, and where to read on.
func (p *program) complain(usage *usageError) {
	for _, problem := range unjoin(usage.cause) {
		p.tell("%s: %s\n", usage.command, strings.ReplaceAll(problem.Error(), "\n", "\n  "))
	}
	p.tell("see: %s --help\n", usage.command)
}

// tell writes to stderr. There is nobody to tell when that does not work.
func (p *program) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stderr, format, args...)
}

// unjoin takes apart what errors.Join has joined, however deep. A join that was
// wrapped is one problem.
func unjoin(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, each := range joined.Unwrap() {
		all = append(all, unjoin(each)...)
	}
	return all
}

func (p *program) app() *cli.App {
	return &cli.App{
		Name:                      "pgshadow",
		Commands:                  p.commands(),
		Flags:                     []cli.Flag{helpFlag(), &cli.BoolFlag{Name: "version"}},
		HideHelp:                  true, // the library's own flag and command are shared by all apps of the process
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // a value may contain commas
		CustomAppHelpTemplate:     appHelp(p.specs()),
		Writer:                    p.stdout,
		ErrWriter:                 p.stderr,
		OnUsageError:              onUsageError,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		Action:                    p.noCommand,
	}
}

// specs are the commands in the order of the help, which they are made of, as are
// the completions of the shells and the manual page.
func (p *program) specs() []spec {
	specs := append([]spec{p.planCommand(), p.rehearseCommand(), p.alterCommand(), p.statusCommand(), p.historyCommand()}, p.steerCommands()...)
	return append(specs, p.cleanupCommand(), p.finishCommand(), p.completionCommand(), p.manCommand(), p.versionCommand())
}

func (p *program) commands() []*cli.Command {
	var commands []*cli.Command
	for _, s := range p.specs() {
		commands = append(commands, p.command(s))
	}
	return append(commands, p.parseCommand(), p.helpCommand())
}

// noCommand is what runs when the first word is no command.
func (p *program) noCommand(c *cli.Context) error {
	switch {
	case c.Bool("version"):
		return p.printVersion()
	case c.Args().Present():
		return &usageError{"pgshadow", fmt.Errorf("there is no command %s", quoteArgument(c.Args().First()))}
	default:
		return &usageError{"pgshadow", errors.New("a command is missing, such as: pgshadow alter")}
	}
}

// spec is a command whose flags are settings.
type spec struct {
	name     string
	brief    string // the command in a few words
	help     string // what stands above the flags in the help
	tail     string // what stands below them
	argument string // what the one argument stands for; empty: there is none
	// offers are what a shell completes the argument to; one that ends with = goes on
	// with a value of the flag of alter.
	offers   []string
	sections []section
	ignores  []string                    // settings of alter that its --config file may hold too
	check    func(argument string) error // finds what is wrong with the values
	run      func(ctx context.Context, argument string, from origins) error
}

func (p *program) command(s spec) *cli.Command {
	return &cli.Command{
		Name:               s.name,
		Flags:              append(cliFlags(s.sections), helpFlag()),
		HideHelp:           true,
		CustomHelpTemplate: commandHelp(s),
		OnUsageError:       onUsageError,
		Action: func(c *cli.Context) error {
			from, err := p.load(c, s.sections, s.ignores...)
			argument, wrong := s.argumentOf(c)
			if err := errors.Join(wrong, err, s.check(argument)); err != nil {
				return &usageError{"pgshadow " + s.name, err}
			}
			return s.run(c.Context, argument, from)
		},
	}
}

func helpFlag() cli.Flag { return &cli.BoolFlag{Name: "help", Aliases: []string{"h"}} }

func (p *program) helpCommand() *cli.Command {
	return &cli.Command{
		Name:     "help",
		HideHelp: true,
		Action: func(c *cli.Context) error {
			command := c.App.Command(c.Args().First())
			switch {
			case !c.Args().Present():
				return cli.ShowAppHelp(c)
			case command == nil || command.CustomHelpTemplate == "":
				return &usageError{"pgshadow", fmt.Errorf("there is no command %s", quoteArgument(c.Args().First()))}
			default:
				_, err := io.WriteString(p.stdout, command.CustomHelpTemplate)
				return err
			}
		},
	}
}

// argumentOf is the command's one argument, where it takes one.
func (s spec) argumentOf(c *cli.Context) (string, error) {
	args := c.Args().Slice()
	taken := 0
	if s.argument != "" {
		if len(args) == 0 {
			return "", nil // check says that it is missing
		}
		taken = 1
	}
	if len(args) > taken {
		return args[0], fmt.Errorf("unexpected argument %s: every value belongs to a flag", quoteArgument(args[taken]))
	}
	return c.Args().First(), nil
}

// quoteArgument shows a misplaced argument, unless it may hold a password.
func quoteArgument(text string) string {
	if strings.Contains(text, "://") || strings.Contains(strings.ToLower(text), "password") {
		return "that looks like a connection string"
	}
	return fmt.Sprintf("%q", text)
}

// onUsageError rewords what the flag parser says.
func onUsageError(c *cli.Context, err error, isSubcommand bool) error {
	command := "pgshadow"
	if isSubcommand {
		command += " " + c.Command.Name
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return &usageError{command, fmt.Errorf("there is no flag --%s", name)}
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return &usageError{command, fmt.Errorf("--%s needs a value", name)}
	}
	return &usageError{command, err}
}
