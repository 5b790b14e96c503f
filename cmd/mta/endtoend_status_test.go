package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
)

// TestStatusOfDestinations: mta status says how much waits for each destination, over how many connections it goes, and of
// one that is dead why, and when it is asked again; mta queue list says when its mail is tried.
func TestStatusOfDestinations(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 3)
	s := newSystem(t, strings.Replace(relayConfig, `["1s"]`, `["40m"]`, 1), map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]})
	release := make(chan struct{})
	openSink(t, ports[1], &peer.Sink{Taken: func(ledger.Arrival, []string) { <-release }})
	s.start()
	c := mustDial(t, ports[0])
	for n := range 10 {
		if err := c.Send("<carol@sender.example>", recipientOf(n), peer.Numbered(fmt.Sprint(n), nil)); err != nil {
			t.Fatal(err)
		}
	}
	var one, two admin.SiteStatus
	if !poll(func() bool {
		st, err := s.status()
		for _, site := range st.Sites {
			switch site.Name {
			case "one":
				one = site
			case "two":
				two = site
			}
		}
		return err == nil && one.Active > 0 && two.Active == 0 && !two.NextTry.IsZero()
	}) {
		t.Errorf("one is %+v, two is %+v", one, two)
	}
	if one.Waiting != 5 || !one.FailingSince.IsZero() || two.Waiting != 5 || time.Until(two.NextTry) < 30*time.Minute || two.LastReply == "" {
		t.Errorf("one is %+v, two is %+v", one, two)
	}
	text := s.must("", "status")
	for _, want := range []string{"5 waiting, ", "active", "5 waiting, 0 active", "asked again in 3", two.LastReply} {
		if !strings.Contains(text, want) {
			t.Errorf("mta status says nothing of %q:\n%s", want, text)
		}
	}
	if out := s.must("", "status", "-json"); !strings.Contains(out, `"next_try":"`) || !strings.Contains(out, `"active":`) {
		t.Error(out)
	}
	for _, m := range s.queued() {
		if two := m.Recipients[0].Address == "ann@two.example"; two && time.Until(m.Next) < 30*time.Minute {
			t.Errorf("it is tried in %s: %+v", time.Until(m.Next), m)
		}
	}
	close(release)
	s.must("", "queue", "delete", "-domain", "two.example", "-yes")
	s.emptied()
	s.stop()
}

func TestSiteState(t *testing.T) {
	for want, site := range map[string]admin.SiteStatus{
		"":                            {Waiting: 5, Active: 3},
		"back: slow start, 2 at once": {SlowStart: 2},
		"failing for 1 h, asked again in 4 min: 451 no": {FailingSince: time.Now().Add(-time.Hour - time.Minute), NextTry: time.Now().Add(5*time.Minute - time.Second), LastReply: "451 no"},
		"failing for 1 h: 451 no":                       {FailingSince: time.Now().Add(-time.Hour - time.Minute), NextTry: time.Now().Add(-time.Second), LastReply: "451 no"},
	} {
		if got := siteState(site); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
