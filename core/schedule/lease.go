package schedule

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// lease is a message that is worked on: its record, its content and a job for each site that it goes to. The record is
// changed only by whoever records the lease, one at a time.
type lease struct {
	entry     uint32
	id        queue.ID
	name      string        // the ID in letters
	was       state         // before a verb took it
	rec       *queue.Record // nil until it is loaded
	content   mail.Content
	bytes     int64   // counted in Schedule.memory
	home      siteKey // what its entry waits for
	open      int     // jobs that have not ended
	begun     bool
	late      bool   // it has been open so long that failures are told of as they come
	tried     bool   // some recipient was attempted
	recording bool   // the queue, or somebody who makes a report, is at it
	ended     []*job // and not recorded, or not all of it
	asker     chan<- error

	first job
	more  []*job
	// Room for what nearly every message needs, so that it needs no allocation of its own.
	oneRecipient [1]mail.Recipient
	oneIndex     [1]int
	oneEnded     [1]*job
}

// job is the recipients of a lease at one site.
type job struct {
	next     *job
	lease    *lease
	site     *site
	key      siteKey
	final    bool // the route ends in a mailbox
	routed   bool // a router says where: what one host does says nothing of the next
	indexes  []int
	to       []mail.Recipient
	outcomes []deliver.Outcome // one for each of to, or none; a zero Class has been dealt with
	probe    bool              // it finds out whether the site takes connections again
	word     *deliver.Outcome  // of a site that takes none: it is not asked, and this is the answer
	stranded bool              // its site is not asked
	skip     bool              // an operator wants something else done
	request  *deliver.Job      // for its attempt
	behind   *job              // goes out right behind it, and is the next one of its worker
}

// of notes what is to be known of the job's route, which may be nil.
func (j *job) of(r *route.Route) {
	j.final, j.routed = r != nil && r.Kind.Final(), r != nil && r.Kind == route.Router
}

// leaseOverhead is about what a lease costs in memory beside its content.
const leaseOverhead = 2 << 10

func (s *Schedule) newLease(rec *queue.Record, content mail.Content) *lease {
	l := &lease{id: rec.ID, name: rec.ID.String(), rec: rec, content: content, bytes: leaseOverhead}
	if content != nil {
		l.bytes += content.Size()
	}
	l.divide(s.o.Routes())
	return l
}

// divide makes a job of the pending recipients of each site. A message that has none left gets a job that does nothing.
func (l *lease) divide(t route.Table) {
	l.first.lease, l.first.key = l, nowhere
	l.first.indexes, l.first.to = l.oneIndex[:0], l.oneRecipient[:0]
	byKey := map[siteKey]*job(nil)
	for i := range l.rec.Recipients {
		rcpt := &l.rec.Recipients[i]
		if rcpt.State != queue.Pending {
			continue
		}
		r := t.Take(rcpt.Address)
		key := keyOf(r, rcpt.Address)
		j := &l.first
		switch {
		case len(j.to) == 0:
			j.key = key
			j.of(r)
		case j.key != key:
			if byKey == nil {
				byKey = map[siteKey]*job{}
			}
			if j = byKey[key]; j == nil {
				j = &job{lease: l, key: key}
				j.of(r)
				byKey[key] = j
				l.more = append(l.more, j)
			}
		}
		j.indexes, j.to = append(j.indexes, i), append(j.to, rcpt.Recipient)
	}
	l.open = 1 + len(l.more)
	l.home = l.first.key
	if l.more != nil {
		l.home = unsorted
	}
}

// home returns the site that a message waits for.
func (s *Schedule) home(rec *queue.Record) siteKey {
	t := s.o.Routes()
	home, found := nowhere, false
	for i := range rec.Recipients {
		if rec.Recipients[i].State != queue.Pending {
			continue
		}
		a := rec.Recipients[i].Address
		key := keyOf(t.Take(a), a)
		if found && key != home {
			return unsorted
		}
		home, found = key, true
	}
	return home
}

// spread gives the jobs of a lease to their sites. s.mu is held.
func (s *Schedule) spread(l *lease) {
	if l.more != nil {
		s.leases[l.id] = l
	}
	s.assign(&l.first)
	for _, j := range l.more {
		s.assign(j)
	}
}

func (s *Schedule) assign(j *job) {
	st := s.sites.get(j.key)
	st.leases++
	j.site = st
	st.pushJob(j)
	s.dispatch(st)
}

// settleAfter is how long a message to several sites waits for the slowest before the failures at the others are recorded
// and told of; what was delivered is recorded at once.
const settleAfter = 10 * time.Second

// begin notes that a worker has taken a job, and whether it may be attempted. s.mu is held.
func (s *Schedule) begin(j *job) {
	l := j.lease
	if !l.begun {
		l.begun = true
		s.table.become(l.entry, leased)
		if s.ops[l.id].kind == doRetry { // here it is
			delete(s.ops, l.id)
			s.table.at(l.entry).busy = false
		}
		if l.more != nil {
			s.alarm(l.entry, time.Now().Add(settleAfter))
		}
	}
	if s.table.at(l.entry).busy {
		j.skip = s.ops[l.id].kind != doRetry
	}
	if j.skip {
		return
	}
	t := j.site.trouble
	switch {
	case s.shut(j.site, time.Now()):
		var word deliver.Outcome
		if x := j.site.suspended; x != nil {
			word = x.outcome()
		} else {
			word = t.outcome
		}
		j.word, j.stranded = &word, true
		return
	case t != nil && t.failures >= s.settings.Load().limits.SiteFailures:
		t.probing, j.probe = true, true
	}
	s.spend(j.site.dest)
}

// run does a job: reads the message if it is not in memory, attempts it, and notes what came of it.
func (s *Schedule) run(j *job) {
	l := j.lease
	if l.rec == nil && !s.load(j) {
		return
	}
	switch {
	case j.skip || len(j.to) == 0:
	case j.key == nowhere:
		j.word = &deliver.Outcome{Class: deliver.TempFail, Phase: "resolve", Reply: noRoute}
		j.fill()
	case j.word != nil, j.request == nil && s.keep(j): // what was begun behind another has a connection, and goes on
		j.fill()
	default:
		s.attempt(j)
	}
	s.ended(j)
}

var noRoute = mail.NewReply(451, "4.3.5", "no route takes this recipient")

// fill gives every recipient of the job the same word.
func (j *job) fill() {
	j.word.Time = time.Now()
	j.outcomes = make([]deliver.Outcome, len(j.to))
	for i := range j.outcomes {
		j.outcomes[i] = *j.word
	}
}

// load reads the message of a job that waited, and reports whether the job can go on: its recipients may belong to other
// sites now, and then it is theirs.
func (s *Schedule) load(j *job) bool {
	l := j.lease
	rec, content, err := s.o.Queue.Load(l.id)
	if err != nil {
		s.lost(j, err)
		return false
	}
	l.rec, l.content = rec, content
	if j.skip {
		l.first.key = j.site.key
		return true
	}
	l.divide(s.o.Routes())
	if l.more == nil && j.key == j.site.key {
		return true
	}
	moved := s.newLease(rec, content)
	moved.entry, moved.bytes = l.entry, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(j)
	s.move(l.entry, moved.home)
	s.table.become(l.entry, ready)
	s.spread(moved)
	return false
}

// lost deals with a message that can't be read: one that is gone is forgotten, any other is tried later.
func (s *Schedule) lost(j *job, err error) {
	s.o.Events.Emit(event.Event{Name: event.Warning, ID: j.lease.name, Reason: "the message can't be read from the queue", Err: err})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(j)
	at := j.lease.entry
	if errors.Is(err, queue.ErrNotFound) {
		s.forget(at)
		return
	}
	s.wait(at, s.settings.Load().retry.Next(1, time.Now(), 0.5))
}

// giveBack undoes begin for a job that makes no attempt. s.mu is held.
func (s *Schedule) giveBack(j *job) {
	j.site.leases--
	j.noProbe()
}

// noProbe notes that a job finds out nothing, or no more. s.mu is held.
func (j *job) noProbe() {
	if j.probe && j.site.trouble != nil {
		j.site.trouble.probing = false
	}
}

// forget removes the entry of a message that is no more. s.mu is held.
func (s *Schedule) forget(at uint32) {
	e := s.table.at(at)
	s.caughtUp(e)
	if e.busy {
		delete(s.ops, e.id)
	}
	s.leave(at)
	s.table.remove(at)
}

// caughtUp notes that the first attempt of a message has ended. s.mu is held.
func (s *Schedule) caughtUp(e *entry) {
	if e.kib > 0 {
		s.lag -= int64(e.kib)
		e.kib = 0
		s.pace.release(1)
	}
}

// attempt has the job delivered.
func (s *Schedule) attempt(j *job) {
	if j.request == nil {
		j.request = s.requestFor(j)
	}
	j.outcomes = s.deliver(j.request)
	j.request = nil
	if s.ctx.Err() != nil {
		// Stop cut it short: what failed for that counts for nothing.
		for i := range j.outcomes {
			if j.outcomes[i].Class == deliver.TempFail {
				j.outcomes[i].Class = 0
			}
		}
	}
	s.mu.Lock()
	s.observe(j)
	s.mu.Unlock()
}

// requestFor makes what the Deliverer is asked for.
func (s *Schedule) requestFor(j *job) *deliver.Job {
	l := j.lease
	d := &deliver.Job{
		ID: l.name, Route: j.key.route, Domain: j.to[0].Address.Domain(), Envelope: l.rec.Envelope,
		Content: l.content, Attempt: l.rec.Attempts + 1, Received: l.rec.Received, Meta: l.rec.Meta,
	}
	d.Envelope.To = j.to
	d.Next = func() *deliver.Job {
		if j.behind = s.follow(j.site); j.behind == nil {
			return nil
		}
		j.behind.request = s.requestFor(j.behind)
		return j.behind.request
	}
	return d
}

var trouble451 = mail.NewReply(451, "4.3.0", "the delivery failed for a reason of ours, and will be tried again")

// deliver calls the Deliverer and makes sure of one legal outcome for each recipient. A panic over one message must not
// take the others with it, now or after each restart.
func (s *Schedule) deliver(d *deliver.Job) (outcomes []deliver.Outcome) {
	var err error
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		} else if len(outcomes) != len(d.Envelope.To) {
			err = fmt.Errorf("%d outcomes for %d recipients", len(outcomes), len(d.Envelope.To))
		}
		if err != nil {
			s.o.Events.Emit(event.Event{Name: event.Warning, ID: d.ID, Route: d.Route, Reason: "the attempt went wrong", Err: err})
			outcomes = make([]deliver.Outcome, len(d.Envelope.To))
		}
		for i := range outcomes {
			if o := &outcomes[i]; o.Class < deliver.Delivered || o.Class > deliver.PermFail {
				*o = deliver.Outcome{Class: deliver.TempFail, Reply: trouble451, Time: time.Now(), Err: err}
			}
		}
	}()
	return s.o.Deliver.Attempt(s.ctx, d)
}

// observe learns from an attempt whether its site takes connections. s.mu is held.
func (s *Schedule) observe(j *job) {
	st := j.site
	j.noProbe()
	if j.routed {
		return
	}
	switch unreachable(j.outcomes) {
	case reached:
		s.climb(st)
	case notReached:
		if st.trouble == nil {
			st.trouble = &trouble{since: time.Now()}
		}
		t, set := st.trouble, s.settings.Load()
		t.failures++
		t.outcome = j.outcomes[0]
		// The shortest that the policy allows: whoever is due after that may find out.
		t.until = set.retry.Next(1, time.Now(), 0)
	}
}

// climb notes that a site was reached: out of its trouble, and one worker further from it. s.mu is held.
func (s *Schedule) climb(st *site) {
	switch {
	case st.trouble != nil:
		st.trouble, st.ramp = nil, slowStart
		s.callBack(st)
	case st.ramp > 0:
		st.ramp++
	default:
		return
	}
	ramp := st.ramp
	if st.ramp = 0; ramp < s.mayConnect(st) {
		st.ramp = ramp
	}
}

type reach uint8

const (
	unknown reach = iota
	reached
	notReached
)

// unreachable tells an attempt that did not come as far as talking about mail.
func unreachable(outcomes []deliver.Outcome) reach {
	for i := range outcomes {
		o := &outcomes[i]
		if o.Class == 0 {
			return unknown // cut short
		}
		if o.Class != deliver.TempFail {
			return reached
		}
		switch o.Phase {
		case "resolve", "connect", "tls", "helo":
		default:
			return reached
		}
	}
	return notReached
}

// ended notes that a job is done with, and records the lease if it is time.
func (s *Schedule) ended(j *job) {
	l := j.lease
	s.mu.Lock()
	j.site.leases--
	l.open--
	if l.more == nil { // else a recording may be reading it
		l.ended = l.oneEnded[:0]
	}
	l.ended = append(l.ended, j)
	record := s.mayRecord(l)
	s.mu.Unlock()
	if record {
		s.record(l)
	}
}

// mayRecord reports whether the caller is to record the lease now, which nobody else does then. s.mu is held.
func (s *Schedule) mayRecord(l *lease) bool {
	if l.recording || l.open > 0 && !l.hasNews() {
		return false
	}
	l.recording = true
	s.settling++
	return true
}

// hasNews reports whether something has ended that is recorded while jobs are open: what was delivered, and when they
// take long anything.
func (l *lease) hasNews() bool {
	if l.late {
		return len(l.ended) > 0
	}
	for _, j := range l.ended {
		for i := range j.outcomes {
			if j.outcomes[i].Class == deliver.Delivered {
				return true
			}
		}
	}
	return false
}

// stranded reports whether what is left of the message waits for a site that is not asked.
func (l *lease) stranded(home siteKey) bool {
	if l.first.key == home {
		return l.first.stranded
	}
	return slices.ContainsFunc(l.more, func(j *job) bool { return j.key == home && j.stranded })
}

// hurry records what has ended of a lease whose slowest job takes too long. s.mu is held.
func (s *Schedule) hurry(at uint32) {
	l := s.leases[s.table.at(at).id]
	if l == nil {
		return
	}
	l.late = true
	if s.mayRecord(l) {
		go s.record(l)
	}
}
