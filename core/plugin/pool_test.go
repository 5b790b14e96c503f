package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// startPool starts a plugin of several processes, and returns the bus that tells it of sessions.
func startPool(t *testing.T, s Spec) (*Plugin, *event.Bus) {
	t.Helper()
	bus := new(event.Bus)
	h, err := Start(t.Context(), []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler), Events: bus})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Stop(context.Background())
		if left, _ := filepath.Glob(filepath.Join(s.RunDir, "room-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return h.Plugin(s.Name), bus
}

// pidOf returns the process that a session's call comes to.
func pidOf(t *testing.T, p *Plugin, session string) int {
	t.Helper()
	v, err := p.Rcpt(t.Context(), &mail.Session{ID: session, Helo: "h"}, mail.Recipient{Address: mail.MustParseAddress("pid@x.example")})
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(v.Reply.Text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// occupy makes calls that last until the returned function is called.
func occupy(t *testing.T, p *Plugin, session string, calls int) (release func() []error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "go")
	errs := make([]error, calls)
	var wg sync.WaitGroup
	before := p.Status()
	for i := range calls {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, errs[i] = p.Rcpt(ctx, &mail.Session{ID: session, Helo: file}, mail.Recipient{Address: mail.MustParseAddress("wait@x.example")})
		})
	}
	for s := p.Status(); s.Waiting+s.Queued < before.Waiting+before.Queued+calls; s = p.Status() {
	}
	return func() []error {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
		wg.Wait()
		return errs
	}
}

func TestPool(t *testing.T) {
	s := spec(t, "good")
	s.Processes = 3
	p, bus := startPool(t, s)
	status := p.Status()
	if len(status.PIDs) != 3 || status.PIDs[0] == status.PIDs[1] || status.PIDs[1] == status.PIDs[2] || status.State != "up" {
		t.Fatalf("%+v", status)
	}
	first := pidOf(t, p, "one")
	release := occupy(t, p, "one", 3)
	for range 20 { // the least loaded is asked, but a session stays where it is
		if pidOf(t, p, "one") != first {
			t.Fatal("a session was sent to another process")
		}
		if pidOf(t, p, "") == first {
			t.Fatal("the process that has the most to do was asked")
		}
	}
	second := pidOf(t, p, "two")
	if second == first {
		t.Error("a new session was sent to the process that has the most to do")
	}
	bus.Emit(event.Event{Name: event.SessionClosed, Session: "one"})
	if pidOf(t, p, "one") == first {
		t.Error("a session that has ended is remembered")
	}
	for _, err := range release() {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestPoolLosesOne: while one process of a pool is dead the others do its work, and no caller notices.
func TestPoolLosesOne(t *testing.T) {
	s := spec(t, "good")
	s.Processes = 2
	p, _ := startPool(t, s)
	for round := range 5 {
		dead := pidOf(t, p, fmt.Sprint(round))
		kill(t, dead, syscall.SIGKILL)
		for range 20 {
			if pidOf(t, p, fmt.Sprint(round)) == dead {
				t.Fatal("the dead answers")
			}
		}
	}
	if n := p.Status().Errors; n != 0 {
		t.Errorf("%d calls failed", n)
	}
}

func TestPoolStartsAllOrNothing(t *testing.T) {
	s := spec(t, "exit")
	s.Processes = 3
	if _, err := Start(t.Context(), []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Fatal("started")
	}
	if left, _ := filepath.Glob(filepath.Join(s.RunDir, "room-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestOverload fills a process and its line; who comes then is told so at once, and the breaker stays closed.
func TestOverload(t *testing.T) {
	s := spec(t, "good")
	s.MaxConcurrent = 2
	p := start(t, s)
	release := occupy(t, p, "", 4)
	if st := p.Status(); st.Waiting != 2 || st.Queued != 2 {
		t.Fatalf("%+v", st)
	}
	for range 2 * breakerLimit {
		begin := time.Now()
		_, err := rcpt(t.Context(), p, "ann")
		var busy interface{ Overloaded() bool }
		if !errors.Is(err, ErrOverload) || !errors.As(err, &busy) || !busy.Overloaded() || time.Since(begin) > time.Second {
			t.Fatal(err, time.Since(begin))
		}
	}
	if st := p.Status(); st.Breaker != "closed" || st.Refused != 2*breakerLimit {
		t.Errorf("%+v", st)
	}
	for _, err := range release() { // those in the line were served in the end
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := rcpt(t.Context(), p, "ann"); err != nil {
		t.Error(err)
	}
}

func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1)
		ctx := t.Context()
		in := func(patience time.Duration) error { return l.enter(ctx, time.Now().Add(patience)) }
		if err := in(0); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := in(3 * time.Second); !errors.Is(err, ErrOverload) || time.Since(begin) != 3*time.Second {
			t.Error(err, time.Since(begin))
		}
		served := make(chan error)
		go func() { served <- in(time.Hour) }()
		synctest.Wait()
		if err := in(time.Hour); !errors.Is(err, ErrOverload) || l.queued() != 1 {
			t.Error("a line longer than may be:", err, l.queued())
		}
		l.leave()
		if err := <-served; err != nil {
			t.Error(err)
		}
		canceled, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := l.enter(canceled, time.Now().Add(time.Hour)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("who gives up is not refused:", err)
		}
		l.leave()
		if l.load() != 0 {
			t.Error(l.load())
		}
	})
}

// TestRestartSettings: pauses and the breaker follow the Spec.
func TestRestartSettings(t *testing.T) {
	w := newWorker(&Plugin{spec: Spec{RestartMin: time.Second, RestartMax: 3 * time.Second}}, nil)
	for failed, limit := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 3 * time.Second, 100: 3 * time.Second} {
		w.failed = failed
		longest := time.Duration(0)
		for range 1000 {
			longest = max(longest, w.pause())
		}
		if longest > limit || longest < limit*9/10 {
			t.Errorf("after %d short lives: %v", failed, longest)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		b := breaker{limit: 2, pause: 90 * time.Second}
		b.note(true)
		if !b.allow() {
			t.Error("open too early")
		}
		b.note(true)
		for range 2 { // a pause beyond the longest is kept, and grows no more
			time.Sleep(90*time.Second - time.Nanosecond)
			if b.allow() {
				t.Error("closed too early")
			}
			time.Sleep(time.Nanosecond)
			if !b.allow() {
				t.Error("no probe")
			}
			b.note(true)
		}
	})
}
