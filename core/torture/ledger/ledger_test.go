package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// came is a whole arrival of message id at noon and so many seconds.
func came(id int, seconds float64) Arrival {
	return Arrival{ID: fmt.Sprint(id), To: "ann@one.example", Sum: fmt.Sprint("sum", id), Queue: fmt.Sprint("Q", id), When: at(seconds)}
}

func with(a Arrival, change func(*Arrival)) Arrival {
	change(&a)
	return a
}

func kill(killed, back float64, open int) Outage { return Outage{at(killed), at(back), open} }

// TestLedgerBites feeds the audit with what a broken server would do. Of the four messages 1 and 2 were acknowledged, 3
// was not, and 4 is refused by its peer.
func TestLedgerBites(t *testing.T) {
	first, second := came(1, 0), came(2, 0)
	report := Arrival{ID: "4", To: "m4@back.example", Report: true, Queue: "Q9", When: noon}
	cut := func(a *Arrival) { a.Cut = true }
	for _, c := range []struct {
		name    string
		arrived []Arrival
		outages []Outage
		done    map[string]float64
		queued  []string
		denied  []string
		want    []string // parts of the faults, in their order; none: all is well
		excused int
	}{
		{name: "all is well", arrived: []Arrival{first, second, report}},
		{name: "not acknowledged, and it came", arrived: []Arrival{first, second, came(3, 0), report}},
		{name: "lost", arrived: []Arrival{first, report}, want: []string{"lost: message 2"}},
		{name: "lost, and another came twice", arrived: []Arrival{first, came(1, 1), report}, outages: []Outage{kill(0, 0, 1)},
			want: []string{"lost: message 2"}, excused: 1},
		{name: "lost report", arrived: []Arrival{first, second}, want: []string{"lost: message 4"}},
		{name: "still queued", arrived: []Arrival{first, report}, queued: []string{"2"}, want: []string{"stuck: message 2"}},
		{name: "not acknowledged and still queued", arrived: []Arrival{first, second, report}, queued: []string{"3"}},

		{name: "twice", arrived: []Arrival{first, came(1, 1), second, report}, want: []string{"doubled: message 1 came again, and nothing"}},
		{name: "twice, by the first reply cut", arrived: []Arrival{with(first, cut), came(1, 1), second, report}, excused: 1},
		{name: "twice, by the last reply cut", arrived: []Arrival{first, with(came(1, 1), cut), second, report}, want: []string{"doubled: message 1"}},
		{name: "three times, one reply cut", arrived: []Arrival{with(first, cut), came(1, 1), came(1, 2), second, report}, want: []string{"doubled: message 1"}, excused: 1},
		{name: "three times, two replies cut", arrived: []Arrival{with(first, cut), with(came(1, 1), cut), came(1, 2), second, report}, excused: 2},
		{name: "twice at a kill", arrived: []Arrival{first, came(1, 2), second, report}, outages: []Outage{kill(1, 1.5, 1)}, excused: 1},
		{name: "twice long before a kill", arrived: []Arrival{first, came(1, 99), second, report}, outages: []Outage{kill(60, 61, 9)}, want: []string{"doubled: message 1"}},
		{name: "both before the kill", arrived: []Arrival{first, came(1, 0.5), second, report}, outages: []Outage{kill(1, 2, 9)}, want: []string{"doubled: message 1"}},
		{name: "read by the peer when the server was dead", arrived: []Arrival{first, came(1, 2), second, report}, outages: []Outage{kill(-1, 1, 1)}, excused: 1},
		{name: "twice after a kill", arrived: []Arrival{first, came(1, 1), second, report}, outages: []Outage{kill(-2, -1, 9)}, want: []string{"doubled: message 1"}},
		{name: "more twice than were on their way", arrived: []Arrival{first, came(1, 1), second, came(2, 1), report}, outages: []Outage{kill(0.1, 0.5, 1)},
			want: []string{"at most 1 were on their way"}, excused: 2},
		{name: "accepted once, queued twice", arrived: []Arrival{with(first, cut), with(came(1, 1), func(a *Arrival) { a.Queue = "Q7" }), second, report},
			want: []string{"doubled: message 1 was queued twice"}},

		{name: "again after it was done", arrived: []Arrival{first, came(1, 2), second, report}, outages: []Outage{kill(1, 1.5, 1)},
			done: map[string]float64{"Q1": 0.5}, want: []string{"resurrected: message 1"}},
		{name: "done after it came again", arrived: []Arrival{first, came(1, 2), second, report}, outages: []Outage{kill(1, 1.5, 1)},
			done: map[string]float64{"Q1": 2.5}, excused: 1},
		{name: "again after it was done, though its reply was cut", arrived: []Arrival{with(first, cut), came(1, 2), second, report},
			done: map[string]float64{"Q1": 1}, want: []string{"resurrected: message 1"}},

		{name: "changed", arrived: []Arrival{first, with(second, func(a *Arrival) { a.Sum = "sum1" }), report}, want: []string{"changed: message 2 has another body"}},
		{name: "to somebody else", arrived: []Arrival{first, with(second, func(a *Arrival) { a.To = "bob@one.example" }), report},
			want: []string{"changed: message 2 for ann@one.example came to bob@one.example"}},
		{name: "from nowhere", arrived: []Arrival{first, second, came(5, 0), report}, want: []string{`stray: message "5"`}},
		{name: "delivered, and reported as failed", arrived: []Arrival{first, second, with(came(2, 1), func(a *Arrival) { a.Report = true }), report},
			want: []string{"doubled: message 2", "misreported: message 2 was reported"}},
		{name: "refused, and delivered", arrived: []Arrival{first, second, came(4, 0)}, want: []string{"misreported: message 4 was delivered"}},
		{name: "refused for good by the server", arrived: []Arrival{first, second, report}, denied: []string{"3"}, want: []string{"denied: message 3 was refused with 554"}},
		{name: "reported twice", arrived: []Arrival{first, second, report, with(report, func(a *Arrival) { a.When = at(1) })}, want: []string{"doubled: message 4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New()
			for id := range 4 {
				l.Offer(Message{ID: fmt.Sprint(id + 1), To: "ann@one.example", Sum: fmt.Sprint("sum", id+1), Refused: id == 3})
			}
			for _, id := range []string{"1", "2", "4"} {
				l.Ack(id)
			}
			for _, o := range c.outages {
				l.Outage(o)
			}
			for q, seconds := range c.done {
				l.Done(q, at(seconds))
			}
			for _, id := range c.queued {
				l.Queued(id)
			}
			for _, id := range c.denied {
				l.Deny(id, "554 5.3.0 no")
			}
			l.Arrive(c.arrived...)
			v := l.Audit()
			if v.Acked != 3 || v.Offered != 4 || v.Excused != c.excused || len(v.Faults) != len(c.want) {
				t.Errorf("%v, want %d excused and %d faults: %v", v, c.excused, len(c.want), v.Faults)
			}
			for i := range min(len(c.want), len(v.Faults)) {
				if !strings.Contains(v.Faults[i].String(), c.want[i]) {
					t.Errorf("%q, want %q", v.Faults[i], c.want[i])
				}
			}
		})
	}
}
