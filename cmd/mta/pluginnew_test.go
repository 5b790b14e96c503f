package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/sdk/python"
	"github.com/pabal-mta/mta/sdk/scaffold"
)

// mta runs this program in a directory and returns its output. Its built-in plugins are the test binary.
func mta(t *testing.T, dir string, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MTA_TEST_PROGRAM=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Fatalf("mta %s: exit code %d, not %d\n%s%s", strings.Join(args, " "), code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

// offline runs a command that may not use the network.
func offline(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOSUMDB=off", "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// checked wants a plugin to pass all checks.
func checked(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, _ := mta(t, dir, 0, append([]string{"plugin", "check", "-json"}, args...)...)
	var c plugin.Conformance
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Failed() > 0 || len(c.Checks) < 15 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestPluginNew does what the README of a new plugin says.
func TestPluginNew(t *testing.T) {
	notShort(t)
	clone, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, kinds := range map[string]string{
		"tag": "", "watcher": "observer", "mail-room": "store,directory,connect", "all": strings.Join(scaffold.Kinds(), ","),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"plugin", "new", name}
			if name != "tag" { // else it is found: this program was built from it
				args = append(args, "-sdk", clone)
			}
			if kinds != "" {
				args = append(args, "-kinds", kinds)
			}
			parent := t.TempDir()
			mta(t, parent, 0, args...)
			dir := filepath.Join(parent, name)
			for _, args := range [][]string{{"go", "vet", "./..."}, {"go", "test", "./..."}, {"go", "build", "."}} {
				offline(t, dir, args...)
			}
			block := strings.ReplaceAll(name, "-", "_")
			checked(t, dir, "./"+name, "-config", "mta.hcl")
			mta(t, dir, 0, "fmt", "-check", "mta.hcl")
			mta(t, dir, 0, "plugin", "pin", block)
			mta(t, dir, 0, "config", "show")
			if _, stderr := mta(t, parent, 1, args...); !strings.Contains(stderr, "there already") {
				t.Errorf("the second time: %s", stderr)
			}
		})
	}
}

const pythonInterpreter = "/usr/bin/python3"

// hasPython says why there is no Python with grpc, if there is none.
func hasPython() error {
	if out, err := exec.Command(pythonInterpreter, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		return fmt.Errorf("no Python with grpc and protobuf (Debian: python3-grpcio, python3-protobuf): %s", bytes.TrimSpace(out))
	}
	return nil
}

// needsPython skips a test where there is no Python with grpc, and returns the interpreter.
func needsPython(t *testing.T) string {
	t.Helper()
	if err := hasPython(); err != nil {
		t.Skip(err)
	}
	return pythonInterpreter
}

// TestPluginNewPython does the same for Python.
func TestPluginNewPython(t *testing.T) {
	notShort(t)
	t.Parallel()
	interpreter := needsPython(t)
	parent := t.TempDir()
	mta(t, parent, 0, "plugin", "new", "all", "-lang", "python", "-kinds", strings.Join(scaffold.Kinds(), ","))
	dir := filepath.Join(parent, "all")
	offline(t, dir, interpreter, "-B", "-m", "unittest")
	offline(t, dir, interpreter, "-m", "zipapp", "src", "-p", interpreter, "-o", "all.pyz")
	checked(t, dir, "./all.pyz", "-config", "mta.hcl")
	mta(t, dir, 0, "plugin", "pin", "all")
	mta(t, dir, 0, "fmt", "-check", "mta.hcl")
	mta(t, dir, 0, "config", "show")
}

// TestPythonExample checks examples/pyfilter.
func TestPythonExample(t *testing.T) {
	notShort(t)
	t.Parallel()
	interpreter := needsPython(t)
	dir := t.TempDir()
	for _, files := range []fs.FS{os.DirFS("../../examples/pyfilter/src"), python.Files} {
		if err := os.CopyFS(filepath.Join(dir, "src"), files); err != nil {
			t.Fatal(err)
		}
	}
	offline(t, dir, interpreter, "-m", "zipapp", "src", "-p", interpreter, "-o", "pyfilter.pyz")
	checked(t, dir, "./pyfilter.pyz")
}

func TestPluginNewRefuses(t *testing.T) {
	dir := t.TempDir()
	for words, want := range map[string]string{
		"x -sdk .":                        "no clone",
		"Greylist -lang python":           "small letters",
		"../x -lang python":               "small letters",
		"x -lang cobol":                   "go or python",
		"x -lang python -kinds imap":      "no kind",
		"x -lang python -kinds directory": "store,directory",
	} {
		_, stderr := mta(t, dir, 1, append([]string{"plugin", "new"}, strings.Fields(words)...)...)
		if !strings.Contains(stderr, want) {
			t.Errorf("%s: %s; want %q", words, stderr, want)
		}
	}
	if list, _ := os.ReadDir(dir); len(list) > 0 {
		t.Errorf("left behind: %v", list)
	}
}

func TestPluginCheckFails(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "hello")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, _ := mta(t, dir, 1, "plugin", "check", "./hello")
	for _, want := range []string{"failed   handshake", `wrote "hello"`, "hint: ", "skipped  describe", "fails 1 check of"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if _, stderr := mta(t, dir, 1, "plugin", "check", "./nothing"); !strings.Contains(stderr, "no such file") {
		t.Error(stderr)
	}
}

// TestReadmePlugin builds and checks the plugin that sdk/README.md shows.
func TestReadmePlugin(t *testing.T) {
	notShort(t)
	readme, err := os.ReadFile("../../sdk/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(readme), "```go\npackage main\n")
	program, _, ended := strings.Cut(program, "```")
	if !found || !ended {
		t.Fatal("sdk/README.md shows no program")
	}
	dir := filepath.Join(t.TempDir(), "trap")
	clone, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	mta(t, filepath.Dir(dir), 0, "plugin", "new", "trap", "-sdk", clone)
	if err := os.Remove(filepath.Join(dir, "main_test.go")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n"+program), 0o600); err != nil {
		t.Fatal(err)
	}
	offline(t, dir, "go", "build", ".")
	checked(t, dir, "./trap")
}
