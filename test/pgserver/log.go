package pgserver

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// tail is the last lines of the file from the offset on. It is for error messages, so a file that cannot be read gives
// a text that says so.
func tail(path string, from int64) string {
	text, err := readEnd(path, from)
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logTailLines):], "\n")
}

func readEnd(path string, from int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("opening the log: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("reading the log: %w", err)
	}
	from = max(from, info.Size()-logTailBytes)
	text, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	if err != nil {
		return "", fmt.Errorf("reading the log: %w", err)
	}
	return string(text), nil
}
