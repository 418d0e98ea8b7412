package examples

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// docs/pipelines.md leads to every example, and nowhere else than to what there is; what it says of the scripts'
// surroundings is what the tests give them.
func TestDocs(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/pipelines.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	linked := map[string]bool{}
	for _, found := range link.FindAllStringSubmatch(text, -1) {
		path := filepath.Join("..", "..", "docs", found[1])
		linked[path] = true
		if _, err := os.Stat(path); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
	err = filepath.WalkDir(filepath.Clean(folder), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !linked[path] {
			t.Errorf("docs/pipelines.md has no link to %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for what, want := range map[string]string{
		"the question":    `CHANGED="` + changedQuery + `"`,
		"the command":     `examples/ci/change.sh --table ` + sample[1] + ` --alter "` + sample[3] + `"`,
		"the deploy step": `examples/deploy/release.sh ` + sample[1],
	} {
		if !strings.Contains(flat(text), flat(want)) {
			t.Errorf("docs/pipelines.md has not %s: %s", what, want)
		}
	}
}

// flat has one space for each white space.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }
