package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
)

// TestPriorityOfQueuedMail: what waits for a destination goes out in the order of its priority, be it asked for by MT-PRIORITY
// or given by the configuration, and by a server that was restarted meanwhile; the next host is told.
func TestPriorityOfQueuedMail(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 3)
	config := strings.NewReplacer(`["1s"]`, `["1h"]`, `min_free = "1MiB"`, `min_free = "1MiB"
  connections = 1
  priority "bulk" {
    when  = sender.domain == "news.example"
    level = -2
  }
  priority "alerts" {
    when  = sender.local == "alert" && cidr_contains("127.0.0.0/8", session.remote_ip)
    level = 7
  }`).Replace(relayConfig)
	s := newSystem(t, config, map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]})
	order := make(chan string, 100)
	openSink(t, ports[1], &peer.Sink{Offers: "8BITMIME MT-PRIORITY", Taken: func(a ledger.Arrival, _ []string) { order <- a.ID }})
	s.start()
	s.must("", "queue", "suspend", "one")
	c := mustDial(t, ports[0])
	for _, m := range []struct{ id, from, params string }{
		{"bulk-1", "<a@news.example>", ""}, {"low", "<bob@sender.example>", " MT-PRIORITY=-9"}, {"normal-1", "<carol@sender.example>", ""},
		{"bulk-2", "<a@news.example>", ""}, {"asks", "<dave@sender.example>", " MT-PRIORITY=9"}, {"alert", "<alert@sender.example>", ""},
	} {
		if _, err := c.Say(250, "MAIL FROM:%s%s", m.from, m.params); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Say(250, "RCPT TO:<ann@one.example>"); err != nil {
			t.Fatal(err)
		}
		if err := c.Data(peer.Numbered(m.id, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if out := s.must("", "queue", "list", "-json"); strings.Count(out, `"priority":-2`) != 2 || strings.Count(out, `"priority":7`) != 1 || strings.Count(out, `"priority":-9`) != 1 {
		t.Error(out)
	}
	s.stop()
	s.start()
	s.must("", "queue", "resume", "one")
	s.emptied()
	close(order)
	got := slices.Collect(func(yield func(string) bool) {
		for id := range order {
			if !yield(id) {
				return
			}
		}
	})
	if want := []string{"asks", "alert", "normal-1", "bulk-1", "low", "bulk-2"}; !slices.Equal(got, want) {
		t.Errorf("%s, want %s", fmt.Sprint(got), fmt.Sprint(want))
	}
	s.stop()
}
