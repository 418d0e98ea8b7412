package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/pgshadow/pgshadow/pkg/migration"
)

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := runProgram(t, nil, "completion", shell)
		if got.code != 0 || got.stderr != "" {
			t.Errorf("%s: got %s", shell, got)
		}
		golden(t, "completion_"+shell, got.stdout)
	}
	for args, want := range map[string]string{
		"completion":          "the shell is missing: want bash, zsh or fish",
		"completion csh":      `there is no completion for "csh": want bash, zsh or fish`,
		"completion bash zsh": `unexpected argument "zsh": every value belongs to a flag`,
	} {
		got := runProgram(t, nil, strings.Fields(args)...)
		if want := "pgshadow completion: " + want + "\nsee: pgshadow completion --help\n"; got != (ended{2, "", want}) {
			t.Errorf("%s: got %s", args, got)
		}
	}
}

// bashReplies prints what bash completes each line to. Its words are parted as readline
// parts them: at blanks, and around =.
const bashReplies = `
set -u
eval "$1"
shift
for line; do
	COMP_WORDS=($(sed 's/=/ = /g' <<<"$line"))
	if [[ $line == *' ' || $line == *= ]]; then COMP_WORDS+=(''); fi
	if [[ $line == *= ]]; then unset 'COMP_WORDS[${#COMP_WORDS[@]}-1]'; fi
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_pgshadow
	echo "${COMPREPLY[*]-}"
done
`

func TestBashCompletes(t *testing.T) {
	t.Parallel()
	names := strings.Join(commandNames((&program{}).specs()), " ")
	offers := strings.Join(migration.SettingNames(), "= ") + "="
	var lines, want []string
	for _, c := range [][2]string{
		{"pgshadow ", names + " help --help --version"},
		{"pgshadow co", "completion"},
		{"pgshadow --v", "--version"},
		{"pgshadow nonsense ", ""},
		{"pgshadow alter --max-r", "--max-replica-lag --max-rows-per-second"},
		{"pgshadow alter --verify ", "full sample off"},
		{"pgshadow alter --verify s", "sample"},
		{"pgshadow alter --verify=", "full sample off"},
		{"pgshadow alter --verify=o", "off"},
		{"pgshadow alter --verify full --retire=k", "keep"},
		{"pgshadow alter --restart --log-level w", "warn"},
		{"pgshadow alter --table ", ""},
		{"pgshadow alter --set a=", ""},
		{"pgshadow alter --table cutover --cut", "--cutover --cutover-attempts"},
		{"pgshadow status ", "--table --dsn --output --help"},
		{"pgshadow status --output ", "text json"},
		{"pgshadow set ", offers},
		{"pgshadow set --o", "--output"},
		{"pgshadow set --output json v", "verify="},
		{"pgshadow set cutover=", "auto manual"},
		{"pgshadow set cutover=m", "manual"},
		{"pgshadow set chunk-time=", ""},
		{"pgshadow set --table cutover ", offers},
		{"pgshadow completion ", "bash zsh fish"},
		{"pgshadow help fi", "finish"},
	} {
		lines, want = append(lines, c[0]), append(want, c[1])
	}
	script := runProgram(t, nil, "completion", "bash").stdout
	output, err := exec.Command("bash", append([]string{"--norc", "-c", bashReplies, "bash", script}, lines...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	got := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("got %d replies to %d lines:\n%s", len(got), len(want), output)
	}
	for i, line := range lines {
		if got[i] != want[i] {
			t.Errorf("%q becomes %q, want %q", line, got[i], want[i])
		}
	}
}

// Typed on a terminal, with the Tab key, by way of readline.
func TestBashCompletesOnTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "--norc", "--noprofile", "-i")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "TERM=dumb", "PS1=", "INPUTRC=/dev/null", "HISTFILE=",
		"SCRIPT=" + runProgram(t, nil, "completion", "bash").stdout}
	keys, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 400})
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close() //nolint:errcheck // bash has ended by then, or the test has failed
	typed := func(line, want string) {
		t.Helper()
		if _, err := io.WriteString(keys, line); err != nil {
			t.Fatal(err)
		}
		readUntil(t, keys, &strings.Builder{}, want)
	}
	// Quotes, that what comes back of the line itself is not taken for its output.
	typed("PS1='re''ady>'\n", "ready>")
	typed(`eval "$SCRIPT"; pgshadow() { printf '[%s]' "$@"; echo; }; : >plan.yaml`+"\n", "ready>")
	typed("pgshadow al\t--conf\tpl\t--verify=s\t--retire \tk\t\n", "[alter][--config][plan.yaml][--verify=sample][--retire][keep]\r\n")
	typed("pgshadow set verif\to\t--out\tj\t\n", "[set][verify=off][--output][json]\r\n")
	typed("exit\n", "exit")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// What is offered is accepted, and nothing else is.
func TestWordsAreAllThereAre(t *testing.T) {
	t.Parallel()
	var o alterOptions
	for _, section := range o.sections() {
		for _, s := range section.settings {
			if len(s.words) == 0 {
				continue
			}
			for _, word := range append(slices.Clone(s.words), "nonsense") {
				o, err := given(t, nil, "--table", "t", "--alter", "drop a", "--"+s.name, word)
				if err == nil {
					err = o.config.Validate()
				}
				if (err == nil) != (word != "nonsense") {
					t.Errorf("--%s %s: %v", s.name, word, err)
				}
				if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%s is %q", s.name, word)) {
					t.Errorf("--%s %s: %v", s.name, word, err)
				}
			}
		}
	}
}

// pgshadow set offers flags of alter, and its help names them.
func TestOffersOfSet(t *testing.T) {
	t.Parallel()
	p := &program{}
	var valued []string
	for _, pair := range pairs(p.steerCommands()[4], p.specs()) {
		valued = append(valued, pair.name)
	}
	if want := []string{"cutover", "retire", "verify"}; !slices.Equal(valued, want) {
		t.Errorf("these have fixed values: %q, want %q", valued, want)
	}
	words := strings.FieldsFunc(setHelp, func(r rune) bool { return strings.ContainsRune(" ,.\n", r) })
	for _, name := range migration.SettingNames() {
		if !slices.Contains(p.alterCommand().flags(), "--"+name) {
			t.Errorf("alter has no flag --%s", name)
		}
		if !slices.Contains(words, name) {
			t.Errorf("the help of set does not name %s", name)
		}
	}
}
