package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

func (p *program) versionCommand() *cli.Command {
	return p.command(spec{
		name:  "version",
		help:  "Print the version of pgshadow, and of what it was built with.\n\nUsage: pgshadow version\n",
		check: func(string) error { return nil },
		run:   func(context.Context, string, origins) error { return p.printVersion() },
	})
}

func (p *program) printVersion() error {
	_, err := fmt.Fprintln(p.stdout, versionText())
	return err
}

func versionText() string {
	name, commit := version, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if name == "" {
			name = info.Main.Version
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				commit = ", commit " + setting.Value
			}
		}
	}
	if name == "" {
		name = "(devel)"
	}
	return fmt.Sprintf("pgshadow %s%s, %s %s/%s", name, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
