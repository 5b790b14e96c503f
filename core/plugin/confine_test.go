package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// tryReach asks a plugin to reach something.
func tryReach(t *testing.T, p *Plugin, what string) string {
	t.Helper()
	v, err := p.Rcpt(t.Context(), &mail.Session{ID: "s", Helo: what}, mail.Recipient{Address: mail.MustParseAddress("reach@x.example")})
	if err != nil {
		t.Fatal(err)
	}
	return v.Reply.Text
}

// held are the two ways in which a plugin is held back: our own program, which does it itself, and one that is pinned and
// started by way of the shim.
func held(t *testing.T) map[string]Spec {
	t.Helper()
	own, strange := spec(t, "good"), spec(t, "good")
	own.Shim, strange.Shim = []string{os.Args[0], "-shim"}, []string{os.Args[0], "-shim"}
	strange.Builtin, strange.Path, strange.SHA256 = "", os.Args[0], sumOf(t, os.Args[0])
	strange.Args = []string{"-one", "two"}
	return map[string]Spec{"built in": own, "pinned": strange}
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestLimitsAreInForce(t *testing.T) {
	needsProc(t)
	for name, s := range held(t) {
		t.Run(name, func(t *testing.T) {
			s.Limits = Limits{NoFile: 64, Memory: 1 << 30}
			p := start(t, s)
			if got := tryReach(t, p, "files 20"); got != "ok" {
				t.Errorf("20 files: %s", got)
			}
			if got := tryReach(t, p, "files 100"); !strings.Contains(got, "too many open files") {
				t.Errorf("120 files: %s", got)
			}
			said := strings.Join(p.Status().InForce, "; ")
			for _, want := range []string{"no new privileges", "open files: 64", "killed above 1024 MiB", "sandbox: none", "(the server's own)"} {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in %q", want, said)
				}
			}
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid(t, p)))
			if err != nil || len(threads) == 0 {
				t.Fatal(threads, err)
			}
			for _, path := range threads {
				if b, err := os.ReadFile(path); err == nil && line1(b, "NoNewPrivs:") != "1" {
					t.Errorf("%s: this thread may gain privileges", path)
				}
			}
			if name == "pinned" {
				if got := tryReach(t, p, "args"); got != os.Args[0]+" -one two" {
					t.Errorf("the program was called as %s", got)
				}
			}
			if v, err := rcpt(t.Context(), p, "environ"); err != nil || strings.Contains(v.Reply.Text, confineKey) {
				t.Error("the plugin sees what it is kept to in its environment", err)
			}
		})
	}
}

func needsProc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("this system has no /proc")
	}
}

// TestSandbox tries what a sandbox allows and what it forbids, with the same plugin outside of one beside it: what fails
// for another reason would fail there too.
func TestSandbox(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, readable, writable, other := file("secret"), file("r/file"), file("w/file"), file("w/other/file")
	open, shut := listenTCP(t), listenTCP(t)
	_, port, _ := net.SplitHostPort(open)
	n, _ := strconv.Atoi(port)
	for name, s := range held(t) {
		t.Run(name, func(t *testing.T) {
			free := start(t, s)
			s.Sandbox = &Sandbox{Read: []string{filepath.Dir(readable)}, Write: []string{filepath.Dir(writable)}, ConnectTCP: []int{n}}
			p := start(t, s)
			level := strings.Join(p.Status().InForce, "; ")
			if strings.Contains(level, "no Landlock") {
				t.Skip(level)
			}
			state := filepath.Join(s.StateDir, "kept")
			for what, allowed := range map[string]bool{
				"read " + secret: false, "write " + secret: false, "list /": false, "list /root": false, "read /etc/hostname": false,
				"read " + readable: true, "write " + readable: false, "write " + writable: true, "move " + writable + " " + other: true,
				"write " + state: true, "read /etc/passwd": true, "write /dev/null": true, "run /bin/true": true, "list " + os.TempDir(): false,
			} {
				if err := os.WriteFile(writable, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				got := tryReach(t, p, what)
				if (got == "ok") != allowed {
					t.Errorf("%s: %s", what, got)
				}
				if err := os.WriteFile(writable, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(strings.Fields(what)[1]); err != nil {
					continue // not on this machine
				}
				if got := tryReach(t, free, what); got != "ok" {
					t.Errorf("without a sandbox: %s: %s", what, got)
				}
			}
			testConnections(t, free, p, level, open, shut)
			// A process that is started again is in the sandbox again.
			old := pid(t, p)
			kill(t, old, syscall.SIGKILL)
			awaitOther(t, p, old)
			if got := tryReach(t, p, "read "+secret); got == "ok" {
				t.Error("after a restart there is no sandbox")
			}
		})
	}
}

func testConnections(t *testing.T, free, p *Plugin, level, open, shut string) {
	t.Helper()
	ours := strconv.Itoa(os.Getpid())
	for what, row := range map[string]struct {
		allowed bool
		needs   string
	}{"dial " + open: {true, "TCP"}, "dial " + shut: {false, "TCP"}, "signal " + ours: {false, "signals"}} {
		if !strings.Contains(level, row.needs) {
			continue
		}
		if got := tryReach(t, p, what); (got == "ok") != row.allowed {
			t.Errorf("%s: %s", what, got)
		}
		if got := tryReach(t, free, what); got != "ok" {
			t.Errorf("without a sandbox: %s: %s", what, got)
		}
	}
}

func listenTCP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestSandboxOfWhatIsNotThere(t *testing.T) {
	s := held(t)["pinned"]
	s.Sandbox = &Sandbox{Read: []string{"/nowhere/at/all"}}
	_, err := Start(t.Context(), []Spec{s}, Options{})
	if err == nil || !strings.Contains(err.Error(), "sandbox") || !strings.Contains(err.Error(), "/nowhere/at/all") {
		t.Error(err)
	}
}

// TestMemory: who takes too much is killed and started again, and its status says why.
func TestMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes many times the memory, and ends by itself when it gets none")
	}
	needsProc(t)
	s := held(t)["pinned"]
	s.Limits.Memory = 150 << 20
	p := start(t, s)
	old := pid(t, p)
	done := make(chan error)
	go func() {
		_, err := rcpt(t.Context(), p, "eat")
		done <- err
	}()
	if err := <-done; err == nil {
		t.Error("300 MiB are not too much")
	}
	for end := time.After(20 * time.Second); ; {
		changed := p.change()
		if strings.Contains(p.Status().Error, "limits.memory") {
			break
		}
		select {
		case <-end:
			t.Fatalf("%+v", p.Status())
		case <-changed:
		}
	}
	if isRunning(old) {
		t.Error("it still runs")
	}
}

// TestUser runs a plugin as somebody else.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, s := range held(t) {
		t.Run(name, func(t *testing.T) {
			s.User, s.Limits.PIDs, s.Processes = "nobody", 2000, 2
			p := start(t, s)
			for what, want := range map[string]string{
				"uid": nobody.Uid, "read " + secret: "permission denied", "write " + filepath.Join(s.StateDir, "kept"): "ok",
				"list " + s.RunDir: "permission denied",
			} {
				if got := tryReach(t, p, what); !strings.HasSuffix(got, want) {
					t.Errorf("%s: %s", what, got)
				}
			}
			said := strings.Join(p.Status().InForce, "; ")
			if !strings.Contains(said, "user "+nobody.Uid+" (nobody)") || !strings.Contains(said, "threads of its user: 2000") {
				t.Error(said)
			}
			if _, err := Start(t.Context(), []Spec{{Name: "x", User: "no-such-user", Builtin: "faulty"}}, Options{}); err == nil || !strings.Contains(err.Error(), "useradd") {
				t.Error(err)
			}
		})
	}
}

// TestPassesThrough reads the rights of directories as the kernel does.
func TestPassesThrough(t *testing.T) {
	a := &account{uid: 1000, gid: 1000, groups: []uint32{50}}
	for _, row := range []struct {
		mode     os.FileMode
		uid, gid uint32
		want     bool
	}{
		{0o700, 0, 0, false}, {0o711, 0, 0, true}, {0o710, 0, 50, true}, {0o710, 0, 1000, true}, {0o701, 0, 50, false},
		{0o700, 1000, 0, true}, {0o077, 1000, 0, false},
	} {
		if got := a.passes(row.mode, &syscall.Stat_t{Uid: row.uid, Gid: row.gid}); got != row.want {
			t.Errorf("%v", row)
		}
	}
}
