package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

// sheet is a table of figures, a run in each row.
type sheet struct {
	head []string
	rows []sheetRow
}

type sheetRow struct {
	label  string
	values []float64
}

func newSheet(head ...string) *sheet { return &sheet{head: head} }

func (s *sheet) add(label string, values ...float64) {
	s.rows = append(s.rows, sheetRow{label, values})
}

// summarize adds the median, the least and the greatest of each column.
func (s *sheet) summarize() {
	median, least, most := sheetRow{label: "median"}, sheetRow{label: "min"}, sheetRow{label: "max"}
	for column := range len(s.head) - 1 {
		var values []float64
		for _, row := range s.rows {
			values = append(values, row.values[column])
		}
		slices.Sort(values)
		n := len(values)
		median.values = append(median.values, (values[(n-1)/2]+values[n/2])/2)
		least.values = append(least.values, values[0])
		most.values = append(most.values, values[n-1])
	}
	s.rows = append(s.rows, median, least, most)
}

// String aligns the columns to the right.
func (s *sheet) String() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells []string) {
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") // a strings.Builder takes everything
	}
	line(s.head)
	for _, row := range s.rows {
		cells := []string{row.label}
		for _, value := range row.values {
			cells = append(cells, figure(value))
		}
		line(cells)
	}
	_ = w.Flush()
	return text.String()
}

// figure has a decimal where there is one to show.
func figure(value float64) string {
	if value == float64(int64(value)) {
		return strconv.FormatInt(int64(value), 10)
	}
	return fmt.Sprintf("%.1f", value)
}

// phaseList says how long each phase took.
func phaseList(phases []migration.PhaseDuration) string {
	var texts []string
	for _, phase := range phases {
		texts = append(texts, fmt.Sprintf("%s %s", phase.Name, seconds(time.Duration(phase.DurationMS)*time.Millisecond)))
	}
	return strings.Join(texts, ", ")
}

func phaseTime(phases []migration.PhaseDuration, name string) time.Duration {
	var all time.Duration
	for _, phase := range phases {
		if phase.Name == name {
			all += time.Duration(phase.DurationMS) * time.Millisecond
		}
	}
	return all
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func megabytes(bytes int64) string {
	if bytes == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20))
}

// grouped is a whole number with commas between its thousands.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
