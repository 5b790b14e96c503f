package main

import (
	"bytes"
	"github.com/pabal-mta/mta/core/torture/proc"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pabal-mta/mta/core/torture/peer"
	"github.com/pabal-mta/mta/core/torture/trial"
)

// secondListener is what a reload adds.
const secondListener = `
listener "second" {
  address = ["${SECOND}"]
}
`

// TestReload changes the configuration of a running server. A wrong file is refused and the old one stays in force; a good
// one adds a listener and turns a route to another host, and a session that is open goes on through all of it.
func TestReload(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 5)
	vars := map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2], "SECOND": ports[3]}
	s := newSystem(t, relayConfig, vars)
	first, other := openSink(t, ports[1], &peer.Sink{}), openSink(t, ports[4], &peer.Sink{})
	s.start()
	open := mustDial(t, ports[0])
	deliver := func(id string, to *peer.Sink, count int) {
		t.Helper()
		if err := open.Send("<carol@sender.example>", "ann@one.example", peer.Numbered(id, trial.BodyOf(1))); err != nil {
			t.Fatal(err)
		}
		if !poll(func() bool { got, _ := to.Arrivals(); return len(got) == count }) {
			t.Fatalf("message %s did not arrive at the host it belongs to", id)
		}
	}
	deliver("before", first, 1)

	s.configure(strings.Replace(relayConfig, "min_free", "min_fre", 1)+secondListener, vars)
	_, errs, code := s.mta("", "reload")
	if code != 1 || !strings.Contains(errs, "mta.hcl:") || !strings.Contains(errs, `did you mean "min_free"`) {
		t.Errorf("a wrong file: exit code %d, %s", code, errs)
	}
	deliver("after a wrong file", first, 2)
	if c, err := net.Dial("tcp", ports[3]); err == nil {
		c.Close()
		t.Error("half of a wrong file is in force")
	}

	vars["ONE"] = ports[4]
	s.configure(relayConfig+secondListener, vars)
	if err := open.Envelope("<carol@sender.example>", "ann@one.example"); err != nil {
		t.Fatal(err)
	}
	if out := s.must("", "reload"); !strings.Contains(out, "reloaded") {
		t.Errorf("mta reload says %q", out)
	}
	if err := open.Data(peer.Numbered("over the reload", trial.BodyOf(1))); err != nil {
		t.Errorf("a message that was being sent is lost: %v", err)
	}
	if !poll(func() bool { got, _ := other.Arrivals(); return len(got) == 1 }) {
		t.Error("the message went by the old route")
	}
	deliver("by the new route", other, 2)
	if err := mustDial(t, ports[3]).Send("<carol@sender.example>", "ann@one.example", peer.Numbered("new listener", trial.BodyOf(1))); err != nil {
		t.Errorf("the new listener: %v", err)
	}
	s.configure(relayConfig, vars)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool {
		c, err := net.Dial("tcp", ports[3])
		if err == nil {
			c.Close()
		}
		return err != nil
	}) {
		t.Error("after SIGHUP the second listener still listens")
	}
	deliver("after SIGHUP", other, 4)
	s.emptied()
	s.stop()
}

// TestStop ends a server with SIGTERM while a client is connected and a message waits. It takes seconds, the client is
// told, the message stays, and no process is left.
func TestStop(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 3)
	s := newSystem(t, relayConfig, map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]})
	s.start()
	idle, busy := mustDial(t, ports[0]), mustDial(t, ports[0])
	if err := busy.Send("<carol@sender.example>", "ann@one.example", peer.Numbered("1", trial.BodyOf(1))); err != nil {
		t.Fatal(err)
	}
	if n := len(proc.In(s.dir)); n != 3 {
		t.Errorf("%d processes, not the server and two plugins", n)
	}
	s.stop()
	if code, text, _ := idle.Text.ReadResponse(0); code != 421 {
		t.Errorf("an idle client was told %d %s", code, text)
	}
	log, err := os.ReadFile(s.path("log"))
	if err != nil || bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte(`"level":"ERROR"`)) {
		t.Errorf("the log tells of trouble, %v", err)
	}
	if out := s.must("", "queue", "list"); !strings.Contains(out, "ann@one.example") {
		t.Errorf("the message that waited: %s", out)
	}

	openSink(t, ports[1], &peer.Sink{})
	s.start()
	s.emptied()
	s.stop()
}
