package schedule

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/retry"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// store is a queue in memory that keeps copies, as a disk does, and answers from a committer of its own.
type store struct {
	t       testing.TB
	mu      sync.Mutex
	last    queue.ID
	records map[queue.ID]*queue.Record
	content map[queue.ID]mail.Content
	settles map[queue.ID]int
	loads   int
	commits chan func()
	broken  error         // what Settle says from now on
	delay   time.Duration // of each commit
}

func newStore(t testing.TB) *store {
	q := &store{
		t: t, records: map[queue.ID]*queue.Record{}, content: map[queue.ID]mail.Content{}, settles: map[queue.ID]int{},
		commits: make(chan func(), 1<<16),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f := range q.commits {
			if q.delay > 0 {
				time.Sleep(q.delay) // virtual
			}
			f()
		}
	}()
	t.Cleanup(func() { close(q.commits); <-done })
	return q
}

func clone(r *queue.Record) *queue.Record {
	c := *r
	c.Recipients, c.Meta = slices.Clone(r.Recipients), maps.Clone(r.Meta)
	return &c
}

// add is what an accepted message does to the queue.
func (q *store) add(m *queue.Message) *queue.Record {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	r := &queue.Record{ID: q.last, Envelope: m.Envelope, Size: m.Content.Size(), Received: m.Received, Held: m.Held, Meta: maps.Clone(m.Meta)}
	if r.Received.IsZero() {
		r.Received = time.Now()
	}
	r.Next = r.Received
	for _, to := range m.Envelope.To {
		r.Recipients = append(r.Recipients, queue.Recipient{Recipient: to})
	}
	r.Envelope.To = nil
	q.records[r.ID], q.content[r.ID] = clone(r), m.Content
	return r
}

func (q *store) Recover(_ context.Context, fn func(*queue.Record) error) error {
	q.mu.Lock()
	ids := slices.Sorted(maps.Keys(q.records))
	q.mu.Unlock()
	for _, id := range ids {
		if err := fn(q.get(id)); err != nil {
			return err
		}
	}
	return nil
}

func (q *store) get(id queue.ID) *queue.Record {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.records[id]; r != nil {
		return clone(r)
	}
	return nil
}

func (q *store) Load(id queue.ID) (*queue.Record, mail.Content, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.loads++
	r := q.records[id]
	if r == nil {
		return nil, nil, queue.ErrNotFound
	}
	return clone(r), q.content[id], nil
}

func (q *store) Settle(rec *queue.Record, reports []*queue.Message, done func([]*queue.Record, error)) {
	kept := clone(rec)
	q.commits <- func() {
		added, err := q.settle(kept, reports)
		done(added, err)
	}
}

func (q *store) settle(rec *queue.Record, reports []*queue.Message) ([]*queue.Record, error) {
	q.mu.Lock()
	old := q.records[rec.ID]
	err := q.broken
	q.settles[rec.ID]++
	q.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, queue.ErrNotFound
	}
	for i := range rec.Recipients {
		if was, is := old.Recipients[i].State, rec.Recipients[i].State; was != is && was != queue.Pending {
			q.t.Errorf("recipient %d moves from %s to %s", i, was, is)
		}
	}
	var added []*queue.Record
	for _, m := range reports {
		added = append(added, q.add(m))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.records[rec.ID] = rec; len(rec.Pending()) == 0 {
		delete(q.records, rec.ID)
	}
	return added, nil
}

func (q *store) Delete(id queue.ID, done func(error)) {
	q.commits <- func() {
		q.mu.Lock()
		delete(q.records, id)
		q.mu.Unlock()
		done(nil)
	}
}

func (q *store) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records)
}

// attempt is what a fake deliverer was asked.
type attempt struct {
	job   deliver.Job
	time  time.Time // when it began
	begun bool      // behind another one
}

// net delivers as it is told, domain by domain.
type net struct {
	mu       sync.Mutex
	attempts []attempt
	answer   func(*deliver.Job, mail.Recipient) deliver.Outcome
	before   func(context.Context, *deliver.Job) // may block
	begun    map[*deliver.Job]time.Time          // behind another one, and not attempted yet
	handed   func()                              // is called each time that one is begun
}

func (n *net) Attempt(ctx context.Context, j *deliver.Job) []deliver.Outcome {
	n.mu.Lock()
	at, begun := n.begun[j]
	if !begun {
		at = time.Now()
	}
	delete(n.begun, j)
	n.attempts = append(n.attempts, attempt{*j, at, begun})
	answer, before := n.answer, n.before
	n.mu.Unlock()
	if before != nil {
		before(ctx, j)
	}
	var out []deliver.Outcome
	for _, to := range j.Envelope.To {
		o := delivered
		if answer != nil {
			o = answer(j, to)
		}
		o.Time = time.Now()
		out = append(out, o)
	}
	if slices.ContainsFunc(out, func(o deliver.Outcome) bool { return o.Phase == "dot" }) {
		n.goOn(j)
	}
	return out
}

// goOn begins the next job behind this one, as far as there is one.
func (n *net) goOn(j *deliver.Job) {
	next := j.Next()
	if next == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begun == nil {
		n.begun = map[*deliver.Job]time.Time{}
	}
	n.begun[next] = time.Now()
	if n.handed != nil {
		n.handed()
	}
}

func (n *net) made() []attempt {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.attempts)
}

// to returns the attempts at an address.
func (n *net) to(address string) (list []attempt) {
	for _, a := range n.made() {
		for _, r := range a.job.Envelope.To {
			if r.Address.String() == address {
				list = append(list, a)
			}
		}
	}
	return list
}

func outcome(class deliver.Class, phase, host, text string) deliver.Outcome {
	code := map[deliver.Class]int{deliver.Delivered: 250, deliver.TempFail: 451, deliver.PermFail: 550}[class]
	return deliver.Outcome{Class: class, Phase: phase, Host: host, Reply: mail.Reply{Code: code, Text: text}}
}

var (
	delivered = outcome(deliver.Delivered, "dot", "mx.example.net", "ok")
	later     = outcome(deliver.TempFail, "rcpt", "mx.example.net", "greylisted")
	never     = outcome(deliver.PermFail, "rcpt", "mx.example.net", "no such mailbox")
	dead      = outcome(deliver.TempFail, "connect", "", "no host takes connections")
)

// byDomain answers with the outcome of the recipient's domain, and delivers to all others.
func byDomain(m map[string]deliver.Outcome) func(*deliver.Job, mail.Recipient) deliver.Outcome {
	return func(_ *deliver.Job, r mail.Recipient) deliver.Outcome {
		if o, ok := m[r.Address.Domain()]; ok {
			return o
		}
		return delivered
	}
}

// world is a schedule with everything around it.
type world struct {
	*Schedule
	t      testing.TB
	queue  *store
	net    *net
	mu     sync.Mutex
	events []event.Event
}

var exactly = retry.Policy{Delays: []time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute}, WarnAfter: 4 * time.Hour, Expire: 5 * 24 * time.Hour}

var routes = route.Table{
	{Name: "local", Kind: route.Store, Domains: []string{"example.com"}, Local: true},
	{Name: "partner", Kind: route.Smarthost, Domains: []string{"partner.example", "*.partner.example"}},
	{Name: "internet", Kind: route.MX},
}

// newWorld makes a schedule that is started and stopped with the test.
func newWorld(t testing.TB, change func(*Options)) *world {
	t.Helper()
	w := prepare(t, newStore(t), change)
	w.start()
	return w
}

func prepare(t testing.TB, q *store, change func(*Options)) *world {
	w := &world{t: t, queue: q, net: &net{}}
	bus := new(event.Bus)
	bus.Listen(func(e event.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	o := Options{
		Queue: q, Routes: func() route.Table { return routes }, Deliver: w.net, Retry: exactly, Events: bus,
		Hostname: "mx1.example.com", Postmaster: mail.MustParseAddress("postmaster@example.com"),
	}
	if change != nil {
		change(&o)
	}
	w.Schedule = New(o)
	return w
}

func (w *world) start() {
	w.t.Helper()
	if err := w.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := w.Stop(context.Background()); err != nil {
			w.t.Error(err)
		}
		w.balanced()
	})
}

// balanced checks that nothing is counted that is not there any more.
func (w *world) balanced() {
	w.t.Helper()
	w.Schedule.mu.Lock()
	defer w.Schedule.mu.Unlock()
	for _, d := range w.destinations {
		if n := len(d.waiting); len(w.table.byID) == 0 && (d.active != 0 || n != 0) {
			w.t.Errorf("left over at destination %q: %d workers, %d sites that wait", d.Name, d.active, n)
		}
	}
	if n := len(w.net.begun); n != 0 {
		w.t.Errorf("%d jobs were begun and never attempted", n)
	}
	if len(w.table.byID) == 0 && w.queue.broken == nil {
		if w.memory != 0 || w.lag != 0 || w.active != 0 || len(w.leases) != 0 || len(w.ops) != 0 || len(w.sites.byKey) != 0 || len(w.table.heap) != 0 {
			w.t.Errorf("left over: memory %d, lag %d, active %d, leases %d, ops %d, sites %d, heap %d",
				w.memory, w.lag, w.active, len(w.leases), len(w.ops), len(w.sites.byKey), len(w.table.heap))
		}
	}
}

func (w *world) seen(name event.Name) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Name == name {
			n++
		}
	}
	return n
}

const body = "From: ann@example.org\r\nSubject: Lunch\r\nMessage-ID: <1@example.org>\r\n\r\nhello\r\n"

// message makes a message from ann@example.org.
func message(to ...string) *queue.Message {
	m := &queue.Message{Content: mail.Bytes([]byte(body))}
	m.Envelope.From = mail.MustParseAddress("ann@example.org")
	for _, a := range to {
		m.Envelope.To = append(m.Envelope.To, mail.Recipient{Address: mail.MustParseAddress(a)})
	}
	return m
}

// accept does what the server does with a message: adds it and offers it.
func (w *world) accept(m *queue.Message) queue.ID {
	r := w.queue.add(m)
	w.Offer(r, m.Content)
	return r.ID
}

// reports returns the jobs that carried a report to the address.
func (w *world) reports(to string) (list []deliver.Job) {
	for _, a := range w.net.to(to) {
		if a.job.Envelope.From.IsNull() {
			list = append(list, a.job)
		}
	}
	return list
}

var errReport = errors.New("no report today")
