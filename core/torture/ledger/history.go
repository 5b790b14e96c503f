package ledger

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// History is what is known of one run on a disk that remembers its past: for each message the moments, as positions of
// that past, from which on it was acknowledged, had been taken by its peer, and was on record as done. A moment may be
// noted too late, and for Taken must not be; it may not be noted at all. Its methods may be called by several goroutines.
type History struct {
	mu       sync.Mutex
	messages map[string]*life
	queues   map[string]string // the server's ID → ours
}

// life is the moments of one message; 0: it did not come to that.
type life struct {
	Message
	acked, taken, done int
}

// Held is a message that is in the queue after a cut.
type Held struct {
	ID, Sum string
	Report  bool   // it is the report about ID
	Damage  string // why it can't be read; "": it can
}

// NewHistory makes an empty history.
func NewHistory() *History {
	return &History{messages: map[string]*life{}, queues: map[string]string{}}
}

// Offer notes a message before its first byte is sent.
func (h *History) Offer(m Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages[m.ID] = &life{Message: m}
}

// Ack notes that the server's 250 to the whole message had been read at this moment.
func (h *History) Ack(id string, at int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages[id].acked = at
}

// Take notes that a peer had the final dot of a message, or of the report about it, at this moment, and had not answered.
func (h *History) Take(a Arrival, at int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.messages[a.ID]
	if m == nil {
		return // it is seen in the queue if it comes from there
	}
	if m.taken == 0 {
		m.taken = at
	}
	if !a.Report {
		h.queues[a.Queue] = a.ID
	}
}

// Done notes that the server had said of one of its messages, by its own ID, that nothing is left to do.
func (h *History) Done(queue string, at int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.messages[h.queues[queue]]; m != nil && m.done == 0 {
		m.done = at
	}
}

// Cut judges what is in the queue after the power was cut at a moment. A message that its peer had by then may be there or
// not: only the server's own word that it was done makes it wrong to be there.
func (h *History) Cut(at int, held []Held) Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := Verdict{Outages: 1}
	there := map[string]bool{}
	seen := map[Held]bool{}
	for _, m := range held {
		key := Held{ID: m.ID, Report: m.Report}
		if seen[key] {
			v.note(&Fault{Doubled, m.ID, "is in the queue twice"})
		}
		seen[key], there[m.ID] = true, true
		v.note(h.wrong(at, m))
		if l := h.messages[m.ID]; l != nil && before(l.taken, at) {
			v.Excused++
		}
	}
	for id, l := range h.messages {
		v.Offered++
		if !before(l.acked, at) {
			continue
		}
		v.Acked++
		if !there[id] && !before(l.taken, at) {
			v.note(&Fault{Lost, id, fmt.Sprintf("was acknowledged at %d, no peer had it at %d, and it is not in the queue", l.acked, at)})
		}
	}
	slices.SortFunc(v.Faults, func(a, b Fault) int { return strings.Compare(a.String(), b.String()) })
	return v
}

func before(moment, at int) bool { return moment > 0 && moment <= at }

// wrong says what is wrong with one message in the queue by itself.
func (h *History) wrong(at int, m Held) *Fault {
	l := h.messages[m.ID]
	switch {
	case m.Damage != "":
		return &Fault{Changed, m.ID, "can't be read: " + m.Damage}
	case l == nil:
		return &Fault{Stray, fmt.Sprintf("%q", m.ID), "was never sent, and is in the queue"}
	case m.Report && !l.Refused:
		return &Fault{Misreported, m.ID, "was reported as failed, and no peer refused it"}
	case m.Report:
		return nil
	case before(l.done, at):
		return &Fault{Resurrected, m.ID, fmt.Sprintf("was on record as done at %d, and is in the queue at %d", l.done, at)}
	case l.Sum != m.Sum:
		return &Fault{Changed, m.ID, "has another body"}
	}
	return nil
}
