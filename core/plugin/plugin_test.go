package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

func spec(t testing.TB, mode string) Spec {
	t.Helper()
	run, err := os.MkdirTemp("", "mta")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	return Spec{
		Name: "faulty", Where: "mta.hcl:12:1", Builtin: "faulty", BuiltinArgs: []string{"-unused"}, Env: []string{"MODE=" + mode},
		RunDir: run, StateDir: t.TempDir(),
	}
}

func start(t testing.TB, s Spec) *Plugin {
	t.Helper()
	h, err := Start(t.Context(), []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := h.Plugin(s.Name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		h.Stop(ctx)
		if _, err := os.Stat(p.launcher.room.dir); err == nil {
			t.Errorf("left behind: %v", p.launcher.room.dir)
		}
	})
	return p
}

func rcpt(ctx context.Context, p *Plugin, local string) (mail.Verdict, error) {
	return p.Rcpt(ctx, &mail.Session{ID: "s", Helo: "h"}, mail.Recipient{Address: mail.MustParseAddress(local + "@x.example")})
}

// pid asks a plugin for the number of its process.
func pid(t *testing.T, p *Plugin) int {
	t.Helper()
	v, err := rcpt(t.Context(), p, "pid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(v.Reply.Text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGood(t *testing.T) {
	p := start(t, spec(t, "good"))
	if v, err := rcpt(t.Context(), p, "ann"); err != nil || v.Action != mail.ActionContinue {
		t.Error(v, err)
	}
	if !p.Handles("rcpt") || p.Handles("message") || !p.Handles("store") || p.Handles("authenticator") {
		t.Error(p.Kinds())
	}
	if _, err := p.Authenticate(t.Context(), mail.Login{}); !errors.Is(err, calls.ErrUnsupported) {
		t.Error(err)
	}
	s := p.Status()
	if s.State != "up" || s.PID == 0 || s.Version != "0.1.0" || s.Program != "faulty" || s.Breaker != "closed" || s.Calls != 2 {
		t.Errorf("%+v", s)
	}
	rooms, _ := filepath.Glob(filepath.Join(p.spec.RunDir, "room-*"))
	if len(rooms) != 1 {
		t.Fatal(rooms)
	}
	if info, err := os.Stat(rooms[0]); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_HOST", "1")
	t.Setenv("TZ", "Asia/Seoul")
	p := start(t, spec(t, "good"))
	v, err := rcpt(t.Context(), p, "environ")
	if err != nil || strings.Contains(v.Reply.Text, "SECRET") || !strings.Contains(v.Reply.Text, "TZ=Asia/Seoul") || strings.Contains(v.Reply.Text, sdk.LifelineKey) || strings.Contains(v.Reply.Text, sdk.FilesKey) {
		t.Error(v.Reply.Text, err)
	}
}

// TestStartFails reads the words that an operator gets.
func TestStartFails(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := func(path string) func(*Spec) {
		return func(s *Spec) { s.Builtin, s.Path = "", path }
	}
	for _, test := range []struct {
		name, mode string
		change     func(*Spec)
		words      []string
	}{
		{"dies", "exit", nil, []string{"ended at its start (exit status 3)", "no database", "mta plugin check"}},
		{"chatter", "chatter", nil, []string{`wrote "Hello, I am a program"`}},
		{"version", "version", nil, []string{"speaks version 7", "speaks 1"}},
		{"config", "good", func(s *Spec) { s.Config = []byte(`{"limit": "many"}`) }, []string{"limit"}},
		{"refused config", "good", func(s *Spec) { s.Config = []byte(`{"limit": -1}`) }, []string{"limit is negative"}},
		{"missing", "", path(filepath.Join(dir, "none")), []string{"there is no file", "install"}},
		{"relative", "", path("bin/x"), []string{"not an absolute path"}},
		{"not executable", "", path(write("data", "x", 0o600)), []string{"not executable", "chmod +x"}},
		{"directory", "", path(dir), []string{"not a file"}},
		{"no program", "", path(write("noise", "\x01\x02\x03", 0o700)), []string{"no program for this machine"}},
		{"no interpreter", "", path(write("script", "#!/none/python\n", 0o700)), []string{"interpreter or loader is missing"}},
		{"not a plugin", "", path("/bin/true"), []string{"ended at its start (exit status 0)", "without a word"}},
		{"wrong hash", "", func(s *Spec) {
			s.Builtin, s.Path, s.SHA256 = "", "/bin/true", strings.Repeat("0", 64)
		}, []string{"not the program that was pinned", strings.Repeat("0", 64), "mta plugin pin faulty"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := spec(t, test.mode)
			if test.change != nil {
				test.change(&s)
			}
			_, err := Start(t.Context(), []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				t.Fatal("started")
			}
			for _, w := range append(test.words, `plugin "faulty" (mta.hcl:12:1): `) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(s.RunDir, "room-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestStartDeadline(t *testing.T) {
	s := spec(t, "silent")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := Start(ctx, []Spec{s}, Options{Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "did not come up in time") || time.Since(begin) > 3*time.Second {
		t.Error(time.Since(begin), err)
	}
}

func TestPinned(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, self, 0o700); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(self)
	s := spec(t, "good")
	s.Builtin, s.Path, s.SHA256 = "", path, strings.ToUpper(hex.EncodeToString(sum[:]))
	p := start(t, s)
	old := pid(t, p)
	// Swapping the file changes nothing: what was hashed is what runs, at the next start too.
	if err := os.WriteFile(path+".new", []byte("#!/bin/false\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	kill(t, old, syscall.SIGKILL)
	if now := awaitOther(t, p, old); now == old || !p.Status().Pinned {
		t.Error(now, p.Status())
	}
}

// TestPinnedScript proves that an interpreter finds a script that was sealed.
func TestPinnedScript(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugin.sh")
	script := "#!/bin/sh\nexec " + os.Args[0] + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(script))
	s := spec(t, "good")
	s.Builtin, s.Path, s.SHA256 = "", path, hex.EncodeToString(sum[:])
	pid(t, start(t, s))
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// awaitOther calls the plugin until another process answers, two seconds at most.
func awaitOther(t *testing.T, p *Plugin, old int) int {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		v, err := rcpt(t.Context(), p, "pid")
		if n, _ := strconv.Atoi(v.Reply.Text); err == nil && n != old {
			return n
		}
	}
	t.Fatalf("no other process within two seconds; %+v", p.Status())
	return 0
}

func numberIn(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKilled(t *testing.T) {
	for _, mode := range []string{"good", "grandchild", "escaped"} {
		t.Run(mode, func(t *testing.T) {
			p := start(t, spec(t, mode))
			old := pid(t, p)
			proc := p.workers[0].current.Load()
			grandchild := 0
			if mode != "good" {
				grandchild = numberIn(t, filepath.Join(p.spec.StateDir, "child"))
			}
			begin := time.Now()
			kill(t, old, syscall.SIGKILL)
			<-proc.child.gone
			if d := time.Since(begin); d > time.Second { // a few milliseconds on a machine that has time
				t.Errorf("the death was seen after %v", d)
			}
			awaitOther(t, p, old)
			if s := p.Status(); s.Restarts != 1 || !strings.Contains(s.Error, "killed") {
				t.Errorf("%+v", s)
			}
			for end := time.Now().Add(time.Second); groupRuns(t, old) || grandchild != 0 && isRunning(grandchild); {
				if time.Now().After(end) {
					t.Fatal("what the dead plugin has started lives on")
				}
			}
		})
	}
}

// TestRetry lets the process die in a call: what may be repeated is repeated, and what kills it each time is an error.
func TestRetry(t *testing.T) {
	p := start(t, spec(t, "good"))
	if v, err := rcpt(t.Context(), p, "exit-once"); err != nil || v.Action != mail.ActionContinue {
		t.Error(v, err)
	}
	begin := time.Now()
	if _, err := rcpt(t.Context(), p, "exit"); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if d := time.Since(begin); d > calls.QuickTimeout {
		t.Errorf("it took %v", d)
	}
	if n := p.Status().Restarts; n < 2 {
		t.Errorf("%d restarts", n)
	}
}

func TestStopped(t *testing.T) {
	p := start(t, spec(t, "good"))
	old := pid(t, p)
	halt(t, old)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := rcpt(ctx, p, "ann")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Second {
		t.Error(time.Since(begin), err)
	}
	proc := p.workers[0].current.Load()
	<-proc.child.gone
	if awaitOther(t, p, old); !strings.Contains(p.Status().Error, "hung") {
		t.Error(p.Status().Error)
	}
}

// TestStoppedIdle stops a process that nobody asks for anything: the server asks for its health by itself.
func TestStoppedIdle(t *testing.T) {
	s := spec(t, "good")
	p, err := newPlugin(s, Options{Logger: slog.New(slog.DiscardHandler)}, &Host{})
	if err != nil {
		t.Fatal(err)
	}
	w := p.workers[0]
	w.every, w.patience = 10*time.Millisecond, 200*time.Millisecond
	if err := p.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer p.end(t.Context())
	proc := w.current.Load()
	halt(t, p.Status().PID)
	select {
	case <-proc.child.gone:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody has noticed")
	}
	for end := time.Now().Add(20 * time.Second); p.Status().State != "up" || p.Status().Restarts == 0; {
		if time.Now().After(end) {
			t.Fatalf("%+v", p.Status())
		}
		<-time.After(time.Millisecond)
	}
	if st := p.Status(); !strings.Contains(st.Error, "hung") || st.Calls != 0 {
		t.Errorf("%+v", st)
	}
}

// TestCrashLoop has a plugin that comes up once and never again: it is tried for ever, and nobody waits for it.
func TestCrashLoop(t *testing.T) {
	p := start(t, spec(t, "once"))
	kill(t, pid(t, p), syscall.SIGKILL)
	for end := time.Now().Add(10 * time.Second); p.Status().State != "crashloop"; {
		if time.Now().After(end) {
			t.Fatalf("%+v", p.Status())
		}
		changed := p.change()
		select {
		case <-changed:
		case <-time.After(time.Second):
		}
	}
	begin := time.Now()
	_, err := rcpt(t.Context(), p, "ann")
	if !errors.Is(err, ErrDown) || !strings.Contains(err.Error(), "out of luck") || time.Since(begin) > time.Second {
		t.Error(time.Since(begin), err)
	}
	if s := p.Status(); s.PID != 0 || s.Next.IsZero() || s.Restarts != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTerminated(t *testing.T) {
	p := start(t, spec(t, "good"))
	old := pid(t, p)
	kill(t, old, syscall.SIGTERM)
	kill(t, old, syscall.SIGINT)
	if now := pid(t, p); now != old {
		t.Error("SIGTERM ended a plugin that was not drained")
	}
}

func TestFaultsOfOneCall(t *testing.T) {
	p := start(t, spec(t, "good"))
	for local, words := range map[string]string{"panic": "panicked: as asked", "garbage": "breaks the contract", "failing": "no database"} {
		if _, err := rcpt(t.Context(), p, local); err == nil || !strings.Contains(err.Error(), words) || strings.ContainsAny(err.Error(), "\r\x00") {
			t.Errorf("%s: %v", local, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := rcpt(ctx, p, "hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := rcpt(t.Context(), p, "chatter"); err != nil {
		t.Error(err)
	}
	d := &mail.Delivery{ID: "d", To: make([]mail.Recipient, 2), Content: mail.Bytes(nil)}
	for i := range d.To {
		d.To[i].Address = mail.MustParseAddress("a@x.example")
	}
	if _, err := p.Store(t.Context(), d); err == nil || !strings.Contains(err.Error(), "1 replies for 2 recipients") {
		t.Error(err)
	}
	if s := p.Status(); s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
}

func TestBreaker(t *testing.T) {
	p := start(t, spec(t, "good"))
	for range breakerLimit {
		if _, err := rcpt(t.Context(), p, "failing"); err == nil || errors.Is(err, ErrOpen) {
			t.Fatal(err)
		}
	}
	if _, err := rcpt(t.Context(), p, "ann"); !errors.Is(err, ErrOpen) || p.Status().Breaker != "open" {
		t.Error(err, p.Status().Breaker)
	}
}

func TestNoise(t *testing.T) {
	for _, mode := range []string{"flood", "longline"} {
		t.Run(mode, func(t *testing.T) {
			p := start(t, spec(t, mode))
			for range 100 {
				if _, err := rcpt(t.Context(), p, "ann"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestLarge(t *testing.T) {
	p := start(t, spec(t, "good"))
	in := bytes.Repeat([]byte("0123456789"), 1<<20)
	out, err := p.Convert(t.Context(), &mail.Conversion{ID: "c", Content: mail.Bytes(in)})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(mail.Reader(out.Content)); err != nil || !bytes.Equal(b, in) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestConcurrent(t *testing.T) {
	p := start(t, spec(t, "good"))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 100 {
				if _, err := rcpt(t.Context(), p, "ann"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestDescribe(t *testing.T) {
	s := spec(t, "good")
	d, err := Describe(t.Context(), s)
	if err != nil || d.Name != "faulty" || strings.Join(d.Kinds, " ") != "store converter rcpt" || d.Schema.Attributes[0].Name != "limit" {
		t.Error(d, err)
	}
	s.Config = []byte(`{"limit":"x"}`)
	if problems, err := Validate(t.Context(), s); err != nil || len(problems) != 1 || problems[0].Path[0] != "limit" {
		t.Error(problems, err)
	}
	s.Config = nil
	if problems, err := Validate(t.Context(), s); err != nil || len(problems) != 0 {
		t.Error(problems, err)
	}
}

// TestSideBySide runs two hosts over one run directory, as a reload does.
func TestSideBySide(t *testing.T) {
	s := spec(t, "good")
	first := start(t, s)
	second := start(t, s)
	if pid(t, first) == pid(t, second) {
		t.Error("one process for both")
	}
	second.end(t.Context())
	if _, err := rcpt(t.Context(), first, "ann"); err != nil {
		t.Error(err)
	}
	if _, err := rcpt(t.Context(), second, "ann"); !errors.Is(err, ErrDown) {
		t.Error(err)
	}
}
