// Package schedule takes what is due under the limits, delivers it, settles what came of it and has failures reported.
//
// It is the only room with goroutines over queued messages, and the only writer of a record once the message is in the
// queue. A message is leased while it is worked on; leases live in memory only, so a crash ends them and the message is
// tried again, but what was delivered to one recipient is recorded before anything else of that message is, and never
// sent again. A failure and its report are one transaction of the queue. It refuses new work while it stops, and leaves
// everything that has not ended in the queue.
package schedule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/retry"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Queue is what the schedule needs of *queue.Queue.
type Queue interface {
	Recover(ctx context.Context, fn func(*queue.Record) error) error
	Load(id queue.ID) (*queue.Record, mail.Content, error)
	Settle(rec *queue.Record, reports []*queue.Message, done func(added []*queue.Record, err error))
	Delete(id queue.ID, done func(error))
}

// Deliverer is what the schedule needs of *deliver.Deliverer.
type Deliverer interface {
	Attempt(ctx context.Context, job *deliver.Job) []deliver.Outcome
}

// Limits bound what is done at once. A zero field takes its default.
type Limits struct {
	Connections     int   // attempts at once, all sites together; default 500
	SiteConnections int   // attempts at once at one site; default 20
	Memory          int64 // bytes of new messages kept in memory for their first attempt; default 128 MiB
	SiteFailures    int   // failed connections in a row after which a site is left alone for a while; default 3

	Destinations []Destination // with limits of their own; a site keeps those of the first that has one of its hosts
}

const (
	defaultConnections     = 500
	defaultSiteConnections = 20
	defaultMemory          = 128 << 20
	defaultSiteFailures    = 3
)

func (l Limits) filled() Limits {
	fill := func(v *int, fallback int) {
		if *v <= 0 {
			*v = fallback
		}
	}
	fill(&l.Connections, defaultConnections)
	fill(&l.SiteConnections, defaultSiteConnections)
	fill(&l.SiteFailures, defaultSiteFailures)
	if l.Memory <= 0 {
		l.Memory = defaultMemory
	}
	return l
}

// Options are what a Schedule is made of.
type Options struct {
	Queue   Queue
	Routes  func() route.Table // asked for each message, so that a reload counts at once; must be cheap
	Deliver Deliverer
	Retry   retry.Policy
	Limits  Limits

	// Hosts returns the hosts that mail of a route to a domain goes to, for Limits.Destinations; domain is "" where the
	// route is one site. Nil: all sites have the same limits.
	Hosts func(ctx context.Context, route, domain string) ([]string, error)

	Events     *event.Bus
	Hostname   string       // the reporting MTA of reports
	Postmaster mail.Address // who reports come from, and who is told when a report itself fails; null: nobody

	// Bounce makes the message that tells of r, or nil when nobody is to be told. An error means that it could not be
	// made: what it was to tell of stays in the queue and comes up again. Nil: the plain report, which r.Write makes.
	Bounce func(ctx context.Context, r *Report) (*queue.Message, error)
}

// settings is the part of the options that may change while it runs.
type settings struct {
	retry  retry.Policy
	limits Limits
}

// Schedule is a running schedule. Its methods may be called by several goroutines at once.
type Schedule struct {
	o           Options
	settings    atomic.Pointer[settings]
	suspensions atomic.Pointer[[]Suspension]
	ctx         context.Context // of attempts; ends when Stop has waited long enough
	cancel      context.CancelFunc
	wake        chan struct{} // tells the timer goroutine that something is due earlier, or that it is over
	running     sync.WaitGroup

	mu           sync.Mutex
	table        table
	sites        sites
	ops          map[queue.ID]operation // asked of messages that were busy
	leases       map[queue.ID]*lease    // of several sites, still open
	idle         []chan *site           // parked workers
	destinations []*destination
	active       int       // workers that hold a slot
	settling     int       // leases that wait for the queue
	room         sync.Cond // fewer are settling now
	memory       int64     // bytes of content that leases hold
	recall       recall
	lag          int64 // KiB of new messages whose first attempt has not ended
	pace         pace
	wall         wall // of the clock goroutine alone
	started      bool
	stopping     bool
}

// maxSettling bounds the outcomes that wait for the disk: above it workers wait too, and so does what feeds them.
const maxSettling = 8192

// New makes a schedule. It does nothing until Start.
func New(o Options) *Schedule {
	if o.Bounce == nil {
		o.Bounce = func(_ context.Context, r *Report) (*queue.Message, error) {
			return r.Write(r.Failure(o.Hostname, o.Postmaster), mail.Notice{})
		}
	}
	s := &Schedule{o: o, wake: make(chan struct{}, 1), ops: map[queue.ID]operation{}, leases: map[queue.ID]*lease{}}
	s.Configure(o.Retry, o.Limits)
	s.room.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.table.init()
	s.wall.start = s.table.base.Round(0)
	s.sites.init()
	return s
}

// Configure changes the retry policy and the limits, for what begins from now on.
func (s *Schedule) Configure(p retry.Policy, l Limits) {
	l = l.filled()
	s.settings.Store(&settings{retry: p, limits: l})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redistribute(l.Destinations, l.SiteConnections)
}

// Start reads the queue and begins to deliver. ctx bounds the reading only; Stop ends the rest.
func (s *Schedule) Start(ctx context.Context) error {
	err := s.o.Queue.Recover(ctx, func(rec *queue.Record) error {
		s.remember(rec)
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopping {
		return errors.New("a schedule is started once")
	}
	s.started = true
	s.table.begin(time.Now())
	s.running.Go(s.clock)
	for _, st := range s.sites.list {
		if st != nil {
			s.dispatch(st)
		}
	}
	return nil
}

// remember makes the entry of a message that was in the queue at start.
func (s *Schedule) remember(rec *queue.Record) {
	home := s.home(rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, isNew := s.table.add(rec.ID)
	if !isNew {
		return
	}
	e, now := s.table.at(at), time.Now()
	e.of(rec)
	s.table.bear(e, rec, now)
	s.settleIn(at, home)
	if rec.Held != "" {
		s.table.become(at, held)
		return
	}
	e.stranded = s.sites.list[e.site].suspended != nil
	s.wait(at, s.dueAgain(rec, now))
}

// Offer takes a message that was just added to the queue. Its first attempt uses the content given, as long as the budget
// of memory allows, and then reads nothing from the disk; without a content it reads it. It never blocks; after Stop it does nothing, since the message
// is in the queue.
func (s *Schedule) Offer(rec *queue.Record, content mail.Content) {
	now := time.Now()
	if rec.Held != "" || s.dueAgain(rec, now).After(now) {
		s.remember(rec)
		return
	}
	l := s.newLease(rec, content)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	at, isNew := s.table.add(rec.ID)
	if !isNew {
		return
	}
	l.entry = at
	e := s.table.at(at)
	e.of(rec)
	s.table.bear(e, rec, now)
	e.kib = kib(rec.Size)
	s.lag += int64(e.kib)
	s.settleIn(at, l.home)
	if content == nil || s.memory+l.bytes > s.settings.Load().limits.Memory {
		s.ready(at) // the disk has it, and will be read
		return
	}
	s.memory += l.bytes
	s.table.become(at, ready)
	s.spread(l)
}

// kib returns the size of a message in KiB, at least 1.
func kib(size int64) uint32 { return uint32(min(size>>10+1, 1<<31)) }

// Pressure says how far output lags behind input: the size of the new messages whose first attempt has not ended, as a
// share of the memory budget. Up to 1 they are in memory; above, first attempts must read the disk, and a server that
// goes on accepting only makes its queue longer.
func (s *Schedule) Pressure() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.lag<<10) / float64(s.settings.Load().limits.Memory)
}

// clock is the one goroutine that waits for messages to become due.
func (s *Schedule) clock() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.watchWall(time.Now())
		wait, over := s.ripen()
		if over {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		}
	}
}

const (
	ripenAtOnce = 512         // entries that become due under one hold of the lock
	longWait    = time.Minute // the clock looks at least so often
)

// ripen makes ready what is due and returns how long nothing else will be.
func (s *Schedule) ripen() (wait time.Duration, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	paced := s.pour(now)
	if s.search(now) {
		paced = 0
	}
	for range ripenAtOnce {
		at, due, ok := s.table.first()
		if !ok {
			return paced, s.stopping
		}
		if wait := due.Sub(now); wait > 0 {
			return min(wait, paced), s.stopping
		}
		s.table.unwait(at)
		if s.table.at(at).state == leased {
			s.hurry(at)
			continue
		}
		s.ready(at)
	}
	return 0, s.stopping
}

// wait puts an entry to sleep until it is due. s.mu is held.
func (s *Schedule) wait(at uint32, due time.Time) {
	s.table.become(at, waiting)
	s.alarm(at, due)
}

// alarm has the clock come back to an entry. s.mu is held.
func (s *Schedule) alarm(at uint32, due time.Time) {
	if s.table.wait(at, due) { // it is the first now
		s.nudge()
	}
}

func (s *Schedule) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stopGrace is how long Stop waits for attempts that it has cut short, so that what they came to is recorded.
const stopGrace = 2 * time.Second

// Stop begins no new attempt and waits for the running ones, and for the queue to record them, until ctx is done; then it
// cuts them short and returns ctx's error. What has not ended stays in the queue.
func (s *Schedule) Stop(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		for _, w := range s.idle {
			close(w)
		}
		s.idle = nil
		s.pace.release(len(s.pace.waiting))
		s.room.Broadcast()
		s.nudge()
	}
	s.mu.Unlock()
	defer s.cancel()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		s.settled()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
	}
	return ctx.Err()
}

// settled waits until the queue has recorded everything.
func (s *Schedule) settled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.settling > 0 {
		s.room.Wait()
	}
}
