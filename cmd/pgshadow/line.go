package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// part is a piece of the live line. Where the terminal is narrow, those of the
// highest rank go first.
type part struct {
	rank int
	text string
}

const separator = "  "

// liveLine says in at most width columns how far a run is.
func liveLine(now situation, width int) string {
	parts := []part{{0, now.phase.String()}, {3, clock(now.elapsed)}}
	if now.progress != nil {
		parts = append(parts, progressParts(*now.progress)...)
	}
	if now.waits != "" {
		parts = append(parts, part{1, printable(now.waits)})
	}
	for rank := 9; rank > 1; rank-- {
		if columns(joinParts(parts)) <= width {
			break
		}
		parts = without(parts, rank)
	}
	return fit(joinParts(parts), width)
}

func progressParts(p migration.Progress) []part {
	percent, eta, known := expectation(p)
	rows := count(float64(p.Rows)) + " rows"
	var parts []part
	if known {
		parts = append(parts, part{1, fmt.Sprintf("%.1f%%", percent)})
		rows = count(float64(p.Rows)) + " of " + count(float64(p.EstimatedRows)) + " rows"
	}
	parts = append(parts, part{5, rows})
	if p.RowsPerSecond > 0 {
		parts = append(parts, part{6, count(p.RowsPerSecond) + " rows/s"})
	}
	parts = append(parts, part{4, "lag " + bytesText(p.LagBytes)}, part{7, count(float64(p.DirtyKeys)) + " dirty keys"})
	if known && eta >= 0 {
		parts = append(parts, part{2, "ETA " + clock(eta)})
	}
	return parts
}

// expectation is how far a phase is and how long it will take, where that is
// known: only the copy and the verification go by rows, and a copy that has gone
// past the planner's estimate proves it wrong.
func expectation(p migration.Progress) (percent float64, eta time.Duration, known bool) {
	switch p.Phase {
	case migration.Copy:
		known = p.Rows < p.EstimatedRows
	case migration.Verify:
		known = p.EstimatedRows > 0
	case migration.Preflight, migration.Prepare, migration.Native, migration.Index, migration.CatchUp, migration.Cutover, migration.CleanUp, migration.Ended:
	}
	return p.Percent, p.ETA, known
}

func joinParts(parts []part) string {
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = part.text
	}
	return strings.Join(texts, separator)
}

func without(parts []part, rank int) []part {
	var kept []part
	for _, part := range parts {
		if part.rank != rank {
			kept = append(kept, part)
		}
	}
	return kept
}

// columns is how wide a text may be on a terminal, at most.
func columns(text string) int {
	wide := 0
	for _, r := range text {
		wide += runeColumns(r)
	}
	return wide
}

// runeColumns takes every script that has wide letters for wide.
func runeColumns(r rune) int {
	if r >= 0x1100 && r != '…' {
		return 2
	}
	return 1
}

// fit cuts a text to the width.
func fit(text string, width int) string {
	if columns(text) <= width {
		return text
	}
	used := 1 // for the …
	for i, r := range text {
		if used += runeColumns(r); used > width {
			return strings.TrimRight(text[:i], " ") + "…"
		}
	}
	return text
}

// printable keeps control characters, which may come from the server, off the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// count is a number in three digits, such as 12.3k.
func count(n float64) string { return scaled(n, 1000, "", "k", "M", "G", "T", "P") }

// bytesText is a size in PostgreSQL's units, whose kilo is 1024.
func bytesText(n int64) string {
	return scaled(float64(n), 1024, " B", " kB", " MB", " GB", " TB", " PB")
}

func scaled(n, base float64, units ...string) string {
	unit := 0
	for unit < len(units)-1 && math.Round(n) >= base {
		n, unit = n/base, unit+1
	}
	if unit == 0 || n >= 100 {
		return fmt.Sprintf("%.0f%s", n, units[unit])
	}
	return fmt.Sprintf("%.1f%s", n, units[unit])
}

// clock is a duration in whole seconds, such as 1h02m03s.
func clock(d time.Duration) string {
	seconds := int64(d.Round(time.Second) / time.Second)
	switch {
	case seconds < 60:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 3600:
		return fmt.Sprintf("%dm%02ds", seconds/60, seconds%60)
	case seconds < 24*3600:
		return fmt.Sprintf("%dh%02dm%02ds", seconds/3600, seconds/60%60, seconds%60)
	default:
		return fmt.Sprintf("%dd%02dh%02dm", seconds/86400, seconds/3600%24, seconds/60%60)
	}
}

// grouped is a whole number with commas between its thousands.
func grouped[T int | int64 | uint64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
