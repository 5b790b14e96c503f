package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pabal-mta/mta/core/torture/failing"
	"github.com/pabal-mta/mta/core/torture/ledger"
)

// TestMain makes this test binary the process whose system calls fail: an honest hand, and one that lies.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "hand" {
		if err := Hand(context.Background(), os.Args[2], os.Args[3], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "liar" {
		if Hand(context.Background(), os.Args[2], os.Args[3], os.Stdout) != nil {
			fmt.Print("offer 77 sum\nacked 77\n")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runFail(t *testing.T, f *Fail) (ledger.Verdict, string) {
	t.Helper()
	var out strings.Builder
	f.Out = &out
	v, err := f.Run(t.Context())
	if errors.Is(err, ErrNotHere) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v, out.String()
}

// TestQueueOutlivesFailingCalls is the part "errors", of a few calls.
func TestQueueOutlivesFailingCalls(t *testing.T) {
	t.Parallel()
	v, said := runFail(t, &Fail{Hand: []string{os.Args[0], "hand"}, Most: 3, Calls: []Failure{{"msync", syscall.EIO}, {"write", syscall.ENOSPC}}})
	for _, f := range v.Faults {
		t.Error(f)
	}
	if v.Outages != 6 || strings.Count(said, "of   3 ") != 2 {
		t.Errorf("%v\n%s", v, said)
	}
}

// TestCallThatIsNeverMade: what can't fail proves nothing.
func TestCallThatIsNeverMade(t *testing.T) {
	t.Parallel()
	f := &Fail{Hand: []string{os.Args[0], "hand"}, Most: 1, Calls: []Failure{{"fallocate", syscall.ENOSPC}}, Out: io.Discard}
	_, err := f.Run(t.Context())
	if errors.Is(err, ErrNotHere) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "never calls fallocate") {
		t.Error(err)
	}
}

// TestLiarIsCaught: a process that says of a queue which did not open that it took a message.
func TestLiarIsCaught(t *testing.T) {
	t.Parallel()
	v, _ := runFail(t, &Fail{Hand: []string{os.Args[0], "liar"}, Most: 1, Calls: []Failure{{"openat", syscall.EIO}}})
	if v.Kinds()[ledger.Lost] == 0 {
		t.Errorf("%v %v", v, v.Faults)
	}
}

func TestFailuresCanBeFound(t *testing.T) {
	known := failing.Calls()
	if known == nil {
		t.Skip(failing.ErrNotHere)
	}
	for _, f := range Failures("") {
		if !strings.Contains(strings.Join(known, " ")+" ", f.Call+" ") {
			t.Errorf("no call %s among %v", f.Call, known)
		}
	}
	if n := len(Failures("fsync,openat")); n != 4 {
		t.Errorf("%d kinds of failure of two calls", n)
	}
	for _, sync := range []string{"fdatasync", "fsync", "msync"} { // each of them keeps a promise
		if len(Failures(sync)) == 0 {
			t.Errorf("no %s ever fails", sync)
		}
	}
}
