package main

import (
	"fmt"
	"sync"
	"testing"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
	"github.com/pabal-mta/mta/core/torture/trial"
)

// relayConfig is a server that hands mail for one.example and two.example to a smarthost each.
const relayConfig = `
hostname = "relay.example"
domains  = ["example.test"]
data_dir = "var"

listener "mx" {
  address = ["${MX}"]
  limits {
    connections_per_ip = 200
  }
}

plugin "bounces" {
  source = "builtin:bounces"
}

plugin "mime" {
  source = "builtin:mime"
}

route "one" {
  domains   = ["one.example"]
  smarthost = "${ONE}"
  tls       = "none"
  convert   = [plugin.mime]
}

route "two" {
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

// TestManyMessages sends 1,000 messages (MTA_E2E_MESSAGES overrides) over 50 connections to two destinations, of which one
// is down at first. Each message arrives exactly once, as it was, and many go over one connection.
func TestManyMessages(t *testing.T) {
	t.Parallel()
	const connections = 50
	messages := sizeFrom(t, "MTA_E2E_MESSAGES", 1000)
	ports := freePorts(t, 3)
	s := newSystem(t, relayConfig, map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]})
	one := openSink(t, ports[1], &peer.Sink{Offers: "8BITMIME"})
	s.start()

	var workers sync.WaitGroup
	for w := range connections {
		workers.Go(func() {
			c, err := dial(ports[0])
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for n := w; n < messages; n += connections {
				if err := c.Send("<carol@sender.example>", recipientOf(n), peer.Numbered(fmt.Sprint(n), trial.BodyOf(n))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	if !poll(func() bool { got, _ := one.Arrivals(); return len(got) == (messages+1)/2 }) {
		t.Fatal("mail for the host that is up waits for the one that is down")
	}
	if st, err := s.status(); err != nil || st.Queue.Waiting+st.Queue.Active != messages/2 {
		t.Errorf("%+v waits for the host that is down, %v", st.Queue, err)
	}

	two := openSink(t, ports[2], &peer.Sink{Offers: "8BITMIME"})
	s.emptied()
	l := ledger.New()
	for n := range messages {
		l.Offer(ledger.Message{ID: fmt.Sprint(n), To: recipientOf(n), Sum: peer.Sum(trial.BodyOf(n))})
		l.Ack(fmt.Sprint(n))
	}
	for _, k := range []*peer.Sink{one, two} {
		got, opened := k.Arrivals()
		l.Arrive(got...)
		t.Logf("%d messages over %d connections", len(got), opened)
		if opened > max(20, len(got)/10) {
			t.Errorf("%d connections for %d messages", opened, len(got))
		}
	}
	for _, wrong := range l.Audit().Faults {
		t.Error(wrong)
	}
	s.stop()
}

// recipientOf shares messages out between the two destinations.
func recipientOf(n int) string {
	if n%2 == 0 {
		return "ann@one.example"
	}
	return "ann@two.example"
}
