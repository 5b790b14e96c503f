package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/pabal-mta/mta/core/torture/proc"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

type moodyConfig struct {
	Mood string `mta:"mood,optional" default:"good"`
	Says string `mta:"says"`
}

// moody is a filter that says at MAIL what it was configured with, and whose processes do not always come up.
type moody struct{ c moodyConfig }

func beMoody() {
	if os.Getenv("MOOD") == "dead" {
		fmt.Fprintln(os.Stderr, "the license has run out")
		os.Exit(3)
	}
	sdk.Serve(sdk.Plugin[moodyConfig]{Name: "moody", Version: "1", Doc: "has moods", Kinds: (*moody)(nil), New: newMoody})
}

func newMoody(_ context.Context, c moodyConfig, h sdk.Host) (any, error) {
	switch c.Mood {
	case "refusing":
		return nil, fmt.Errorf("there is no table %q in the database", c.Says)
	case "dying":
		fmt.Fprintln(os.Stderr, "the database is gone")
		os.Exit(4)
	}
	return &moody{c}, nil
}

func (m *moody) Mail(context.Context, *mail.Session) (mail.Verdict, error) {
	return mail.Reject(550, "5.7.1", "this is %s", m.c.Says), nil
}

// processes N: waits until N processes are at home in the script's directory: a server, and its plugins.
func cmdProcesses(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if !poll(func() bool { return len(proc.In(ts.MkAbs("."))) == want }) {
		ts.Fatalf("there are %v", proc.In(ts.MkAbs(".")))
	}
}
