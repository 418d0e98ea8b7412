package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// The release build sets these: -ldflags "-X main.version=v1.2.3 -X main.commit=... -X main.date=...".
var (
	version string
	commit  string
	date    string // of the commit, in RFC 3339
)

const versionHelp = `Print the version of pgshadow, and of what it was built with.

Usage: pgshadow version [flags]
`

// build is what a pgshadow was built from, and with. Empty is what is not known.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Date     string `json:"date"` // of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (p *program) versionCommand() spec {
	var form string
	return spec{
		name: "version", brief: "print the version", help: versionHelp,
		sections: []section{{"Output", []setting{reportSetting(&form)}}},
		check:    func(string) error { return nil },
		run: func(context.Context, string, origins) error {
			if form == "json" {
				return p.writeJSON(thisBuild())
			}
			return p.printVersion()
		},
	}
}

func (p *program) printVersion() error {
	if _, err := fmt.Fprintln(p.stdout, thisBuild()); err != nil {
		return fmt.Errorf("writing the version: %w", err)
	}
	return nil
}

// thisBuild is what the release build says, else what the Go tool has noted.
func thisBuild() build {
	b := build{Version: version, Commit: commit, Date: date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.complete(info)
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

func (b *build) complete(info *debug.BuildInfo) {
	noted := map[string]string{}
	for _, setting := range info.Settings {
		noted[setting.Key] = setting.Value
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Commit == "" {
		b.Commit = noted["vcs.revision"]
	}
	if b.Date == "" {
		b.Date = noted["vcs.time"]
	}
}

// String is one line.
func (b build) String() string {
	text := "pgshadow " + b.Version
	if b.Commit != "" {
		text += ", commit " + b.Commit
	}
	if b.Date != "" {
		text += " of " + b.Date
	}
	return text + ", " + b.Go + " " + b.Platform
}
