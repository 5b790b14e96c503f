package schedule

import (
	"strings"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// siteKey names a site: what shares connections, limits and back-off. An mx route has a site for each domain, every other
// route is one site.
type siteKey struct{ route, domain string }

// The sites that are none: messages whose record must be read before their sites are known, and recipients that no route
// takes.
var (
	unsorted = siteKey{domain: "unsorted"}
	nowhere  = siteKey{domain: "nowhere"}
)

// keyOf returns the site of an address.
func keyOf(r *route.Route, a mail.Address) siteKey {
	switch {
	case r == nil:
		return nowhere
	case r.Kind == route.MX:
		return siteKey{r.Name, a.Domain()}
	default:
		return siteKey{route: r.Name}
	}
}

// site is a destination and what is ready for it.
type site struct {
	key       siteKey
	lanes     [lanes]lane // what is ready, the urgent first
	entries   int         // that wait for it, in any state
	leases    int         // jobs that are ready or running
	readyJobs int         // in all lanes
	readyDue  int
	active    int // workers
	starting  int // of these, have taken nothing yet
	ramp      int // workers that it may have so soon after its trouble; 0: as many as the limits say
	trouble   *trouble
	suspended *Suspension
	nextSite  *site // in the list of sites that wait for a slot

	dest     *destination // whose limits it keeps; nil: those of every site
	hosts    []string     // that it sends to, as they were last asked for
	askAgain time.Time

	// Side by side, since there may be as many sites as messages.
	index  uint32
	turns  uint8 // see lane
	turn   bool  // whose turn it is: due, else jobs
	hungry bool  // in the list of sites that wait for a slot
	queued bool  // in the list of those that wait for dest
	asked  bool  // hosts were, at least once
}

// trouble is what is known of a site that takes no connections.
type trouble struct {
	failures int // in a row
	since    time.Time
	until    time.Time // no connection before
	probing  bool      // one attempt is finding out
	outcome  deliver.Outcome
}

// sites is all sites that something waits for.
type sites struct {
	list   []*site // by index; nil where unused
	unused []uint32
	byKey  map[siteKey]*site
	hungry struct{ first, last *site }

	suspensions []Suspension
}

func (ss *sites) init() { ss.byKey = map[siteKey]*site{} }

// get returns the site of that key, and makes it if need be.
func (ss *sites) get(key siteKey) *site {
	if st := ss.byKey[key]; st != nil {
		return st
	}
	// The copies keep no larger string alive.
	key = siteKey{strings.Clone(key.route), strings.Clone(key.domain)}
	st := &site{key: key, suspended: ss.suspension(key)}
	if n := len(ss.unused); n > 0 {
		st.index, ss.unused = ss.unused[n-1], ss.unused[:n-1]
		ss.list[st.index] = st
	} else {
		st.index = uint32(len(ss.list))
		ss.list = append(ss.list, st)
	}
	ss.byKey[key] = st
	return st
}

// tidy forgets a site that nothing waits for.
func (ss *sites) tidy(st *site) {
	if st.entries > 0 || st.leases > 0 || st.active > 0 || st.hungry || st.queued || ss.byKey[st.key] != st {
		return
	}
	delete(ss.byKey, st.key)
	ss.list[st.index] = nil
	ss.unused = append(ss.unused, st.index)
}

// starve puts a site at the end of the list of those that wait for a slot.
func (ss *sites) starve(st *site) {
	if st.hungry {
		return
	}
	st.hungry, st.nextSite = true, nil
	if ss.hungry.last == nil {
		ss.hungry.first = st
	} else {
		ss.hungry.last.nextSite = st
	}
	ss.hungry.last = st
}

// feed takes the first site off that list, or returns nil.
func (ss *sites) feed() *site {
	st := ss.hungry.first
	if st == nil {
		return nil
	}
	if ss.hungry.first = st.nextSite; ss.hungry.first == nil {
		ss.hungry.last = nil
	}
	st.hungry, st.nextSite = false, nil
	return st
}

// settleIn makes an entry wait for the site of that key from now on. s.mu is held.
func (s *Schedule) settleIn(at uint32, key siteKey) {
	st := s.sites.get(key)
	st.entries++
	s.table.at(at).site = st.index
}

// move makes an entry wait for another site, or for the same one, of which nothing is forgotten then. s.mu is held.
func (s *Schedule) move(at uint32, key siteKey) {
	old := s.sites.list[s.table.at(at).site]
	s.settleIn(at, key)
	old.entries--
	s.sites.tidy(old)
}

// leave takes an entry from its site. s.mu is held.
func (s *Schedule) leave(at uint32) {
	st := s.sites.list[s.table.at(at).site]
	st.entries--
	s.sites.tidy(st)
}

// ready gives an entry that is in no list to the workers of its site. s.mu is held.
func (s *Schedule) ready(at uint32) {
	s.table.become(at, ready)
	st := s.sites.list[s.table.at(at).site]
	s.pushDue(st, at)
	s.dispatch(st)
}

// slowStart is how many workers a site gets that takes no connections, and with how many it begins when it does again.
const slowStart = 2

// mayConnect returns how many workers a site may have. One that takes no connections gets few, so that slots are not
// spent on waiting for it. One that has come back gets one more with each attempt that reaches it: the whole backlog at
// once would bring it down again.
func (s *Schedule) mayConnect(st *site) int {
	n := s.settings.Load().limits.SiteConnections
	if st.dest != nil {
		n = st.dest.Connections
	}
	switch {
	case s.undecided(st):
		return 1 // which finds out
	case st.trouble != nil, st.suspended != nil:
		return min(n, slowStart)
	case st.ramp > 0:
		return min(n, st.ramp)
	}
	return n
}

// dispatch starts workers for what is ready at a site, or notes that it waits for slots. s.mu is held.
func (s *Schedule) dispatch(st *site) {
	if !s.started || s.stopping {
		return
	}
	most := s.mayConnect(st)
	for st.active < most && st.starting < st.readyJobs+st.readyDue {
		if !st.dest.mayBegin(time.Now()) {
			s.queueUp(st)
			return
		}
		if s.active >= s.settings.Load().limits.Connections {
			s.sites.starve(st)
			return
		}
		s.hire(st)
		st.starting++
		s.employ(st)
		if st.dest != nil && st.dest.Count > 0 {
			return // there is room for another when this one has begun
		}
	}
}

// keptIdle is how many workers wait for work with their stacks warm.
const keptIdle = 64

// employ gives a worker to a site: one that is idle, or a new one. s.mu is held.
func (s *Schedule) employ(st *site) {
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle = s.idle[:n-1]
		w <- st // it holds one, so this never waits
		return
	}
	s.running.Go(func() { s.work(st) })
}

// work is a worker: it takes what is ready at a site, message by message, then at the next site that needs it, and is
// parked when there is none.
func (s *Schedule) work(st *site) {
	var parked chan *site
	fresh := true
	for {
		j := s.next(&st, fresh)
		fresh = false
		if j != nil {
			for j != nil {
				s.run(j)
				behind := j.behind
				j.behind = nil // a lease that stays open holds no others
				j = behind
			}
			continue
		}
		if parked == nil {
			parked = make(chan *site, 1)
		}
		if !s.park(parked) {
			return
		}
		var ok bool
		if st, ok = <-parked; !ok {
			return
		}
		fresh = true
	}
}

// park puts a worker among the idle ones and reports whether it may stay.
func (s *Schedule) park(w chan *site) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.idle) >= keptIdle {
		return false
	}
	s.idle = append(s.idle, w)
	return true
}

// next returns the next job of a worker, at its site or at the one that it is moved to; nil when it has lost its slot.
func (s *Schedule) next(at **site, fresh bool) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := *at
	if fresh {
		st.starting--
	}
	for s.settling >= maxSettling && !s.stopping {
		s.room.Wait()
	}
	if !fresh && (s.sites.hungry.first != nil || st.dest.crowded()) {
		st = s.handOver(st)
	}
	for st != nil {
		s.passOver(st)
		if s.stopping || !st.hasWork() || st.active > s.mayConnect(st) || st.dest.exceeded(time.Now()) {
			st = s.handOver(st)
			continue
		}
		if s.outdated(st) {
			s.ask(st)
			continue
		}
		*at = st
		j := s.pick(st)
		s.dispatch(st)
		return j
	}
	return nil
}

// handOver moves a worker's slot to the site that has waited longest for one, so that no site keeps the slots that
// another needs: the one left goes to the end of the list. It returns nil when no site waits. s.mu is held.
func (s *Schedule) handOver(from *site) *site {
	s.dismiss(from)
	if s.stopping {
		s.sites.tidy(from)
		return nil
	}
	d := from.dest
	defer s.attend(d) // who is called up may have nothing left to send
	switch {
	case !from.hasWork() || from.active >= s.mayConnect(from):
		s.sites.tidy(from)
	case d != nil:
		s.queueUp(from)
	default:
		s.sites.starve(from)
	}
	if st := s.callUp(d); st != nil {
		s.sites.starve(st) // for a slot; the others wait for their destination
	}
	for st := s.sites.feed(); st != nil; st = s.sites.feed() {
		if !st.hasWork() || st.active >= s.mayConnect(st) {
			s.sites.tidy(st)
			continue
		}
		if !st.dest.mayBegin(time.Now()) {
			s.queueUp(st)
			continue
		}
		s.hire(st)
		if st.dest == nil && st.readyJobs+st.readyDue > 1 && st.active < s.mayConnect(st) {
			s.sites.starve(st)
		}
		return st
	}
	return nil
}

// pick takes what is ready at a site, the most urgent first, and of that in turn what is in memory and what must be read, so that
// neither holds up the other. s.mu is held.
func (s *Schedule) pick(st *site) *job {
	from, inMemory := st.inTurn()
	st.turn = !st.turn
	st.turns++
	if inMemory {
		j := st.popJob(from)
		s.begin(j)
		return j
	}
	at := s.popDue(st, from)
	s.table.become(at, leased)
	id := s.table.at(at).id
	l := &lease{entry: at, id: id, name: id.String(), open: 1}
	l.first = job{lease: l, site: st}
	st.leases++
	s.begin(&l.first)
	return &l.first
}

// follow returns the job that goes out behind the one that a worker of the site is at: the one that next would return, if
// its message is in memory and nothing is to be seen to before it.
func (s *Schedule) follow(st *site) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping, s.settling >= maxSettling, s.sites.hungry.first != nil, st.dest.crowded():
		return nil
	case st.trouble != nil, st.suspended != nil, st.active > s.mayConnect(st), st.dest.exceeded(time.Now()), s.outdated(st):
		return nil
	case !st.hasWork():
		return nil
	}
	from, inMemory := st.inTurn()
	if !inMemory || s.table.at(from.jobs.lease.entry).busy || s.suspensionOf(from.jobs.lease.rec) != nil {
		return nil // nor where an operator wants something else done
	}
	j := s.pick(st)
	s.dispatch(st)
	return j
}
