package schedule

import (
	"slices"
	"strings"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// A destination that an operator has suspended is dealt with as one that takes no connections, but that nothing asks it: what
// waits for it is put off, what is new gets one word and waits, and senders are told when mail is late or given up. Mail of a
// sender who is suspended gets that word each time that it comes up.

// Suspension keeps mail for a destination, or of a sender, from being tried.
type Suspension struct {
	// A route's name; a domain; "*.example.com" for every domain below it; "*" for everything. Or a sender, as in a queue.Filter.
	What   string    `json:"what"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// OfSender reports a suspension that is about who sends, and not about where the mail goes.
func (x *Suspension) OfSender() bool { return x.What == "<>" || strings.Contains(x.What, "@") }

// Sent reports whether the suspension is about the sender of a message.
func (x *Suspension) Sent(rec *queue.Record) bool {
	return x.OfSender() && queue.Filter{From: x.What}.Match(rec, time.Time{})
}

// covers reports whether the suspension is about a site.
func (x *Suspension) covers(key siteKey) bool {
	if key.route == "" || x.OfSender() { // or one of the sites that are none
		return false
	}
	domains := route.Route{Domains: []string{x.What}}
	return x.What == "*" || x.What == key.route || key.domain != "" && domains.Matches(key.domain)
}

// outcome is what a recipient there gets to hear.
func (x *Suspension) outcome() deliver.Outcome {
	said := "delivery there is suspended"
	if x.OfSender() {
		said = "mail of this sender is suspended"
	}
	r := mail.NewReply(450, "4.3.2", said)
	plain := r
	if r.Text += ": " + x.Reason; x.Reason == "" || r.Check() != nil {
		r = plain
	}
	return deliver.Outcome{Class: deliver.TempFail, Phase: "suspended", Reply: r}
}

// Suspend puts a list of suspensions in the place of the one before. Mail that was kept by one that is not there any more is
// tried at once.
func (s *Schedule) Suspend(list []Suspension) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list = slices.Clone(list)
	s.sites.suspensions = list
	if old := s.suspensions.Swap(&list); old != nil && slices.ContainsFunc(*old, func(x Suspension) bool { return x.OfSender() }) {
		s.searchAgain()
	}
	for _, st := range s.sites.list {
		if st == nil {
			continue
		}
		was := st.suspended
		if st.suspended = s.sites.suspension(st.key); was != nil && st.suspended == nil {
			s.callBack(st)
		}
	}
}

// suspension returns why mail for a site is not to be tried, or nil.
func (ss *sites) suspension(key siteKey) *Suspension {
	for i := range ss.suspensions {
		if x := &ss.suspensions[i]; x.covers(key) {
			return x
		}
	}
	return nil
}

// keep gives a job of a suspended sender the word on that, and reports whether there was a reason.
func (s *Schedule) keep(j *job) bool {
	x := s.suspensionOf(j.lease.rec)
	if x == nil {
		return false
	}
	word := x.outcome()
	j.word, j.stranded = &word, true
	if j.probe {
		s.mu.Lock()
		defer s.mu.Unlock()
		j.noProbe()
	}
	return true
}

// suspensionOf returns the suspension of the sender of a message, or nil.
func (s *Schedule) suspensionOf(rec *queue.Record) *Suspension {
	list := s.suspensions.Load()
	if list == nil {
		return nil
	}
	for i := range *list {
		if x := &(*list)[i]; x.Sent(rec) {
			return x
		}
	}
	return nil
}

// Suspended returns how many messages wait for destinations that a suspension is about. What goes to several destinations is
// not counted.
func (s *Schedule) Suspended(x Suspension) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, st := range s.sites.byKey {
		if x.covers(key) {
			n += st.entries
		}
	}
	return n
}

// recall is the search for what is stranded at sites that may be asked again. It goes through the table in small steps, once for all
// sites that have come back meanwhile.
type recall struct {
	at    uint32 // the next entry; 0: there is no search
	again bool   // another one is wanted after it
}

// callBack has what is stranded at a site come up at once, not when its time has come. s.mu is held.
func (s *Schedule) callBack(st *site) {
	if st.entries > 0 {
		s.searchAgain()
	}
}

// searchAgain has all be looked for that is stranded and need not be. s.mu is held.
func (s *Schedule) searchAgain() {
	s.recall.again = true
	s.nudge()
}

// search does a step of the recall and reports whether there is another one. s.mu is held.
func (s *Schedule) search(now time.Time) (more bool) {
	r := &s.recall
	if r.at == 0 {
		if !r.again {
			return false
		}
		r.at, r.again = 1, false
	}
	for end := min(r.at+1<<chunkBits, s.table.used); r.at < end; r.at++ {
		if e := s.table.at(r.at); e.state == waiting && e.stranded && !s.shut(s.sites.list[e.site], now) {
			s.table.unwait(r.at)
			s.ready(r.at)
		}
	}
	if r.at < s.table.used {
		return true
	}
	r.at = 0
	return r.again
}
