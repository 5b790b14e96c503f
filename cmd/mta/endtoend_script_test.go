package main

import (
	"os"
	"os/exec"
	"regexp"

	"github.com/rogpeppe/go-internal/testscript"
)

// capture NAME PATTERN: sets the variable to the first group of the pattern in what the last command printed.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	found := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("no %s in %q", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[1])
}

// until PATTERN ARGUMENT...: runs mta again and again until it prints what matches.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	self, err := os.Executable()
	ts.Check(err)
	var out []byte
	if !poll(func() bool {
		cmd := exec.Command(self, args[1:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), []string{"MTA_TEST_PROGRAM=1"}
		out, err = cmd.Output()
		return err == nil && pattern.Match(out) != neg
	}) {
		ts.Fatalf("mta %v printed to the end, with %v:\n%s", args[1:], err, out)
	}
}

// houserules FILE: builds the plugin of examples/houserules.
func cmdHouseRules(ts *testscript.TestScript, neg bool, args []string) {
	build := exec.Command("go", "build", "-o", ts.MkAbs(args[0]), "../../examples/houserules")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("go build: %v\n%s", err, out)
	}
}
