package main

import (
	"context"
	"errors"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/pkg/throttle"
)

// alterOptions are the flags of alter.
type alterOptions struct {
	config migration.Config
	log    logOptions
	output string
	file   string

	expect    string // a file with a plan
	dryRun    bool   // the same as plan
	checkData bool
}

const alterHelp = `Change a table online: copy it into a shadow that has the new form, follow every
write, verify, and swap the two under a short lock.

Usage: pgshadow alter --table [schema.]name --alter "..." [flags]

Running the same command again resumes an unfinished run. SIGINT and SIGTERM stop
cleanly and leave a run that resumes; a second signal, one second later or more, stops
at once.
`

const alterTail = `Every flag can also come from a variable, PGSHADOW_ and its name with underscores
(PGSHADOW_COPY_WORKERS), and from the --config file (copy-workers: 4; alter and set
may be lists). A flag wins over a variable, a variable over the file.

Exit codes:
  0  done
  1  failed, the original is untouched; what is kept is in the message
  2  wrong usage
  3  refused before anything was created
  4  aborted and cleaned up, the original is untouched
  5  stopped, and can be resumed by the same command
  6  the outcome of the swap is unknown; nothing was dropped
`

func (p *program) alterCommand() spec {
	o := &alterOptions{}
	return spec{
		name:     "alter",
		brief:    "change a table online",
		help:     alterHelp,
		tail:     alterTail,
		sections: o.sections(),
		ignores:  []string{scaleToName},
		check: func(string) error {
			return errors.Join(checkDSN(o.config.DSN), o.config.Validate(), o.checkDryRun(), o.readPlan())
		},
		run: func(ctx context.Context, _ string, from origins) error { return p.alter(ctx, o, from) },
	}
}

func (o *alterOptions) sections() []section {
	return []section{
		{"What to change", append(o.changeSettings(),
			setting{name: "dry-run", take: toggle(&o.dryRun), help: "change nothing, and tell what the change would come to:\npgshadow plan"},
			checkDataSetting(&o.checkData))},
		{"Where", connectionSettings(&o.config.DSN)},
		{"Work", o.workSettings()},
		{"Load: the run waits while any of these says so", o.loadSettings()},
		{"Cutover", o.cutoverSettings()},
		{"Output", append(outputSettings(&o.output, &o.log, planForms...), configSetting(&o.file))},
	}
}

func (o *alterOptions) changeSettings() []setting {
	c := &o.config
	return []setting{
		tableSetting(&c.Table),
		{name: "alter", value: "TEXT", many: true, take: list(&c.Alters),
			help: "what follows ALTER TABLE name; may be repeated, applied in order"},
		{name: "set", value: "column=expression", many: true, take: assignments(&c.Set),
			help: "value of a new column, for rows there are and rows to come,\nfrom the original's columns; may be repeated"},
		{name: "native", words: []string{"auto", "never", "only"}, preset: "auto", take: text(&c.Native),
			help: "auto leads PostgreSQL itself through what reads no row under a\nlock that keeps others out; only refuses what needs a\nshadow"},
		{name: "restart", take: toggle(&c.Restart),
			help: "remove an unfinished run of the table and begin anew"},
		{name: "allow-lossy", take: toggle(&c.AllowLossy),
			help: "let the change lose something of values: without it, a type that\ndoes not hold every value of the old one is refused"},
		{name: "expect-plan", value: "FILE", file: true, take: text(&o.expect),
			help: "refuse when the table has changed since pgshadow plan\n--output json wrote this file"},
	}
}

func (o *alterOptions) workSettings() []setting {
	c := &o.config.Copy
	return []setting{
		{name: "copy-workers", value: "N", preset: "2", take: number(&c.Workers, 1),
			help: "sessions that copy and verify"},
		{name: "index-workers", value: "N", preset: "2", take: number(&c.IndexWorkers, 1),
			help: "sessions that build indexes"},
		{name: "chunk-time", value: "DURATION", preset: "500ms", take: duration(&c.ChunkTime, time.Millisecond),
			help: "target time of one chunk; its size follows"},
		{name: "reconnect-for", value: "DURATION", preset: "5m", take: duration(&o.config.ReconnectFor, time.Millisecond),
			help: "how long a run that lost its connection tries to go on"},
		{name: "verify", words: []string{"full", "sample", "off"}, preset: "full", take: text(&o.config.Verify),
			help: "compare the two tables before the cutover"},
	}
}

func (o *alterOptions) loadSettings() []setting {
	c := &o.config.Throttle
	return []setting{
		{name: "max-replica-lag", value: "DURATION", preset: throttle.DefaultMaxReplicaLag.String(), take: duration(&c.MaxReplicaLag, 0),
			help: "a replica's replay lag is above this; 0: replicas do not\ncount"},
		{name: "max-active-sessions", value: "N", take: number(&c.MaxActiveSessions, 0),
			help: "more client sessions than this are active"},
		{name: "throttle-query", value: "SELECT", take: text(&c.Query),
			help: "this query gives true, or a number above zero"},
		{name: "throttle-file", value: "PATH", file: true, take: text(&c.File),
			help: "this file exists"},
		{name: "max-wal-retained", value: "SIZE", preset: "50GB", take: size(&o.config.MaxWALRetained),
			help: "abort before the slot holds back more WAL than this, or than\nnine tenths of max_slot_wal_keep_size; it warns at half"},
		{name: "max-rows-per-second", value: "N", take: number(&c.MaxRowsPerSecond, 0),
			help: "pace of the copy"},
	}
}

func (o *alterOptions) cutoverSettings() []setting {
	c := &o.config.Cutover
	whatStops := "run stops, resumable"
	if o.config.Rehearsal != nil {
		whatStops = "rehearsal stops"
	}
	return []setting{
		{name: "cutover", words: []string{"auto", "manual"}, preset: "auto", take: text(&c.Mode),
			help: "manual waits, in step and verified, for pgshadow cutover"},
		{name: "lock-timeout", value: "DURATION", preset: "500ms", take: duration(&c.LockTimeout, time.Millisecond),
			help: "how long an attempt waits for its lock; writers queue behind\nit"},
		{name: "max-lock-hold", value: "DURATION", preset: "1s", take: duration(&c.MaxLockHold, time.Millisecond),
			help: "how long an attempt holds the lock before it rolls back"},
		{name: "cutover-attempts", value: "N", preset: "60", take: number(&c.Attempts, 1),
			help: "attempts before the " + whatStops},
		{name: "matviews", words: []string{"refuse", "recreate"}, preset: "refuse", take: text(&o.config.MatViews),
			help: "recreate makes materialized views anew at the swap, empty until\nthey are refreshed after it"},
		{name: "retire", words: []string{"keep", "drop"}, preset: "keep", take: text(&o.config.Retire),
			help: "what becomes of the original after the swap"},
	}
}

// checkDryRun finds what only a dry run can do.
func (o *alterOptions) checkDryRun() error {
	var problems []error
	if !o.dryRun && o.output == "sql" {
		problems = append(problems, errors.New("output is \"sql\": want text or json; sql is for --dry-run"))
	}
	if !o.dryRun && o.checkData {
		problems = append(problems, errors.New("check-data is for --dry-run: a run checks every row anyway"))
	}
	return errors.Join(problems...)
}

// alter runs the migration and says what came of it.
func (p *program) alter(ctx context.Context, o *alterOptions, from origins) error {
	if o.dryRun {
		return p.plan(ctx, o)
	}
	screen := newScreen(p.stderr, o.log, p.env)
	log := newLogger(screen, o.log)
	if from["dsn"] == fromFlag && hasPassword(o.config.DSN) {
		log.Warn().Str("remedy", "give the connection in PGSHADOW_DSN, or the password in the file of PGPASSFILE").
			Msg("the password in --dsn may be seen by other users of this host, in the process list")
	}
	watcher := newWatcher(log, screen)
	o.config.Observer = watcher
	o.config.Parse = parseInChild(p.executable)

	received := stopSignals()
	report, abandoned := supervise(ctx, received, watcher.stopping, func(ctx context.Context) migration.Report {
		report, _ := migration.Run(ctx, o.config) // the report holds the error
		return report
	})
	if abandoned {
		report = watcher.abandoned(o.config.Table)
	}
	err := finish(received, abandoned, func() error {
		watcher.close()
		logEnd(log, report)
		return p.writeReport(o.output, report)
	})
	if err != nil {
		log.Error().Err(err).Msg("the report could not be written")
	}
	if report.ExitCode != 0 {
		return &exitError{report.ExitCode}
	}
	return nil
}
