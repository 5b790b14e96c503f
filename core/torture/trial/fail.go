package trial

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pabal-mta/mta/core/torture/ledger"
)

// Fail is a trial in which a system call fails: the first of its kind, then the second, and so on to the last. A Hand uses
// the queue meanwhile, and afterwards the queue is opened without the failure and held against what the Hand was
// promised. strace makes the failures; it counts the calls of each thread by itself.
type Fail struct {
	Hand  []string // a command that runs Hand in the directory that is its last argument
	Calls []Failure
	Out   io.Writer // a line for each kind of failure
}

// Failure is one kind of failure.
type Failure struct {
	Call  string // as strace names it
	Error string // EIO
	Most  int    // failures that are tried at most; 0: all
}

// Failures are those of the disk, and of the table of open files; of some system calls alone, separated by commas, or all.
func Failures(of string) (list []Failure) {
	for _, f := range []Failure{
		{Call: "fsync", Error: "EIO"}, {Call: "msync", Error: "EIO"}, {Call: "pwrite64", Error: "EIO"}, {Call: "write", Error: "EIO"},
		{Call: "renameat", Error: "EIO"}, {Call: "ftruncate", Error: "EIO"}, {Call: "openat", Error: "EIO"}, {Call: "mmap", Error: "EIO"},
		{Call: "unlinkat", Error: "EIO"}, {Call: "write", Error: "ENOSPC"}, {Call: "ftruncate", Error: "ENOSPC"},
		{Call: "openat", Error: "ENOSPC"}, {Call: "openat", Error: "EMFILE"},
	} {
		if of == "" || slices.Contains(strings.Split(of, ","), f.Call) {
			list = append(list, f)
		}
	}
	return list
}

// Run does it and returns what was found.
func (f *Fail) Run(ctx context.Context) (v ledger.Verdict, err error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return v, fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	for _, c := range f.Calls {
		t := tally{}
		n := 1
		for ; c.Most == 0 || n <= c.Most; n++ {
			w, err := f.nth(ctx, c, n, &t)
			if errors.Is(err, errNoSuchCall) {
				break
			}
			if err != nil {
				return v, fmt.Errorf("%s of call %d of %s: %w", c.Error, n, c.Call, err)
			}
			v = v.Plus(w)
		}
		fmt.Fprintf(f.Out, "errors: %-6s of each %-9s: %3d trials, %3d failures; the queue was not opened %d times, stopped %d times, went well %d times; %d faults so far\n",
			c.Error, c.Call, n-1, t.injected, t.closed, t.stopped, t.well, len(v.Faults))
	}
	return v, nil
}

// tally counts what became of a Hand.
type tally struct{ injected, closed, stopped, well int }

var errNoSuchCall = errors.New("there are not so many calls")

// nth lets the n-th call fail.
func (f *Fail) nth(ctx context.Context, c Failure, n int, t *tally) (v ledger.Verdict, err error) {
	dir, err := os.MkdirTemp("", "mta-fail-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir)
	home, trace := filepath.Join(dir, "queue"), filepath.Join(dir, "trace")
	said, ended, err := f.run(ctx, home, "strace", "-f", "-qq", "-o", trace, "-e", "signal=none", "-e", "trace="+c.Call,
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", c.Call, c.Error, n))
	if err != nil {
		return v, err
	}
	log, err := os.ReadFile(trace)
	if err != nil {
		return v, err
	}
	injected := bytes.Count(log, []byte("(INJECTED)"))
	if injected == 0 {
		return v, errNoSuchCall
	}
	t.injected += injected
	h, faults := account(said)
	switch {
	case !strings.Contains(said, "acked") && ended != nil:
		t.closed++
	case strings.Contains(said, "failed") || ended != nil:
		t.stopped++
	default:
		t.well++
	}
	held, err := holds(home)
	v = h.Cut(1, held)
	v.Faults = append(v.Faults, faults...)
	if err != nil {
		v.Faults = append(v.Faults, ledger.Fault{Kind: ledger.Lost, ID: "-", Why: fmt.Sprintf("and all others: the queue can't be opened: %v", err)})
	}
	for i := range v.Faults {
		v.Faults[i].Why += fmt.Sprintf(" (%s of call %d of %s)", c.Error, n, c.Call)
	}
	return v, nil
}

// run runs the Hand to its end.
func (f *Fail) run(ctx context.Context, home string, before ...string) (said string, ended, err error) {
	line := append(append(before, f.Hand...), home)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	ended = cmd.Run()
	if e := new(exec.ExitError); ended != nil && !errors.As(ended, &e) {
		return "", nil, ended
	}
	return out.String(), ended, ctx.Err()
}

// account reads what a Hand has said.
func account(said string) (h *ledger.History, faults []ledger.Fault) {
	h = ledger.NewHistory()
	for lines := bufio.NewScanner(strings.NewReader(said)); lines.Scan(); {
		word := append(strings.Fields(lines.Text()), "", "")
		switch word[0] {
		case "offer":
			h.Offer(ledger.Message{ID: word[1], Sum: word[2]})
		case "acked":
			h.Ack(word[1], 1)
		case "settling": // its removal may or may not be written
			h.Take(ledger.Arrival{ID: word[1], Queue: word[1]}, 1)
		case "settled":
			h.Done(word[1], 1)
		case "wenton":
			faults = append(faults, ledger.Fault{Kind: ledger.Lost, ID: word[1], Why: "the queue went on after a storage error"})
		}
	}
	return h, faults
}
