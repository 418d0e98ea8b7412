package main

import (
	"io"
	"strings"
	"testing"
)

// terminal is as much of a terminal as the screen uses: it knows what would be
// seen on one.
type terminal struct {
	t      *testing.T
	width  int
	rows   [][]rune
	column int
	cursor bool
	drawn  []string // every row that was gone back in, as it was then
}

func newTerminal(t *testing.T, width int) *terminal {
	return &terminal{t: t, width: width, rows: [][]rune{nil}, cursor: true}
}

// Write implements io.Writer. A write holds whole control sequences.
func (m *terminal) Write(output []byte) (int, error) {
	text := string(output)
	for len(text) > 0 {
		if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' && r <= '~' })
			m.control(rest[:end+1])
			text = rest[end+1:]
			continue
		}
		r := []rune(text)[0]
		m.put(r)
		text = text[len(string(r)):]
	}
	return len(output), nil
}

func (m *terminal) control(sequence string) {
	last := len(m.rows) - 1
	switch {
	case sequence == "K":
		m.rows[last] = m.rows[last][:min(m.column, len(m.rows[last]))]
	case sequence == "?25l":
		m.cursor = false
	case sequence == "?25h":
		m.cursor = true
	case strings.HasSuffix(sequence, "m"):
	default:
		m.t.Errorf("the terminal got %q", sequence)
	}
}

func (m *terminal) put(r rune) {
	last := len(m.rows) - 1
	switch {
	case r == '\r':
		m.drawn = append(m.drawn, string(m.rows[last]))
		m.column = 0
	case r == '\n':
		m.rows, m.column = append(m.rows, nil), 0
	case r < ' ':
		m.t.Errorf("the terminal got %q", r)
	case m.column == m.width:
		m.rows, m.column = append(m.rows, []rune{r}), 1
	default:
		m.rows[last] = append(m.rows[last][:min(m.column, len(m.rows[last]))], r)
		m.column++
	}
}

func (m *terminal) String() string {
	var rows []string
	for _, row := range m.rows {
		rows = append(rows, string(row))
	}
	return strings.Join(rows, "\n")
}

func TestScreen(t *testing.T) {
	t.Parallel()
	seen := newTerminal(t, 20)
	s := &screen{out: seen, live: true, width: func() int { return seen.width }}
	say := func(text string) { _, _ = io.WriteString(s, text) }
	draw := func(text string) { s.draw(func(width int) string { return fit(text, width) }) }
	steps := []struct {
		do   func()
		want string
	}{
		{func() { say("first\n") }, "first\n"},
		{func() { draw("copy 1%") }, "first\ncopy 1%"},
		{func() { say("a line that is longer than that\n") }, "first\na line that is longe\nr than that\ncopy 1%"},
		{func() { draw("copy 23% and ever so on and on") }, "first\na line that is longe\nr than that\ncopy 23% and ever…"},
		{func() { draw("copy 3%") }, "first\na line that is longe\nr than that\ncopy 3%"},
		{func() { seen.width = 5; draw("copy 4%") }, "first\na line that is longe\nr than that\ncop…"},
		{func() { seen.width = 20; say("two\nlines\n") }, "first\na line that is longe\nr than that\ntwo\nlines\ncop…"},
		{s.close, "first\na line that is longe\nr than that\ntwo\nlines\n"},
		{func() { draw("too late") }, "first\na line that is longe\nr than that\ntwo\nlines\n"},
		{s.close, "first\na line that is longe\nr than that\ntwo\nlines\n"},
		{func() { say("end\n") }, "first\na line that is longe\nr than that\ntwo\nlines\nend\n"},
	}
	for i, step := range steps {
		step.do()
		if got := seen.String(); got != step.want {
			t.Fatalf("after step %d there is\n%s\nwant\n%s", i+1, got, step.want)
		}
		if hidden := i >= 1 && i < 7; seen.cursor == hidden {
			t.Errorf("after step %d the cursor's visibility is %t", i+1, seen.cursor)
		}
	}
}

// A file or pipe gets no live line and no escape sequence.
func TestScreenOfNoTerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := newScreen(&out, logOptions{console, "info"}, func(string) (string, bool) { return "", false })
	s.draw(func(int) string { return "copy 1%" })
	_, _ = io.WriteString(s, "line\n")
	s.close()
	if out.String() != "line\n" || s.color {
		t.Errorf("got %q, color %t", out.String(), s.color)
	}
}
