// Package event tells what happened, as values.
//
// Every room says what it did by emitting an Event; the log, the metrics, the trace and observers are listeners. Emit
// never blocks and never fails: a listener that cannot keep up loses events and the loss is counted, mail is never held
// up. What must not be lost is in the queue, not here.
package event

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Name says what happened. The names are those of the log and of the metrics.
type Name string

// The events.
const (
	ServerStarted   Name = "started"
	ServerStopping  Name = "stopping"
	ConfigReloaded  Name = "reloaded"
	SessionOpened   Name = "connect"
	SessionClosed   Name = "disconnect"
	SessionRefused  Name = "refused" // a command or a connection was answered 4xx or 5xx
	LoginFailed     Name = "login_failed"
	LoginOK         Name = "login"
	MessageQueued   Name = "queued"
	MessageHeld     Name = "held"
	MessageReleased Name = "released"
	MessageDone     Name = "done" // nothing is left to do for the message
	MessageDeleted  Name = "deleted"
	FilterVerdict   Name = "verdict"
	Attempt         Name = "attempt" // one recipient of one delivery attempt
	Bounced         Name = "bounced" // a report was written
	PluginState     Name = "plugin"
	StorageFailed   Name = "storage_failed"
	IntakeStopped   Name = "intake_stopped" // new mail is answered 4xx, and why
	IntakeResumed   Name = "intake_resumed" // it is taken again; Took is how long it was not
	Warning         Name = "warning"

	MailSuspended Name = "suspended" // Host is the destination, or From the sender
	MailResumed   Name = "resumed"   // Took is how long it was suspended
)

// Event is one thing that happened. Only the fields that apply are set.
type Event struct {
	Name     Name
	Time     time.Time
	Session  string // session ID
	ID       string // queue ID
	Listener string
	Remote   string // address of the peer
	User     string
	From     string
	To       string
	Route    string
	Host     string
	Plugin   string
	Stage    string
	Class    string // of an attempt: delivered, tempfail, permfail; of a verdict: the action
	Reply    string
	Reason   string // for the operator
	Edits    string // of a verdict: what it changed, in words
	Size     int64
	Count    int
	Attempt  int
	Next     time.Time
	Took     time.Duration
	Err      error
}

// Bus hands events to listeners.
type Bus struct {
	mu        sync.Mutex
	listeners atomic.Pointer[[]*listener]
}

type listener struct{ fn func(Event) }

// Listen adds a listener; it must return at once. The returned function takes it off again.
func (b *Bus) Listen(fn func(Event)) (stop func()) {
	l := &listener{fn}
	b.change(func(list []*listener) []*listener { return append(list, l) })
	return func() {
		b.change(func(list []*listener) []*listener {
			return slices.DeleteFunc(list, func(x *listener) bool { return x == l })
		})
	}
}

// change replaces the list by a changed copy, so that Emit reads it without a lock.
func (b *Bus) change(f func([]*listener) []*listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*listener
	if p := b.listeners.Load(); p != nil {
		list = slices.Clone(*p)
	}
	list = f(list)
	b.listeners.Store(&list)
}

// Emit tells every listener. A nil Bus takes the event and tells nobody, so that a room needs no bus to be tested.
func (b *Bus) Emit(e Event) {
	if b == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	list := b.listeners.Load()
	if list == nil {
		return
	}
	for _, l := range *list {
		l.fn(e)
	}
}

// Attrs returns the fields that are set, for a log line.
func (e Event) Attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 12)
	text := func(key, v string) {
		if v != "" {
			attrs = append(attrs, slog.String(key, v))
		}
	}
	text("session", e.Session)
	text("id", e.ID)
	text("listener", e.Listener)
	text("remote", e.Remote)
	text("user", e.User)
	text("from", e.From)
	text("to", e.To)
	text("route", e.Route)
	text("host", e.Host)
	text("plugin", e.Plugin)
	text("stage", e.Stage)
	text("class", e.Class)
	text("reply", e.Reply)
	text("reason", e.Reason)
	text("edits", e.Edits)
	if e.Size > 0 {
		attrs = append(attrs, slog.Int64("size", e.Size))
	}
	if e.Count > 0 {
		attrs = append(attrs, slog.Int("count", e.Count))
	}
	if e.Attempt > 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if !e.Next.IsZero() {
		attrs = append(attrs, slog.Time("next", e.Next))
	}
	if e.Took > 0 {
		attrs = append(attrs, slog.String("took", e.Took.Round(time.Microsecond).String()))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return attrs
}
