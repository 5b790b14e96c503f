package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/torture/proc"
)

// devConfig has a plugin that is not pinned, and is given no time at all.
const devConfig = `
hostname = "mx.example"
data_dir = "var"

listener "mx" {
  address  = ["${MX}"]
  pipeline = pipeline.inbound
}

plugin "devtest" {
  source  = "${SOURCE}"
  timeout = "50ms"
  config {
    says = "mine"
  }
}

pipeline "inbound" {
  on "mail" {
    use     = [plugin.devtest]
    timeout = "50ms"
  }
}

route "rest" {
  mx = true
}
`

// author starts plugins by hand.
type author struct {
	s    *system
	line []string // what the server says is to be typed
	cmd  *exec.Cmd
}

var typed = regexp.MustCompile(`(?m)^  (MTA_PLUGIN=\S+) (PLUGIN_UNIX_SOCKET_DIR=\S+) (/\S+)$`)

// told waits until the server has said for the n-th time what is to be typed.
func (a *author) told(n int) {
	a.s.t.Helper()
	if !poll(func() bool {
		log, _ := os.ReadFile(a.s.path("log"))
		list := typed.FindAllStringSubmatch(string(log), -1)
		if len(list) >= n {
			a.line = list[n-1]
		}
		return len(list) >= n || a.s.dead()
	}) || a.s.dead() {
		a.s.t.Fatal("the server did not say what is to be typed")
	}
}

// start types it.
func (a *author) start() {
	a.s.t.Helper()
	a.cmd = exec.Command(a.line[3])
	a.cmd.Env = append(os.Environ(), a.line[1], a.line[2], "MTA_TEST_PLUGIN=moody")
	if err := a.cmd.Start(); err != nil {
		a.s.t.Fatal(err)
	}
	cmd := a.cmd
	a.s.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func (a *author) signal(sig syscall.Signal) {
	a.s.t.Helper()
	if err := a.cmd.Process.Signal(sig); err != nil {
		a.s.t.Fatal(err)
	}
	if sig == syscall.SIGSTOP && !poll(func() bool { return proc.Stands(a.cmd.Process.Pid) }) {
		a.s.t.Fatal("the process does not stop")
	}
}

// gone waits until the process has ended.
func (a *author) gone() {
	a.s.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		a.s.t.Fatal("the process goes on")
	}
}

// mailFrom says MAIL, and what the answer was when it is there.
func mailFrom(t *testing.T, address string) <-chan string {
	t.Helper()
	answer := make(chan string, 1)
	go func() {
		c, err := dial(address)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer c.Close()
		text, err := c.Say(550, "MAIL FROM:<a@b.example>")
		if err != nil {
			text += err.Error()
		}
		answer <- text
	}()
	return answer
}

func wantMine(t *testing.T, what string, answer <-chan string) {
	t.Helper()
	select {
	case got := <-answer:
		if !strings.Contains(got, "this is mine") {
			t.Errorf("%s: %q", what, got)
		}
	case <-time.After(patience):
		t.Fatalf("%s: no answer", what)
	}
}

// TestDev attaches a server to a plugin that is started by hand, stands still for longer than any of its time-outs, is
// killed, and is started again.
func TestDev(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mx := freePorts(t, 1)[0]
	s := newSystem(t, devConfig, map[string]string{"MX": mx, "SOURCE": self})
	s.begin("serve", "-dev", "devtest")
	a := &author{s: s}
	a.told(1)
	a.start()
	s.awaitReady()
	wantMine(t, "the first process", mailFrom(t, mx))
	if info := s.must("", "plugin", "list", "-json"); !strings.Contains(info, "by hand (-dev)") {
		t.Error("the status does not say that it was started by hand:", info)
	}

	a.signal(syscall.SIGSTOP)
	waiting := mailFrom(t, mx)
	if !poll(func() bool { return s.plugin("devtest").Waiting == 1 }) {
		t.Fatal("the call did not come to wait")
	}
	select {
	case got := <-waiting:
		t.Fatalf("a call to a plugin at a breakpoint was given up: %q", got)
	case <-time.After(time.Second): // 20 times its time-out
	}
	a.signal(syscall.SIGCONT)
	wantMine(t, "after a breakpoint", waiting)

	a.signal(syscall.SIGKILL)
	a.told(2)
	waiting = mailFrom(t, mx)
	a.start()
	wantMine(t, "the second process", waiting)

	a.signal(syscall.SIGINT) // as Ctrl-C does: nobody else would end it
	a.gone()
	a.told(3)
	a.start()
	wantMine(t, "the third process", mailFrom(t, mx))
	s.stop()
	a.gone() // it was drained and asked to
	log, _ := os.ReadFile(s.path("log"))
	if !bytes.Contains(log, []byte("not for production")) {
		t.Error("nobody was warned")
	}
}

// TestDevRefused: a server that others can reach is no place for it, nor is one without that plugin.
func TestDevRefused(t *testing.T) {
	s := newSystem(t, devConfig, map[string]string{"MX": "0.0.0.0:2525", "SOURCE": "/bin/true"})
	if _, stderr, code := s.mta("", "serve", "-dev", "devtest"); code != 1 || !strings.Contains(stderr, "loopback") {
		t.Errorf("%d, %s", code, stderr)
	}
	s = newSystem(t, devConfig, map[string]string{"MX": "127.0.0.1:2525", "SOURCE": "/bin/true"})
	if _, stderr, code := s.mta("", "serve", "-dev", "other"); code != 1 || !strings.Contains(stderr, "there are: devtest") {
		t.Errorf("%d, %s", code, stderr)
	}
}
