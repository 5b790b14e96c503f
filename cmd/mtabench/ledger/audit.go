package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Audit is what a ledger adds up to.
type Audit struct {
	Begun, Accepted, Delivered int
	Transactions               int // that the sink took

	Missing int // answered 250, and not every recipient was reached (yet)
	Doubled int // transactions that reached a recipient again
	Changed int // transactions whose body was another than was sent
	Strayed int // transactions for a recipient that the message does not have
	Unasked int // refused by the server, and delivered all the same
	Foreign int // transactions that are no message of this run

	AcceptTimes   []time.Duration // when each 250 came, in order
	AcceptLatency []time.Duration // from the begin of the transaction to the 250, the shortest first
	TransitTime   []time.Duration // from the 250 to the last recipient, the shortest first

	FirstDelivered, LastDelivered time.Duration // 0: none was
}

// Audit adds up. Nobody may write into the ledger meanwhile.
func (l *Ledger) Audit() Audit {
	a := Audit{
		Begun:          min(int(l.next.Load()), len(l.entries)),
		Accepted:       l.Accepted(),
		Delivered:      l.Delivered(),
		Transactions:   int(l.transactions.Load()),
		Doubled:        int(l.doubled.Load()),
		Changed:        int(l.changed.Load()),
		Strayed:        int(l.strayed.Load()),
		Foreign:        int(l.foreign.Load()),
		FirstDelivered: time.Duration(l.first.Load()),
		LastDelivered:  time.Duration(l.last.Load()),
	}
	for i := range a.Begun {
		a.add(&l.entries[i])
	}
	slices.Sort(a.AcceptTimes)
	slices.Sort(a.AcceptLatency)
	slices.Sort(a.TransitTime)
	return a
}

func (a *Audit) add(e *entry) {
	accepted, done := e.accepted.Load(), e.done.Load()
	if accepted == refused && e.got.Load() != 0 {
		a.Unasked++
	}
	if accepted <= 0 {
		return
	}
	a.AcceptTimes = append(a.AcceptTimes, time.Duration(accepted))
	a.AcceptLatency = append(a.AcceptLatency, time.Duration(accepted-e.begun.Load()))
	if done == 0 {
		a.Missing++
		return
	}
	// A quick server may have delivered before the client has read the 250.
	a.TransitTime = append(a.TransitTime, time.Duration(max(0, done-accepted)))
}

// Wrong says everything that a relay must not do; nil is a clean run. Messages that are missing may still be queued: queued
// is how many the server says are, or less than nothing when it can't be asked. A server that keeps a copy of what it has
// delivered just now may say more than are missing.
func (a *Audit) Wrong(queued int) error {
	var wrong []error
	count := func(n int, what string) {
		if n > 0 {
			wrong = append(wrong, fmt.Errorf("%d %s", n, what))
		}
	}
	if queued >= 0 {
		count(a.Missing-queued, "lost: accepted, not delivered, and not in the queue")
	}
	count(a.Doubled, "doubled")
	count(a.Changed, "changed")
	count(a.Strayed, "delivered to a recipient that was not asked for")
	count(a.Unasked, "refused and delivered all the same")
	return errors.Join(wrong...)
}

// Quantile is the value below which the share q of the sorted times lies; 0 without any.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
