package plugin

import (
	"context"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// neighbours starts a plugin that is going to run into its limits, and one beside it.
func neighbours(t *testing.T, bad Spec) (badOne, other *Plugin) {
	t.Helper()
	good := spec(t, "good")
	bad.Name, good.Name = "bad", "good"
	h, err := Start(t.Context(), []Spec{bad, good}, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		h.Stop(ctx)
		if left := processesOf(bad.RunDir); len(left) > 0 {
			t.Errorf("what the plugin had started outlived it: %v", left)
		}
	})
	return h.Plugin("bad"), h.Plugin("good")
}

// undisturbed calls the other plugin all the while that something is done to the bad one, and wants every answer.
func undisturbed(t *testing.T, other *Plugin, do func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			if v, err := rcpt(t.Context(), other, "ann"); err != nil || v.Action != mail.ActionContinue {
				t.Errorf("call %d of the plugin beside it: %v, %v", n, v, err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	do()
}

// awaitError waits until the status of a plugin says why its process was ended.
func awaitError(t *testing.T, p *Plugin, words string) {
	t.Helper()
	for end := time.After(time.Minute); ; {
		changed := p.change()
		if strings.Contains(p.Status().Error, words) {
			return
		}
		select {
		case <-end:
			t.Fatalf("%q is not said: %+v", words, p.Status())
		case <-changed:
		}
	}
}

// TestMemoryOfChildren: what a plugin starts counts with it.
func TestMemoryOfChildren(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes many times the memory")
	}
	needsProc(t)
	for _, where := range []string{"beside it", "elsewhere"} {
		t.Run(where, func(t *testing.T) {
			s := held(t)["pinned"]
			s.Limits.Memory = 150 << 20
			bad, other := neighbours(t, s)
			if said := strings.Join(bad.Status().InForce, "; "); !strings.Contains(said, "with all that it starts") {
				t.Error(said)
			}
			undisturbed(t, other, func() {
				if got := tryReach(t, bad, "child "+where); got != "ok" {
					t.Fatal(got)
				}
				awaitError(t, bad, "limits.memory")
			})
		})
	}
}

// TestForkStorm has a plugin start processes until there are no more for its user.
func TestForkStorm(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("limits.pids wants a user of its own, and only root can become somebody else")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	s := held(t)["pinned"]
	s.User, s.Limits.PIDs = "nobody", threadsOf(nobody.Uid)+100
	bad, other := neighbours(t, s)
	undisturbed(t, other, func() {
		if got := tryReach(t, bad, "storm 1000"); !strings.Contains(got, "temporarily unavailable") {
			t.Errorf("1000 processes: %s", got)
		}
		if n := threadsOf(nobody.Uid); n > s.Limits.PIDs {
			t.Errorf("%s has %d processes and threads, %d are allowed", nobody.Username, n, s.Limits.PIDs)
		}
	})
	if said := strings.Join(bad.Status().InForce, "; "); !strings.Contains(said, "threads of its user: "+strconv.Itoa(s.Limits.PIDs)) {
		t.Error(said)
	}
}

// threadsOf counts the threads that a user runs.
func threadsOf(uid string) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && line1(b, "Uid:") == uid {
			threads, _ := strconv.Atoi(line1(b, "Threads:"))
			n += threads
		}
	}
	return n
}

// TestFilesRunOut has a plugin open files until it gets no more, and keep them.
func TestFilesRunOut(t *testing.T) {
	needsProc(t)
	s := held(t)["pinned"]
	s.Limits.NoFile = 64
	bad, other := neighbours(t, s)
	undisturbed(t, other, func() {
		if got := tryReach(t, bad, "files 1000"); !strings.Contains(got, "too many open files") {
			t.Errorf("1000 files: %s", got)
		}
		for range 20 { // its calls go over what is open already
			if v, err := rcpt(t.Context(), bad, "limit"); err != nil || v.Reply.Text != "3" {
				t.Error(v, err)
			}
		}
	})
}

// TestBurn has a plugin burn all processors, for as long as a thousand calls of another one take.
func TestBurn(t *testing.T) {
	bad, other := neighbours(t, held(t)["pinned"])
	if got := tryReach(t, bad, "burn"); got != "ok" {
		t.Fatal(got)
	}
	for n := range 1000 {
		if v, err := rcpt(t.Context(), other, "ann"); err != nil || v.Action != mail.ActionContinue {
			t.Fatalf("call %d: %v, %v", n, v, err)
		}
	}
	if v, err := rcpt(t.Context(), bad, "limit"); err != nil || v.Reply.Text != "3" {
		t.Error("it can't answer itself:", v, err)
	}
}
