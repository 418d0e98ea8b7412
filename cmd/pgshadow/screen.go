package main

import (
	"bytes"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// What the screen tells a terminal (ECMA-48).
const (
	clearLine  = "\r\x1b[K"
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
)

// screen is stderr. On a terminal it keeps one live line below everything that
// is written to it. Its methods may be called from several goroutines.
type screen struct {
	color bool       // the terminal shows colors, and the user wants them
	live  bool       // the live line is shown
	width func() int // of the terminal, in columns

	mu     sync.Mutex
	out    io.Writer
	line   string
	hidden bool // the cursor
	closed bool
}

// newScreen finds out what stderr is. TERM=dumb is a terminal without a live
// line; NO_COLOR (no-color.org) takes the colors away, and nothing else.
func newScreen(out io.Writer, o logOptions, env func(string) (string, bool)) *screen {
	s := &screen{out: out, width: func() int { return 0 }}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || o.format != console {
		return s
	}
	kind, _ := env("TERM")
	noColor, _ := env("NO_COLOR")
	s.color = noColor == "" && kind != "dumb"
	s.live = kind != "dumb" && (o.level == "info" || o.level == "debug")
	s.width = func() int {
		columns, _, err := term.GetSize(int(file.Fd()))
		if err != nil || columns <= 0 {
			return 80
		}
		return columns
	}
	return s
}

// Write writes whole lines above the live line.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.out.Write(lines)
	}
	var all bytes.Buffer
	all.WriteString(clearLine)
	all.Write(lines)
	all.WriteString(s.line)
	if _, err := s.out.Write(all.Bytes()); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// draw replaces the live line by one that fits into the terminal as it is now.
func (s *screen) draw(line func(width int) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live || s.closed {
		return
	}
	before := clearLine
	if !s.hidden {
		before, s.hidden = hideCursor+clearLine, true
	}
	s.line = line(s.width() - 1) // the last column may wrap
	_, _ = io.WriteString(s.out, before+s.line)
}

// close takes the live line away and gives the cursor back. The screen can still
// be written to.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.hidden {
		_, _ = io.WriteString(s.out, clearLine+showCursor)
	}
	s.line, s.hidden = "", false
}
