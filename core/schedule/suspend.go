package schedule

import (
	"slices"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// A destination that an operator has suspended is dealt with as one that takes no connections, but that nothing asks it: what
// waits for it is put off, what is new gets one word and waits, and senders are told when mail is late or given up.

// Suspension keeps mail for a destination from being tried.
type Suspension struct {
	// A route's name; a domain; "*.example.com" for every domain below it; "*" for everything.
	Destination string    `json:"destination"`
	Reason      string    `json:"reason,omitempty"`
	Since       time.Time `json:"since"`
}

// covers reports whether the suspension is about a site.
func (x *Suspension) covers(key siteKey) bool {
	if key.route == "" { // one of the sites that are none
		return false
	}
	domains := route.Route{Domains: []string{x.Destination}}
	return x.Destination == "*" || x.Destination == key.route || key.domain != "" && domains.Matches(key.domain)
}

// outcome is what a recipient there gets to hear.
func (x *Suspension) outcome() deliver.Outcome {
	const said = "delivery there is suspended"
	r := mail.NewReply(450, "4.3.2", said)
	plain := r
	if r.Text += ": " + x.Reason; x.Reason == "" || r.Check() != nil {
		r = plain
	}
	return deliver.Outcome{Class: deliver.TempFail, Phase: "suspended", Reply: r}
}

// Suspend puts a list of suspensions in the place of the one before. Mail of a destination that is no longer suspended is
// tried at once.
func (s *Schedule) Suspend(list []Suspension) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sites.suspensions = slices.Clone(list)
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
		s.recall.again = true
		s.nudge()
	}
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
