//go:build release

// Package release checks what the release build has left in dist: make release-snapshot.
package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"debug/macho"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const dist = "../../dist"

var platforms = []string{"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64"}

// builtVersion is the version that the release build has chosen.
func builtVersion(t *testing.T) string {
	t.Helper()
	var metadata struct{ Version string }
	if err := json.Unmarshal(read(t, filepath.Join(dist, "metadata.json")), &metadata); err != nil {
		t.Fatal(err)
	}
	return metadata.Version
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// git is what git says of the commit that is checked out.
func git(t *testing.T, args ...string) string {
	t.Helper()
	output, err := exec.Command("git", args...).Output()
	if err != nil {
		t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(output))
}

func commitTime(t *testing.T) time.Time {
	t.Helper()
	made, err := time.Parse(time.RFC3339, git(t, "log", "-1", "--format=%cI"))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func archiveName(t *testing.T, platform string) string {
	t.Helper()
	return "pgshadow_" + builtVersion(t) + "_" + platform
}

// unpack reads an archive: each file by its path. Every file is of the commit's time.
func unpack(t *testing.T, name string) map[string][]byte {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(read(t, filepath.Join(dist, name+".tar.gz"))))
	if err != nil {
		t.Fatal(err)
	}
	made, files := commitTime(t), map[string][]byte{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		path, inside := strings.CutPrefix(header.Name, name+"/")
		mode := int64(0o644)
		if path == "pgshadow" {
			mode = 0o755
		}
		if !inside || header.Mode&0o777 != mode || header.Uname != "root" || !header.ModTime.Equal(made) {
			t.Errorf("%s has mode %o, owner %q and is of %s, want %s", header.Name, header.Mode, header.Uname, header.ModTime.UTC(), made.UTC())
		}
		if files[path], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchives(t *testing.T) {
	t.Parallel()
	want := []string{"LICENSE", "README.md", "completions/_pgshadow", "completions/pgshadow.bash", "completions/pgshadow.fish",
		"man/pgshadow.1", "pgshadow"}
	const testdata = "../../cmd/pgshadow/testdata/"
	same := map[string]string{"LICENSE": "../../LICENSE", "README.md": "../../README.md",
		"completions/_pgshadow":     testdata + "completion_zsh.golden",
		"completions/pgshadow.bash": testdata + "completion_bash.golden",
		"completions/pgshadow.fish": testdata + "completion_fish.golden"}
	_, manual, _ := strings.Cut(string(read(t, testdata+"man.golden")), "\n")
	heading := `.TH PGSHADOW 1 "` + strings.ReplaceAll(commitTime(t).UTC().Format(time.DateOnly), "-", `\-`) +
		`" "pgshadow v` + strings.ReplaceAll(builtVersion(t), "-", `\-`) + "\"\n"
	for _, platform := range platforms {
		files := unpack(t, archiveName(t, platform))
		if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", platform, got, want)
		}
		for path, original := range same {
			if !bytes.Equal(files[path], read(t, original)) {
				t.Errorf("%s: %s differs from %s", platform, path, original)
			}
		}
		if string(files["man/pgshadow.1"]) != heading+manual {
			t.Errorf("%s: the manual page begins with %.100q, want %q and the rest of the golden file", platform, files["man/pgshadow.1"], heading)
		}
		checkBinary(t, platform, files["pgshadow"])
	}
}

// checkBinary looks into a program for any platform: nothing is linked to it but, on
// macOS, the system's own libraries, which are the only way to call its kernel.
func checkBinary(t *testing.T, platform string, program []byte) {
	t.Helper()
	system, processor, _ := strings.Cut(platform, "_")
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		t.Errorf("%s: %v", platform, err)
		return
	}
	noted := map[string]string{}
	for _, setting := range info.Settings {
		noted[setting.Key] = setting.Value
	}
	for key, want := range map[string]string{"CGO_ENABLED": "0", "-trimpath": "true", "GOOS": system, "GOARCH": processor} {
		if noted[key] != want {
			t.Errorf("%s: it was built with %s=%q, want %q", platform, key, noted[key], want)
		}
	}
	if system == "linux" {
		checkELF(t, platform, program)
		return
	}
	file, err := macho.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Errorf("%s: %v", platform, err)
		return
	}
	libraries, err := file.ImportedLibraries()
	if err != nil {
		t.Errorf("%s: %v", platform, err)
	}
	for _, library := range libraries {
		if !strings.HasPrefix(library, "/usr/lib/lib") && !strings.HasPrefix(library, "/System/Library/") {
			t.Errorf("%s: it is linked to %s", platform, library)
		}
	}
	if want := map[string]macho.Cpu{"amd64": macho.CpuAmd64, "arm64": macho.CpuArm64}[processor]; file.Cpu != want {
		t.Errorf("%s: it is for %s", platform, file.Cpu)
	}
}

func checkELF(t *testing.T, platform string, program []byte) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Errorf("%s: %v", platform, err)
		return
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("%s: it is linked dynamically: it has a segment %s", platform, segment.Type)
		}
	}
	if want := map[string]elf.Machine{"linux_amd64": elf.EM_X86_64, "linux_arm64": elf.EM_AARCH64}[platform]; file.Machine != want {
		t.Errorf("%s: it is for %s", platform, file.Machine)
	}
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(string(read(t, filepath.Join(dist, "pgshadow_"+builtVersion(t)+"_SHA256SUMS")))), "\n")
	var want []string
	for _, platform := range platforms {
		name := archiveName(t, platform) + ".tar.gz"
		sum := sha256.Sum256(read(t, filepath.Join(dist, name)))
		want = append(want, hex.EncodeToString(sum[:])+"  "+name)
	}
	slices.Sort(lines)
	slices.Sort(want)
	if !slices.Equal(lines, want) {
		t.Errorf("the checksums are %q, want %q", lines, want)
	}
}

// The host's program runs as it is, and says what it was built from.
func TestVersion(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "pgshadow")
	files := unpack(t, archiveName(t, runtime.GOOS+"_"+runtime.GOARCH))
	if err := os.WriteFile(program, files["pgshadow"], 0o755); err != nil {
		t.Fatal(err)
	}
	commit, date := git(t, "rev-parse", "HEAD"), commitTime(t).UTC().Format(time.RFC3339)
	want := "pgshadow v" + builtVersion(t) + ", commit " + commit + " of " + date + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	cmd := exec.Command(program, "version")
	cmd.Env = []string{}
	output, err := cmd.CombinedOutput()
	if err != nil || string(output) != want {
		t.Errorf("it says %q, %v, want %q", output, err, want)
	}
}
