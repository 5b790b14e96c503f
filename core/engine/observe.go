package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

const (
	maxKept        = 10_000 // events that wait for one observer
	maxBatch       = 256
	observeTimeout = 10 * time.Second
	observeRetry   = time.Second
	maxObserveWait = 30 * time.Second
	lastWords      = 2 * time.Second // for what still waits when an observer is taken off
)

// observers hands events to the plugins that observe. Each has an outbox in memory, which a reload leaves alone: what is
// in it is told again until the plugin has taken it. An outbox that is full takes no more, and counts what it could not
// take; what was not told before the server ends is lost.
type observers struct {
	tell func(ctx context.Context, label string, events []mail.Event) error

	mu    sync.Mutex // held by what changes the list
	boxes atomic.Pointer[[]*outbox]
}

// outbox is what waits for one observer.
type outbox struct {
	label string
	tell  func(ctx context.Context, label string, events []mail.Event) error
	lost  atomic.Uint64
	wake  chan struct{}
	stop  chan struct{}
	ended chan struct{}

	mu     sync.Mutex
	events []mail.Event
}

// use makes the outboxes be those of the labels given, and ends the others.
func (o *observers) use(labels []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*outbox
	old := o.list()
	for _, label := range labels {
		at := slices.IndexFunc(old, func(b *outbox) bool { return b.label == label })
		if at >= 0 {
			list = append(list, old[at])
			continue
		}
		b := &outbox{label: label, tell: o.tell, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
		list = append(list, b)
		go b.run()
	}
	o.boxes.Store(&list)
	for _, b := range old {
		if !slices.Contains(list, b) {
			close(b.stop)
			<-b.ended
		}
	}
}

func (o *observers) list() []*outbox {
	if p := o.boxes.Load(); p != nil {
		return *p
	}
	return nil
}

// lost returns how many events an observer could not be told.
func (o *observers) lost(label string) uint64 {
	for _, b := range o.list() {
		if b.label == label {
			return b.lost.Load()
		}
	}
	return 0
}

// put is a listener of the bus: it never waits.
func (o *observers) put(e event.Event) {
	boxes := o.list()
	if len(boxes) == 0 {
		return
	}
	told := eventOf(e)
	for _, b := range boxes {
		b.put(told)
	}
}

func (b *outbox) put(e mail.Event) {
	b.mu.Lock()
	full := len(b.events) >= maxKept
	if !full {
		b.events = append(b.events, e)
	}
	b.mu.Unlock()
	if full {
		b.lost.Add(1)
		return
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run tells what waits, and again what was not taken, until the outbox is stopped.
func (b *outbox) run() {
	defer close(b.ended)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // a call under way gets the last words' time, too
		<-b.stop
		select {
		case <-time.After(lastWords):
			cancel()
		case <-b.ended:
		}
	}()
	wait := observeRetry
	for {
		batch := b.next()
		switch {
		case len(batch) == 0 && b.stopped():
			return
		case len(batch) == 0:
			select {
			case <-b.wake:
			case <-b.stop:
			}
			continue
		}
		if err := b.try(ctx, batch); err == nil {
			b.drop(len(batch))
			wait = observeRetry
			continue
		}
		if b.stopped() {
			return
		}
		select {
		case <-time.After(wait):
		case <-b.stop:
		}
		wait = min(2*wait, maxObserveWait)
	}
}

func (b *outbox) stopped() bool {
	select {
	case <-b.stop:
		return true
	default:
		return false
	}
}

func (b *outbox) try(ctx context.Context, batch []mail.Event) error {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	return b.tell(ctx, b.label, batch)
}

// next returns the events to tell; they stay in the outbox.
func (b *outbox) next() []mail.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.events[:min(len(b.events), maxBatch)])
}

func (b *outbox) drop(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = slices.Delete(b.events, 0, n)
}

// eventOf is an event as plugins see it.
func eventOf(e event.Event) mail.Event {
	out := mail.Event{
		Name: string(e.Name), Time: e.Time, Session: e.Session, ID: e.ID, Listener: e.Listener, Remote: e.Remote, User: e.User,
		From: e.From, To: e.To, Route: e.Route, Host: e.Host, Plugin: e.Plugin, Stage: e.Stage, Class: e.Class, Reply: e.Reply,
		Reason: e.Reason, Size: e.Size, Count: e.Count, Attempt: e.Attempt, Next: e.Next, Took: e.Took,
	}
	if e.Err != nil {
		out.Error = e.Err.Error()
	}
	return out
}

// tellObserver tells the current generation's plugin of that label.
func (e *Engine) tellObserver(ctx context.Context, label string, events []mail.Event) error {
	g := e.use()
	defer g.done()
	p := g.host.Plugin(label)
	if p == nil {
		return nil // it was taken out of the configuration
	}
	return p.Observe(ctx, events)
}
