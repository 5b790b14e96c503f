package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/torture/peer"
	"github.com/pabal-mta/mta/core/torture/proc"
)

// wholeConfig is a server with every built-in plugin: mail for example.test goes into mailboxes, for one.example to a
// host that takes 7-bit mail only, and for two.example to a host that refuses everybody.
const wholeConfig = `
hostname = "mx.example"
domains  = ["example.test"]
data_dir = "var"

listener "mx" {
  address = ["${MX}"]
}

listener "submission" {
  address       = ["${SUB}"]
  auth          = plugin.users
  insecure_auth = true
}

plugin "users" {
  source = "builtin:users"
  config {
    file  = "var/users"
    cache = "0s"
  }
}

plugin "mailboxes" {
  source  = "builtin:maildir"
  timeout = "${TIMEOUT}"
  config {
    path     = "var/mail/{domain}/{user}"
    accounts = "var/users"
  }
}

plugin "mime" {
  source = "builtin:mime"
}

plugin "bounces" {
  source = "builtin:bounces"
}

route "local" {
  domains = domains
  store   = plugin.mailboxes
}

route "old" {
  domains   = ["one.example"]
  smarthost = "${ONE}"
  tls       = "none"
  convert   = [plugin.mime]
}

route "strict" {
  domains   = ["two.example"]
  smarthost = "${TWO}"
  tls       = "none"
}

route "rest" {
  mx = true
}

queue {
  retry    = ["1s"]
  jitter   = 0
  min_free = "1MiB"
}

bounce {
  notify = [plugin.bounces]
}
`

const passwordOfAnn = "a-password-of-ann"

// whole starts such a server, with an account ann and the two hosts.
func whole(t *testing.T, timeout string) (s *system, mx, submission string, old *peer.Sink) {
	t.Helper()
	ports := freePorts(t, 4)
	s = newSystem(t, wholeConfig, map[string]string{"MX": ports[0], "SUB": ports[1], "ONE": ports[2], "TWO": ports[3], "TIMEOUT": timeout})
	s.must(passwordOfAnn+"\n", "user", "add", "ann@example.test")
	old = openSink(t, ports[2], &peer.Sink{})
	openSink(t, ports[3], &peer.Sink{Refuse: func(string) string { return "550 5.1.1 nobody here" }})
	s.start()
	return s, ports[0], ports[1], old
}

// signal sends a signal to the process of a plugin and returns how the plugin did before.
func (s *system) signal(plugin string, signal syscall.Signal) (before pluginLife) {
	s.t.Helper()
	p := s.plugin(plugin)
	if err := syscall.Kill(p.PID, signal); err != nil {
		s.t.Fatalf("%v to plugin %s, pid %d: %v", signal, plugin, p.PID, err)
	}
	for signal == syscall.SIGSTOP && !proc.Stands(p.PID) {
		<-time.After(time.Millisecond)
	}
	return pluginLife{pid: p.PID, restarts: p.Restarts, calls: p.Calls}
}

// pluginLife is what changes when a plugin dies.
type pluginLife struct {
	pid, restarts int
	calls         uint64
}

// back waits until a plugin lives again, as another process, and the restart was counted.
func (s *system) back(plugin string, was pluginLife) {
	s.t.Helper()
	if !poll(func() bool {
		p := s.plugin(plugin)
		return p.PID != was.pid && p.PID != 0 && p.State == "healthy" && p.Restarts == was.restarts+1
	}) {
		s.t.Fatalf("plugin %s has not come back: %+v", plugin, s.plugin(plugin))
	}
}

// during stops a plugin, does something that asks it, and kills it when it was asked: the call is under way for certain.
func (s *system) during(plugin string, do func()) {
	s.t.Helper()
	was := s.signal(plugin, syscall.SIGSTOP)
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	if !poll(func() bool { return s.plugin(plugin).Calls > was.calls }) {
		s.t.Errorf("plugin %s was not asked", plugin)
	}
	if err := syscall.Kill(was.pid, syscall.SIGKILL); err != nil {
		s.t.Error(err)
	}
	s.back(plugin, was)
	<-done
}

// temporary complains about a reply that is neither a yes nor a temporary no.
func temporary(t *testing.T, what, reply string) (yes bool) {
	t.Helper()
	if !strings.HasPrefix(reply, "2") && !strings.HasPrefix(reply, "4") {
		t.Errorf("%s while its plugin was killed: %q", what, reply)
	}
	return strings.HasPrefix(reply, "2")
}

const koreanText = "Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n안녕\r\n"

// TestPluginsKilled kills each plugin with SIGKILL: while it does nothing, and in the middle of a call. The server stays up,
// no peer hears a permanent no, the plugin is back soon, and no message is lost or doubled.
func TestPluginsKilled(t *testing.T) {
	t.Parallel()
	s, mx, submission, old := whole(t, "10s")
	for _, name := range []string{"users", "mailboxes", "mime", "bounces"} {
		s.back(name, s.signal(name, syscall.SIGKILL))
	}

	c := mustDial(t, submission)
	s.during("users", func() {
		reply, _ := c.Login(0, "ann@example.test", passwordOfAnn)
		temporary(t, "a login", reply)
	})
	c = mustDial(t, submission)
	if _, err := c.Login(235, "ann@example.test", passwordOfAnn); err != nil {
		t.Fatal(err)
	}

	stored := 0
	stranger := mustDial(t, mx)
	if err := stranger.Envelope("<carol@sender.example>"); err != nil {
		t.Fatal(err)
	}
	s.during("mailboxes", func() {
		reply, _ := stranger.Say(0, "RCPT TO:<ann@example.test>")
		if temporary(t, "RCPT", reply) {
			stored++
			if err := stranger.Data([]byte(koreanText)); err != nil {
				t.Error(err)
			}
		}
	})
	s.mailbox("ann", stored)

	if err := c.Envelope("<ann@example.test> BODY=8BITMIME", "ann@example.test"); err != nil {
		t.Fatal(err)
	}
	s.during("mailboxes", func() {
		if err := c.Data([]byte(koreanText)); err != nil {
			t.Error(err)
		}
	})
	s.mailbox("ann", stored+1)

	s.during("mime", func() {
		if err := c.Send("<ann@example.test> BODY=8BITMIME", "bob@one.example", []byte(koreanText)); err != nil {
			t.Error(err)
		}
	})
	s.emptied()
	if got, _ := old.Arrivals(); len(got) != 1 {
		t.Errorf("the host that takes 7-bit mail got %d messages: %v", len(got), got)
	}

	s.during("bounces", func() {
		if err := c.Send("<ann@example.test>", "nobody@two.example", []byte("Subject: to nobody\r\n\r\ntext\r\n")); err != nil {
			t.Error(err)
		}
	})
	s.emptied()
	box := s.mailbox("ann", stored+2)
	reports := slices.DeleteFunc(box, func(m string) bool { return !strings.Contains(m, "multipart/report") })
	if len(reports) != 1 || !strings.Contains(reports[0], "550 5.1.1 nobody here") {
		t.Errorf("the report is lost, doubled or says too little: %q", reports)
	}
	s.stop()
}

// TestPluginHangs stops the store with SIGSTOP, as a disk that does not answer would. The message waits, the hung process is
// replaced, and the message is in the mailbox once.
func TestPluginHangs(t *testing.T) {
	t.Parallel()
	s, _, submission, _ := whole(t, "500ms")
	c := mustDial(t, submission)
	if _, err := c.Login(235, "ann@example.test", passwordOfAnn); err != nil {
		t.Fatal(err)
	}
	if err := c.Envelope("<ann@example.test>", "ann@example.test"); err != nil {
		t.Fatal(err)
	}
	was := s.signal("mailboxes", syscall.SIGSTOP)
	if err := c.Data([]byte(koreanText)); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool {
		list := s.queued()
		return len(list) == 1 && strings.HasPrefix(list[0].Recipients[0].Reply, "4")
	}) {
		t.Errorf("the message does not wait: %+v", s.queued())
	}
	reply, _ := mustDial(t, submission).Say(0, "NOOP")
	if !strings.HasPrefix(reply, "250") {
		t.Errorf("the server says %q", reply)
	}
	if !poll(func() bool { return s.plugin("mailboxes").PID != was.pid && s.plugin("mailboxes").State == "healthy" }) {
		t.Fatalf("the hung plugin was not replaced: %+v", s.plugin("mailboxes"))
	}
	s.emptied()
	s.mailbox("ann", 1)
	if left := proc.In(s.dir); len(left) != 5 {
		t.Errorf("there should be the server and four plugins: %v", left)
	}
	s.stop()
}
