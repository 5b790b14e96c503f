package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/admin"
)

// TestNoRoom serves on a disk that has less room than is wanted: mail is refused at MAIL with 452 and in words, sessions live
// on, and the status and the log say why, the log once.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 3)
	vars := map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]}
	s := newSystem(t, strings.Replace(relayConfig, `min_free = "1MiB"`, `min_free = "1000TiB"`, 1), vars)
	const why = "the disk of the queue is nearly full (queue.min_free)"
	s.begin("serve")
	if !poll(func() bool { st, err := s.status(); return err == nil && st.Ready == why }) {
		t.Fatal("the server does not say that it is not ready, and why")
	}
	c := mustDial(t, ports[0])
	for range 3 {
		if reply, err := c.Say(0, "MAIL FROM:<carol@sender.example>"); err != nil || !strings.HasPrefix(reply, "452 4.3.1 ") {
			t.Errorf("MAIL is answered %q, %v", reply, err)
		}
	}
	if reply, err := c.Say(250, "NOOP"); err != nil {
		t.Errorf("NOOP is answered %q, %v", reply, err)
	}
	if out := s.must("", "status"); !strings.Contains(out, "NO MAIL IS TAKEN for ") || !strings.Contains(out, "(452): "+why) {
		t.Errorf("the status is\n%s", out)
	}
	var st admin.Status
	if err := json.Unmarshal([]byte(s.must("", "status", "-json")), &st); err != nil {
		t.Fatal(err)
	}
	if q := st.Queue; q.Refusing != why || q.RefusingSince.IsZero() || !q.Full {
		t.Errorf("the status is %+v", q)
	}
	stopped := 0
	if !poll(func() bool { // the log is written soon, not at once
		log, _ := os.ReadFile(s.path("log"))
		stopped = strings.Count(string(log), "intake_stopped")
		return stopped > 0
	}) || stopped != 1 {
		t.Errorf("the log tells it %d times", stopped)
	}
}
