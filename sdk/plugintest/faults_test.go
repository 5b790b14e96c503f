package plugintest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

func ok(t *testing.T, p *plugintest.Plugin) {
	t.Helper()
	if v, err := p.Helo(within(t, 20*time.Second), session()); err != nil || v.Reply.Code != 450 {
		t.Error(v, err)
	}
}

func runs(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err != nil || syscall.Kill(n, 0) == nil
}

// TestKill kills a plugin in the middle of a call; its next life has its host's memory.
func TestKill(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		if err := p.Host.Set(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Fatal(err)
		}
		var pid *mail.Reply
		if _, err := p.Convert(t.Context(), &mail.Conversion{ID: "pid", Content: mail.Bytes(nil)}); !errors.As(err, &pid) {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			_, err := p.Convert(within(t, 20*time.Second), &mail.Conversion{ID: "wait", Content: mail.Bytes(nil)})
			ended <- err
		}()
		for p.Waiting() == 0 {
			time.Sleep(time.Millisecond)
		}
		p.Kill()
		if err := <-ended; !errors.Is(err, calls.ErrLost) {
			t.Error("the call that was under way:", err)
		}
		if _, err := p.Helo(within(t, time.Second), session()); !errors.Is(err, calls.ErrLost) {
			t.Error("a call to the dead:", err)
		}
		for end := time.Now().Add(time.Minute); pid.Text != strconv.Itoa(os.Getpid()) && runs(pid.Text); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the process lives on")
			}
		}
		again := p.Restart()
		ok(t, again)
		if v, found, err := again.Host.Get(t.Context(), "k"); again.Host != p.Host || !found || string(v) != "v" || err != nil {
			t.Errorf("its host has forgotten: %q %v", v, err)
		}
	})
}

func TestGarbageAndOversize(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		p.Garbage()
		ok(t, p)
		p.Oversize()
		ok(t, p)
	})
}

// TestStall has an hour pass in which nothing passes.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plugintest.New(t, echoPlugin(), nil)
		resume := p.Stall()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := p.Helo(ctx, session()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		resume()
		ok(t, p)
		p.Stall()
		p.Kill() // a stalled plugin can be killed
	})
}

func TestHostStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := new(plugintest.Host)
		h := hosted(t, fake)
		resume := fake.Stall()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, _, err := h.KV().Get(ctx, "k"); err == nil || ctx.Err() == nil {
			t.Error("the host answered:", err)
		}
		if err := fake.Set(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Error("the test's own way to the host is stalled, too:", err)
		}
		resume()
		if v, _, err := h.KV().Get(t.Context(), "k"); string(v) != "v" || err != nil {
			t.Errorf("%q %v", v, err)
		}
	})
}

// complaints is a test whose failures are what is wanted.
type complaints struct {
	testing.TB
	list []string
}

func (c *complaints) Errorf(format string, args ...any) {
	c.list = append(c.list, fmt.Sprintf(format, args...))
}

// well is a plugin of two kinds that breaks one rule, or none.
type well struct {
	breaks string
	one    sync.Mutex
}

func wellPlugin(breaks string) sdk.Served {
	return sdk.Of(sdk.Plugin[struct{}]{Name: "well", Version: "1", Kinds: (*well)(nil), New: func(context.Context, struct{}, sdk.Host) (any, error) {
		return &well{breaks: breaks}, nil
	}})
}

func (w *well) Rcpt(ctx context.Context, _ *mail.Session, r mail.Recipient) (mail.Verdict, error) {
	switch w.breaks {
	case "rcpt/answers":
		return mail.Verdict{}, nil
	case "rcpt/parallel":
		if !w.one.TryLock() {
			return mail.Verdict{}, errors.New("one at a time")
		}
		defer w.one.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	return mail.Continue(), nil
}

func (w *well) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	body, err := io.ReadAll(mail.Reader(m.Content))
	if w.breaks == "message/hostile" && bytes.ContainsFunc(body, func(r rune) bool { return r > 127 }) {
		panic("what are these?")
	}
	if w.breaks == "message/large" && len(body) > 1<<20 {
		return mail.Verdict{}, errors.New("too large for me")
	}
	return mail.Continue(), err
}

// TestConform has plugins break one rule each, and wants that to be told first: what breaks it may break others, too. In
// virtual time, and as a process.
func TestConform(t *testing.T) {
	check := func(t *testing.T, p func(testing.TB) *plugintest.Plugin, breaks string) {
		t.Helper()
		c := &complaints{TB: t}
		plugintest.Conform(c, p(c))
		if breaks == "" && len(c.list) > 0 || breaks != "" && (len(c.list) == 0 || !strings.HasPrefix(c.list[0], breaks+": ")) {
			t.Errorf("%q is broken, and it complains of %q", breaks, c.list)
		}
	}
	for _, breaks := range []string{"", "rcpt/answers", "rcpt/parallel", "message/hostile", "message/large"} {
		t.Run("memory "+breaks, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check(t, func(t testing.TB) *plugintest.Plugin { return plugintest.New(t, wellPlugin(breaks), nil) }, breaks)
			})
		})
		t.Run("process "+breaks, func(t *testing.T) {
			if breaks != "" && testing.Short() {
				t.Skip("its processes are slow to start with the race detector; it is tried without -short")
			}
			check(t, func(t testing.TB) *plugintest.Plugin {
				return plugintest.Exec(t, os.Args[0], nil, "BE_A_PLUGIN=well", "BREAKS="+breaks)
			}, breaks)
		})
	}
}
