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
	"syscall"

	"github.com/pabal-mta/mta/core/torture/failing"
	"github.com/pabal-mta/mta/core/torture/ledger"
)

// Fail is a trial in which a system call fails: the first of its kind, then the second, and so on to the last. A Hand uses
// the queue meanwhile, and afterwards the queue is opened without the failure and held against what the Hand was promised.
type Fail struct {
	Hand  []string // a command that arms itself for a call and runs Hand in a directory, its last two arguments
	Calls []Failure
	Most  int       // of each kind of failure, so many are tried at most; 0: all
	Out   io.Writer // a line for each kind of failure
}

// Failure is a kind of system call and how it fails.
type Failure struct {
	Call  string
	Error syscall.Errno
}

// Failures are those of the disk, and of the table of open files; of some system calls alone, separated by commas, or all.
func Failures(of string) (list []Failure) {
	for _, f := range []Failure{
		{"fdatasync", syscall.EIO}, {"fsync", syscall.EIO}, {"msync", syscall.EIO}, {"pwrite64", syscall.EIO}, {"write", syscall.EIO}, {"renameat", syscall.EIO},
		{"ftruncate", syscall.EIO}, {"openat", syscall.EIO}, {"mmap", syscall.ENOMEM}, {"unlinkat", syscall.EIO}, {"write", syscall.ENOSPC},
		{"pwrite64", syscall.ENOSPC}, {"ftruncate", syscall.ENOSPC}, {"openat", syscall.ENOSPC}, {"openat", syscall.EMFILE},
	} {
		if of == "" || slices.Contains(strings.Split(of, ","), f.Call) {
			list = append(list, f)
		}
	}
	return list
}

// Run does it and returns what was found.
func (f *Fail) Run(ctx context.Context) (v ledger.Verdict, err error) {
	for _, c := range f.Calls {
		t := tally{}
		n := 1
		for ; f.Most == 0 || n <= f.Most; n++ {
			w, err := f.nth(ctx, failing.Failure{Call: c.Call, Error: c.Error, Nth: n}, &t)
			if errors.Is(err, errNoSuchCall) {
				break
			}
			if errors.Is(err, failing.ErrNotHere) {
				err = fmt.Errorf("%w: %w", ErrNotHere, err)
			}
			if err != nil {
				return v, fmt.Errorf("call %d of %s: %w", n, c.Call, err)
			}
			v = v.Plus(w)
		}
		if n == 1 { // a name that nobody calls any more would be proof of nothing
			return v, fmt.Errorf("the queue never calls %s, so that it can't fail", c.Call)
		}
		fmt.Fprintf(f.Out, "errors: %-28s of %3d %-9s, each in its turn: the queue was not opened %d times, stopped %d times, went well %d times; %d faults so far\n",
			c.Error, n-1, c.Call, t.closed, t.stopped, t.well, len(v.Faults))
	}
	return v, nil
}

// tally counts what became of a Hand.
type tally struct{ closed, stopped, well int }

var errNoSuchCall = errors.New("there are not so many calls")

// nth lets one call fail.
func (f *Fail) nth(ctx context.Context, c failing.Failure, t *tally) (v ledger.Verdict, err error) {
	dir, err := os.MkdirTemp("", "mta-fail-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir)
	home := filepath.Join(dir, "queue")
	said, calls, ended, err := f.run(ctx, c, home)
	if err != nil {
		return v, err
	}
	if calls < c.Nth {
		return v, errNoSuchCall
	}
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
		v.Faults[i].Why += fmt.Sprintf(" (%v of call %d of %s)", c.Error, c.Nth, c.Call)
	}
	return v, nil
}

// run runs the Hand to its end.
func (f *Fail) run(ctx context.Context, c failing.Failure, home string) (said string, calls int, ended, err error) {
	line := append(slices.Clone(f.Hand), c.Call, home)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	calls, err = failing.Serve(cmd.Process.Pid, c)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	ended = cmd.Wait()
	return out.String(), calls, ended, errors.Join(err, ctx.Err())
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
