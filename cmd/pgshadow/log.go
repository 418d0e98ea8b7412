package main

import (
	"io"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

const (
	console = "console"
	jsonLog = "json"
)

var (
	logForms    = []string{console, jsonLog}
	logLevels   = []string{"debug", "info", "warn", "error"}
	reportForms = []string{"text", "json"}
)

// logOptions say how the log on stderr looks.
type logOptions struct{ format, level string }

// outputSettings are those of every command that runs something.
func outputSettings(output *string, log *logOptions, forms ...string) []setting {
	return []setting{
		reportSetting(output, forms...),
		{name: "log-format", words: logForms, preset: console, take: oneOf(&log.format, logForms...),
			help: "form of the log on stderr"},
		{name: "log-level", value: "LEVEL", words: logLevels, preset: "info", take: oneOf(&log.level, logLevels...),
			help: "debug, info, warn or error"},
	}
}

// reportSetting takes the form of the report: one of forms, or text or json.
func reportSetting(output *string, forms ...string) setting {
	help := "form of the report on stdout"
	if forms == nil {
		forms = reportForms
	}
	if slices.Contains(forms, "sql") {
		help += "; sql with --dry-run alone"
	}
	return setting{name: "output", words: forms, preset: "text", take: oneOf(output, forms...), help: help}
}

func (o logOptions) parsedLevel() zerolog.Level {
	level, err := zerolog.ParseLevel(o.level)
	if err != nil {
		return zerolog.InfoLevel
	}
	return level
}

// fieldOrder is that of the console format, which would sort by name.
var fieldOrder = []string{"run_id", "table", "phase", "percent", "rows", "estimated_rows", "rows_per_second", "eta_seconds",
	"lag_bytes", "dirty_keys", "invisible_keys", "changes_received",
	"outcome", "exit_code", "attempt", "command", "argument", "by", "waiting_for", "reason"}

func newLogger(screen *screen, o logOptions) zerolog.Logger {
	var out io.Writer = screen
	if o.format == console {
		out = zerolog.ConsoleWriter{Out: screen, NoColor: !screen.color, TimeFormat: time.DateTime, FieldsOrder: fieldOrder}
	}
	return zerolog.New(out).Level(o.parsedLevel()).With().Timestamp().Logger()
}

// logEvent writes the one line of an event. Progress has its own.
func logEvent(log zerolog.Logger, event migration.Event) {
	switch e := event.(type) {
	case migration.RunStarted:
		log.Info().Str("run_id", e.RunID).Str("table", e.Table).Msg(startText(e))
	case migration.PhaseStarted:
		log.Info().Stringer("phase", e.Phase).Msg("phase started")
	case migration.PhaseFinished:
		log.Info().Stringer("phase", e.Phase).Int64("duration_ms", e.Duration.Milliseconds()).Msg("phase finished")
	case migration.StepStarted:
		log.Info().Str("statement", e.SQL).Msg("step started")
	case migration.ChunkCopied:
		log.Debug().Str("chunk", e.Chunk).Int64("rows", e.Rows).Int64("duration_ms", e.Duration.Milliseconds()).Msg("chunk copied")
	case migration.Restarted:
		log.Warn().Str("reason", e.Reason).Msg("copy restarted")
	case migration.Steered:
		line := log.Info().Str("command", e.Command)
		if e.Argument != "" {
			line = line.Str("argument", e.Argument)
		}
		line.Str("by", e.By).Msg("steered")
	case migration.Swapped:
		log.Info().Str("retired_table", e.Retired).Msg("swapped")
	case migration.Rehearsed:
		log.Info().Msg("swap rehearsed and rolled back")
	default:
		logHindrance(log, event)
	}
}

func startText(e migration.RunStarted) string {
	what, how := "run", "started"
	if e.Rehearsal {
		what = "rehearsal"
	}
	if e.Resumed {
		how = "resumed"
	}
	return what + " " + how
}

// logHindrance writes the line of an event that holds the run up, or may.
func logHindrance(log zerolog.Logger, event migration.Event) {
	switch e := event.(type) {
	case migration.Waiting:
		log.Warn().Str("waiting_for", e.For).Str("reason", e.Reason).Msg("waiting")
	case migration.Throttled:
		if e.Reason == "" {
			log.Info().Msg("throttle released")
			return
		}
		log.Info().Str("reason", e.Reason).Msg("throttled")
	case migration.AttemptFailed:
		log.Warn().Int("attempt", e.Attempt).Str("reason", e.Reason).Int64("backoff_ms", e.Backoff.Milliseconds()).Msg("cutover attempt failed")
	case migration.Noted:
		log.Warn().Str("note", e.Note).Msg("noted")
	default:
	}
}

// logProgress writes a progress line where there is no display.
func logProgress(log zerolog.Logger, level zerolog.Level, now situation) {
	line := log.WithLevel(level).Stringer("phase", now.phase).Int64("duration_ms", now.elapsed.Milliseconds())
	if p := now.progress; p != nil {
		if percent, eta, known := expectation(*p); known {
			line = line.Float64("percent", float64(int(percent*10))/10).Int64("estimated_rows", p.EstimatedRows)
			if eta >= 0 {
				line = line.Int64("eta_seconds", int64(eta.Seconds()))
			}
		}
		line = line.Int64("rows", p.Rows).Int64("rows_per_second", int64(p.RowsPerSecond)).
			Int64("lag_bytes", p.LagBytes).Int("dirty_keys", p.DirtyKeys).Int64("invisible_keys", p.InvisibleKeys).
			Uint64("changes_received", p.ChangesReceived).Stringer("confirmed_lsn", p.Confirmed)
	}
	if p := now.progress; p != nil && p.WALRetained > 0 {
		line = line.Int64("wal_retained_bytes", p.WALRetained)
	}
	if now.waits != "" {
		line = line.Str("throttle", now.waits)
	}
	line.Msg("progress")
}

// logEnd writes the warnings of a run, and its last line.
func logEnd(log zerolog.Logger, report migration.Report) {
	for _, warning := range report.Warnings {
		log.Warn().Str("warning", warning).Msg("warned")
	}
	line := log.Info()
	if report.Error != nil {
		line = log.Error().Str("reason", report.Error.Message).Str("state", report.Error.State)
	}
	if report.RunID != "" {
		line = line.Str("run_id", report.RunID)
	}
	message := "run ended"
	if report.Rehearsal != nil {
		message = "rehearsal ended"
	}
	line.Str("table", report.Table).Str("outcome", string(report.Outcome)).Int("exit_code", report.ExitCode).
		Int64("duration_ms", report.DurationMS).Msg(message)
}
