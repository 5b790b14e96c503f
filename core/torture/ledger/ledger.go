// Package ledger holds what was handed to a server against what came out of it.
//
// It is the judge of every trial: it knows no server, no disk and no clock of its own, only what its callers wrote down,
// and it says what breaks the promise: lost, doubled, resurrected, changed, misreported, stray, denied
// or stuck. A message that
// comes twice is excused in one case only (RFC 1047): the peer had the final dot, and its reply may not have been written
// down, because it did not go out whole or because the server was killed. Such copies are counted, never passed over.
package ledger

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Near is how long before a kill the first copy of a doubled message may have come. What a peer takes is written down
// well within it, also on a loaded machine.
const Near = 2 * time.Second

// Message is a message with one recipient that is about to be handed to the server.
type Message struct {
	ID, To, Sum string // the sum is that of the body
	Refused     bool   // the peer will refuse it for good, so that a report is due instead of a delivery
}

// Arrival is one message for one recipient at a sink.
type Arrival struct {
	ID, To, Sum string
	Queue       string // the server's own ID for it, from the Received field; "" when it has none
	Report      bool   // a report of failure that came to the sender
	Cut         bool   // the sink took the message, and its reply did not go out whole
	When        time.Time
}

// For returns the arrival for each of its recipients.
func (a Arrival) For(to []string) (list []Arrival) {
	for _, a.To = range to {
		list = append(list, a)
	}
	return list
}

// Outage is a time in which there was no server. A peer still reads what the dead one has sent.
type Outage struct {
	Killed, Back time.Time
	Open         int // connections to peers at the kill: so many messages were on their way at most
}

// Ledger is what is known of one run. Its methods may be called by several goroutines at once.
type Ledger struct {
	mu       sync.Mutex
	offered  map[string]*offer
	arrivals []Arrival
	outages  []Outage
	denied   []Fault
	done     map[string]time.Time // the server's ID → when its log said that nothing is left to do
	queued   map[string]bool      // our ID → it is in the queue at the end
}

type offer struct {
	Message
	acked bool
}

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{offered: map[string]*offer{}, done: map[string]time.Time{}, queued: map[string]bool{}}
}

// Offer notes a message before its first byte is sent.
func (l *Ledger) Offer(m Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered[m.ID] = &offer{Message: m}
}

// Ack notes that the server has said 250 to the whole message.
func (l *Ledger) Ack(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered[id].acked = true
}

// Deny notes that the server refused a message for good.
func (l *Ledger) Deny(id, reply string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.denied = append(l.denied, Fault{Denied, id, "was refused with " + reply})
}

// Arrive notes what a sink took.
func (l *Ledger) Arrive(list ...Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals = append(l.arrivals, list...)
}

// Outage notes that the server was killed.
func (l *Ledger) Outage(o Outage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outages = append(l.outages, o)
}

// Done notes that the server has said of one of its messages that nothing is left to do. From then on it has no excuse.
func (l *Ledger) Done(queue string, when time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.done[queue]; !known {
		l.done[queue] = when
	}
}

// Queued notes a message that is in the queue when the run has ended.
func (l *Ledger) Queued(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued[id] = true
}

// Kind is how a promise was broken.
type Kind string

// The kinds of fault.
const (
	Lost        Kind = "lost"        // acknowledged, and neither delivered nor reported nor in the queue
	Doubled     Kind = "doubled"     // came again, and nothing excuses it
	Resurrected Kind = "resurrected" // came again after it was on record as done
	Changed     Kind = "changed"     // another body, or another recipient, than was sent
	Misreported Kind = "misreported" // a failure was reported that was none, or the other way round
	Stray       Kind = "stray"       // nobody sent it
	Denied      Kind = "denied"      // refused for good, and the trouble was the server's own
	Stuck       Kind = "stuck"       // acknowledged, in the queue, and not delivered though its peer is there
)

// Fault is one broken promise.
type Fault struct {
	Kind Kind
	ID   string
	Why  string
}

// String says it in a line.
func (f Fault) String() string { return fmt.Sprintf("%s: message %s %s", f.Kind, f.ID, f.Why) }

// Verdict is what an audit found.
type Verdict struct {
	Offered, Acked, Arrived, Reports int
	Cut                              int // replies of the sink that did not go out whole
	Excused                          int // copies that came again, each with its excuse
	Outages                          int
	Faults                           []Fault
}

// String gives the figures in a line.
func (v Verdict) String() string {
	return fmt.Sprintf("%d handed in, %d acknowledged, %d arrived, %d reports, %d replies cut, %d kills, %d doubled with an excuse, %d faults",
		v.Offered, v.Acked, v.Arrived, v.Reports, v.Cut, v.Outages, v.Excused, len(v.Faults))
}

// Plus adds up two verdicts.
func (v Verdict) Plus(w Verdict) Verdict {
	return Verdict{
		Offered: v.Offered + w.Offered, Acked: v.Acked + w.Acked, Arrived: v.Arrived + w.Arrived, Reports: v.Reports + w.Reports,
		Cut: v.Cut + w.Cut, Excused: v.Excused + w.Excused, Outages: v.Outages + w.Outages, Faults: append(v.Faults, w.Faults...),
	}
}

// Kinds counts the faults by their kind.
func (v Verdict) Kinds() map[Kind]int {
	n := map[Kind]int{}
	for _, f := range v.Faults {
		n[f.Kind]++
	}
	return n
}

// Audit compares. The server must have had the time to deliver everything, or what it holds must have been noted by Queued.
func (l *Ledger) Audit() Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := Verdict{Offered: len(l.offered), Outages: len(l.outages), Faults: slices.Clone(l.denied)}
	copies := map[string][]Arrival{}
	for _, a := range l.arrivals {
		v.Arrived++
		if a.Report {
			v.Reports++
		}
		if a.Cut {
			v.Cut++
		}
		v.note(l.misfit(a))
		copies[a.ID] = append(copies[a.ID], a)
	}
	for id, o := range l.offered {
		if !o.acked {
			continue
		}
		v.Acked++
		if len(copies[id]) > 0 {
			continue
		}
		if l.queued[id] {
			v.note(&Fault{Stuck, id, "was acknowledged and is still in the queue"})
			continue
		}
		v.note(&Fault{Lost, id, "was acknowledged, and is neither delivered nor queued"})
	}
	l.auditCopies(&v, copies)
	slices.SortFunc(v.Faults, func(a, b Fault) int { return strings.Compare(a.String(), b.String()) })
	return v
}

func (v *Verdict) note(f *Fault) {
	if f != nil {
		v.Faults = append(v.Faults, *f)
	}
}

// misfit says what is wrong with one arrival by itself.
func (l *Ledger) misfit(a Arrival) *Fault {
	o := l.offered[a.ID]
	switch {
	case o == nil:
		return &Fault{Stray, fmt.Sprintf("%q", a.ID), "was never sent"}
	case a.Report && !o.Refused:
		return &Fault{Misreported, a.ID, "was reported as failed, and no peer refused it"}
	case a.Report:
		return nil
	case o.Refused:
		return &Fault{Misreported, a.ID, "was delivered, and its peer refused it"}
	case o.Sum != a.Sum:
		return &Fault{Changed, a.ID, "has another body"}
	case o.To != a.To:
		return &Fault{Changed, a.ID, fmt.Sprintf("for %s came to %s", o.To, a.To)}
	}
	return nil
}

// auditCopies judges what came more than once.
func (l *Ledger) auditCopies(v *Verdict, copies map[string][]Arrival) {
	killed := 0
	for id, list := range copies {
		slices.SortFunc(list, func(a, b Arrival) int { return a.When.Compare(b.When) })
		for i := range len(list) - 1 {
			switch f := l.again(list[i], list[i+1]); {
			case f != nil:
				f.ID = id
				v.note(f)
			case list[i].Cut:
				v.Excused++
			default:
				v.Excused++
				killed++
			}
		}
	}
	most := 0
	for _, o := range l.outages {
		most += o.Open
	}
	if killed > most {
		v.note(&Fault{Doubled, "-", fmt.Sprintf("and others: %d came again after kills, and at most %d were on their way", killed, most)})
	}
}

// again judges a copy that came after another. It returns nil when that has an excuse.
func (l *Ledger) again(first, next Arrival) *Fault {
	if first.Queue != next.Queue {
		return &Fault{Doubled, first.ID, "was queued twice"}
	}
	if done, ok := l.done[first.Queue]; ok && next.When.After(done) {
		return &Fault{Resurrected, first.ID, "came again after it was on record as done"}
	}
	near := func(o Outage) bool {
		return !first.When.After(o.Back) && o.Killed.Sub(first.When) < Near && next.When.After(o.Killed)
	}
	if first.Cut || slices.ContainsFunc(l.outages, near) {
		return nil
	}
	return &Fault{Doubled, first.ID, "came again, and nothing excuses it"}
}
