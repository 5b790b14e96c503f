package schedule

import (
	"context"
	"slices"
	"time"

	"github.com/pabal-mta/mta/core/route"
)

// Destination is the limits of hosts that want their own. All sites that send to one of them share the limits.
type Destination struct {
	Name        string
	Hosts       []string      // names; "*.example.com" is every name below it
	Connections int           // attempts at once, all its sites together; 0: as many as one site may have
	Count       int           // attempts that begin in each Per, evenly spaced; 0: any number
	Per         time.Duration // see Count
}

// destination is a Destination and what is known of it.
type destination struct {
	Destination
	active  int       // workers of all its sites
	next    time.Time // no attempt begins before
	waiting []*site   // have work, and no connection or not yet; the one that has waited longest first
}

const (
	hostsKept   = time.Hour        // after it a site's hosts are asked for again
	hostsRetry  = time.Minute      // the same where there was no answer
	hostsWithin = 30 * time.Second // an answer comes so soon, or counts as none
)

func (d *destination) paced(now time.Time) bool { return now.Before(d.next) }

// mayBegin reports whether one more worker may begin now.
func (d *destination) mayBegin(now time.Time) bool {
	return d == nil || d.active < d.Connections && !d.paced(now)
}

// exceeded reports whether a worker that d counts already has to leave.
func (d *destination) exceeded(now time.Time) bool {
	return d != nil && (d.active > d.Connections || d.paced(now))
}

// crowded reports whether some site waits for what others have.
func (d *destination) crowded() bool { return d != nil && len(d.waiting) > 0 }

// spend notes that an attempt begins. s.mu is held.
func (s *Schedule) spend(d *destination) {
	if d == nil || d.Count <= 0 {
		return
	}
	now := time.Now()
	if d.next.Before(now) {
		d.next = now
	}
	d.next = d.next.Add(d.Per / time.Duration(d.Count))
	if d.crowded() {
		s.nudge()
	}
}

// queueUp has a site wait for its destination. s.mu is held.
func (s *Schedule) queueUp(st *site) {
	if st.queued {
		return
	}
	st.queued = true
	d := st.dest
	d.waiting = append(d.waiting, st)
	if d.paced(time.Now()) {
		s.nudge()
	}
}

// callUp takes the site off that list that has waited longest, if one more worker may begin; else nil. s.mu is held.
func (s *Schedule) callUp(d *destination) *site {
	now := time.Now()
	switch {
	case !d.crowded():
		return nil
	case d.paced(now):
		s.nudge()
		return nil
	case !d.mayBegin(now):
		return nil
	}
	st := d.waiting[0]
	d.waiting = slices.Delete(d.waiting, 0, 1)
	st.queued = false
	return st
}

// attend has the clock look at once where a site waits though it could begin: whoever would have called it up is gone. s.mu is
// held.
func (s *Schedule) attend(d *destination) {
	if d.crowded() && d.mayBegin(time.Now()) {
		s.nudge()
	}
}

// pour starts workers where a rate allows the next attempt, and returns how long none will. s.mu is held.
func (s *Schedule) pour(now time.Time) (wait time.Duration) {
	wait = longWait
	for _, d := range s.destinations {
		if !d.crowded() {
			continue
		}
		if d.paced(now) {
			wait = min(wait, d.next.Sub(now))
			continue
		}
		for st := s.callUp(d); st != nil; st = s.callUp(d) {
			s.dispatch(st)
			s.sites.tidy(st)
			if d.Count > 0 {
				break // there is room for another when this one has begun
			}
		}
	}
	return wait
}

// undecided reports a site whose destination is not known, though there are some.
func (s *Schedule) undecided(st *site) bool {
	return len(s.destinations) > 0 && !st.asked && s.o.Hosts != nil && st.key.route != ""
}

// outdated reports a site whose hosts have to be asked for. s.mu is held.
func (s *Schedule) outdated(st *site) bool {
	return s.undecided(st) || st.asked && len(s.destinations) > 0 && time.Now().After(st.askAgain)
}

// ask finds out what hosts a site sends to. s.mu is held, but not while it waits for the answer; the caller is one of the
// site's workers, which keeps the site from being forgotten meanwhile.
func (s *Schedule) ask(st *site) {
	st.askAgain = time.Now().Add(hostsKept) // nobody else asks meanwhile
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, hostsWithin)
	hosts, err := s.o.Hosts(ctx, st.key.route, st.key.domain)
	cancel()
	s.mu.Lock()
	if err != nil {
		st.askAgain = time.Now().Add(hostsRetry)
	} else {
		st.hosts = hosts
	}
	st.asked = true
	s.assort(st)
}

// assort gives a site to the first destination that has one of its hosts. s.mu is held.
func (s *Schedule) assort(st *site) {
	var found *destination
	for _, d := range s.destinations {
		patterns := route.Route{Domains: d.Hosts}
		if slices.ContainsFunc(st.hosts, patterns.Matches) {
			found = d
			break
		}
	}
	old := st.dest
	if old == found {
		return
	}
	if old != nil {
		old.active -= st.active
		if st.queued {
			st.queued = false
			old.waiting = slices.DeleteFunc(old.waiting, func(w *site) bool { return w == st })
		}
		s.attend(old)
	}
	if st.dest = found; found != nil {
		found.active += st.active
	}
}

// redistribute puts new destinations in the place of the old ones. What a rate has spent stays spent. s.mu is held.
func (s *Schedule) redistribute(list []Destination, fallback int) {
	old := s.destinations
	s.destinations = nil
	for _, x := range list {
		d := &destination{Destination: x}
		if d.Connections <= 0 {
			d.Connections = fallback
		}
		for _, o := range old {
			if o.Name == d.Name && d.Count > 0 {
				d.next = o.next
				if most := time.Now().Add(d.Per / time.Duration(d.Count)); d.next.After(most) {
					d.next = most
				}
			}
		}
		s.destinations = append(s.destinations, d)
	}
	for _, st := range s.sites.list {
		if st != nil {
			st.askAgain = time.Time{} // the routes may be others
			s.assort(st)
		}
	}
	for _, st := range s.sites.list {
		if st != nil {
			s.dispatch(st)
			s.sites.tidy(st)
		}
	}
}

// hire counts a worker at a site. s.mu is held.
func (s *Schedule) hire(st *site) {
	st.active++
	s.active++
	if st.dest != nil {
		st.dest.active++
	}
}

// dismiss undoes hire. s.mu is held.
func (s *Schedule) dismiss(st *site) {
	st.active--
	s.active--
	if st.dest != nil {
		st.dest.active--
	}
}
