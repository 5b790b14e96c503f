package schedule

import (
	"math/rand/v2"
	"time"

	"github.com/pabal-mta/mta/core/queue"
)

// What is due for a site that is known to take no connections is put off: its entry waits on, and neither is the message
// read nor its record written. One message finds out, a probe, and is settled as after every attempt; the others are tried
// when the site was reached. So a large backlog of a dead site costs its probes, and next to nothing for the rest.
//
// It is no attempt and counts as none. The one thing that may not wait for the site is what a sender has to be told: a
// message that is old enough for that is taken as ever.

// of notes what is to be known of a message while it waits.
func (e *entry) of(rec *queue.Record) { e.warned, e.lane = rec.Warned, laneOf(rec.Envelope.Priority) }

// shut reports a site that is not to be asked now: it takes no connections, or is suspended. s.mu is held.
func (s *Schedule) shut(st *site, now time.Time) bool {
	t := st.trouble
	return st.suspended != nil || t != nil && t.failures >= s.settings.Load().limits.SiteFailures && (t.probing || now.Before(t.until))
}

// mayPutOff reports an entry that has nothing to gain from being taken now. A new message is not put off: its first
// attempt is being waited for, and its record shall say why it was not delivered. s.mu is held.
func (s *Schedule) mayPutOff(at uint32, now time.Time) bool {
	e := s.table.at(at)
	return !e.busy && e.kib == 0 && s.shut(s.sites.list[e.site], now) && now.Before(s.tellDue(e, now))
}

// putOff has an entry wait until its site has been asked again, or its suspension ends. They come up one by one: the first asks,
// and calls the others back if the site is there again. s.mu is held.
func (s *Schedule) putOff(at uint32, now time.Time) {
	e := s.table.at(at)
	e.stranded = true
	st, due := s.sites.list[e.site], now.Add(lookAgain)
	if st.suspended == nil {
		if due = st.trouble.until; due.Before(now) {
			due = now
		}
		spread := s.settings.Load().retry.Next(1, now, 0).Sub(now)
		due = due.Add(time.Duration(rand.Float64() * float64(spread)))
	}
	if tell := s.tellDue(e, now); tell.Before(due) {
		due = tell
	}
	s.wait(at, due)
}

// lookAgain is how often what is suspended comes up, since the policy may be another.
const lookAgain = time.Hour

// passOver puts off what stands at the head of a site's lanes. The caller is one of its workers, which keeps the site from
// being forgotten while others have the lock for a moment. s.mu is held.
func (s *Schedule) passOver(st *site) {
	now := time.Now()
	for i := range st.lanes {
		l := &st.lanes[i]
		for n := 1; l.due != 0 && s.mayPutOff(l.due, now); n++ {
			s.putOff(s.popDue(st, l), now)
			if n%ripenAtOnce == 0 {
				s.mu.Unlock()
				s.mu.Lock()
			}
		}
	}
}

// Due sets when messages that wait are tried next, which may be later than their records say. It asks for all of them at once: in a
// long list each by itself would be in the way of what is being delivered. It returns for each why its destination is suspended, or nil.
func (s *Schedule) Due(records []*queue.Record) []*Suspension {
	suspended := make([]*Suspension, len(records))
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for i, rec := range records {
		e := s.table.at(s.table.byID[rec.ID]) // entry 0 is free
		if e.state != free {
			suspended[i] = s.sites.list[e.site].suspended
		}
		if e.state == waiting && e.link != 0 {
			rec.Next = s.table.base.Add(time.Duration(s.table.heap[e.link-1].due))
			rec.Next = now.Round(0).Add(rec.Next.Sub(now)) // by the wall clock as it is now
		}
	}
	return suspended
}
