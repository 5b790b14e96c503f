package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// ledger compares what was handed to a server with what came out of it.
type ledger struct {
	entries map[string]*entry
	arrived []arrival
	kills   []outage // of the server
	// maxDoubled bounds the messages that came twice, for each kill: those that were on their way then.
	maxDoubled int
}

// entry is a message that was handed to the server, whether it was acknowledged or the server died first.
type entry struct {
	to, sum string
	acked   bool
}

// outage is a time in which there was no server. A peer still reads what the dead one has sent.
type outage struct{ killed, back time.Time }

// nearKill is how long before a kill a message that comes twice may have come first: what a peer takes is written down
// well within it, also on a loaded machine.
const nearKill = 2 * time.Second

func (l *ledger) offer(id, to, sum string) {
	if l.entries == nil {
		l.entries = map[string]*entry{}
	}
	l.entries[id] = &entry{to: to, sum: sum}
}

func (l *ledger) ack(id string) { l.entries[id].acked = true }

// audit says everything that breaks the promise: an acknowledged message that did not come, a message that is another
// than was sent or came to somebody else, one that nobody sent, and one that came twice without a kill to explain it.
func (l *ledger) audit() (wrong []string) {
	times := map[string][]time.Time{}
	for _, a := range l.arrived {
		e := l.entries[a.id]
		switch {
		case e == nil:
			wrong = append(wrong, fmt.Sprintf("message %q was never sent", a.id))
		case e.sum != a.sum:
			wrong = append(wrong, fmt.Sprintf("message %s was changed", a.id))
		case e.to != a.to:
			wrong = append(wrong, fmt.Sprintf("message %s for %s came to %s", a.id, e.to, a.to))
		}
		times[a.id] = append(times[a.id], a.when)
	}
	for id, e := range l.entries {
		if e.acked && len(times[id]) == 0 {
			wrong = append(wrong, fmt.Sprintf("message %s was acknowledged and is lost", id))
		}
	}
	return append(wrong, l.doubled(times)...)
}

// doubled judges the messages that came more than once.
func (l *ledger) doubled(times map[string][]time.Time) (wrong []string) {
	extra := 0
	for id, list := range times {
		slices.SortFunc(list, time.Time.Compare)
		for _, earlier := range list[:len(list)-1] {
			extra++
			near := func(o outage) bool { return !earlier.After(o.back) && o.killed.Sub(earlier) < nearKill }
			if !slices.ContainsFunc(l.kills, near) {
				wrong = append(wrong, fmt.Sprintf("message %s came again, and no kill explains it", id))
			}
		}
	}
	if most := len(l.kills) * l.maxDoubled; extra > most {
		wrong = append(wrong, fmt.Sprintf("%d messages came again after %d kills; at most %d were on their way", extra, len(l.kills), most))
	}
	return wrong
}

// TestLedgerBites feeds the audit with what a broken server would do. A harness that finds nothing here proves nothing.
func TestLedgerBites(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	first := arrival{"1", "ann@one.example", "sum1", noon}
	second := arrival{"2", "ann@one.example", "sum2", noon}
	for _, c := range []struct {
		name    string
		arrived []arrival
		kills   []outage
		want    string // in the complaint; "" for none
	}{
		{"all is well", []arrival{first, second}, nil, ""},
		{"not acknowledged, and it came", []arrival{first, second, {"3", "ann@one.example", "sum3", noon}}, nil, ""},
		{"lost", []arrival{first}, nil, "message 2 was acknowledged and is lost"},
		{"lost, another twice", []arrival{first, first}, []outage{{noon, noon}}, "message 2 was acknowledged and is lost"},
		{"twice", []arrival{first, first, second}, nil, "message 1 came again, and no kill explains it"},
		{"twice at a kill", []arrival{first, first, second}, []outage{{noon.Add(time.Second), noon.Add(time.Second)}}, ""},
		{"twice long before a kill", []arrival{first, first, second}, []outage{{noon.Add(time.Hour), noon.Add(time.Hour)}}, "no kill explains it"},
		{"twice, read by the peer when the server was dead", []arrival{first, first, second}, []outage{{noon.Add(-time.Second), noon.Add(time.Second)}}, ""},
		{"twice after a kill", []arrival{first, first, second}, []outage{{noon.Add(-2 * time.Second), noon.Add(-time.Second)}}, "no kill explains it"},
		{"too many twice", []arrival{first, first, second, second}, []outage{{noon, noon}}, "at most 1 were on their way"},
		{"changed", []arrival{first, {"2", "ann@one.example", "sum1", noon}}, nil, "message 2 was changed"},
		{"to somebody else", []arrival{first, {"2", "bob@one.example", "sum2", noon}}, nil, "message 2 for ann@one.example came to bob@one.example"},
		{"from nowhere", []arrival{first, second, {"4", "ann@one.example", "sum4", noon}}, nil, `message "4" was never sent`},
	} {
		l := ledger{arrived: c.arrived, kills: c.kills, maxDoubled: 1}
		for _, id := range []string{"1", "2", "3"} {
			l.offer(id, "ann@one.example", "sum"+id)
		}
		l.ack("1")
		l.ack("2")
		got := strings.Join(l.audit(), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: the audit says %q, want %q", c.name, got, c.want)
		}
	}
}
