package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall wants .ci/install to fail where an installation fails, and to leave it to its caller where it can't be tried.
func TestInstall(t *testing.T) {
	script, err := filepath.Abs("../../.ci/install")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		id, status, aptGet string
		want               int
		says               string
	}{
		"there already":      {"0", "installed", "exit 1", 0, ""},
		"installed":          {"0", "not-installed", "exit 0", 0, ""},
		"fails":              {"0", "not-installed", "echo E: no network; exit 100", 1, "E: no network\ncould not be installed: some package\n"},
		"not root":           {"1000", "not-installed", "exit 1", 77, "skipped: installing some package needs root and apt-get\n"},
		"no Debian":          {"0", "", "", 77, "skipped: installing some package needs root and apt-get\n"},
		"neither, no reason": {"1000", "installed", "", 0, ""},
	} {
		dir := t.TempDir()
		for program, text := range map[string]string{"id": "echo " + test.id, "dpkg-query": "printf '" + test.status + "'", "apt-get": test.aptGet} {
			if text == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, program := range []string{"bash", "env", "grep", "tail", "rm", "mktemp", "chmod"} {
			path, err := exec.LookPath(program)
			if err != nil {
				t.Skip(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, program)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("bash", script, "some", "package")
		cmd.Env = []string{"PATH=" + dir, "MTA_POLICY=" + filepath.Join(dir, "policy")}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != test.want || string(out) != test.says {
			t.Errorf("%s: exit code %d, %s; want %d, %s", name, code, out, test.want, test.says)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "policy")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, strings.Join(left, " "))
		}
	}
}
