// Package admin lets an operator speak with the running server: a unix socket with the API that the mta commands use, and
// an HTTP listener with metrics, health and a page to look at.
//
// The socket is as private as its file (mode 0600); there is no other check, so the HTTP listener, which anyone on the
// machine can reach, only tells and never does. Garbage on either closes that connection and nothing else. When the admin
// room fails to open, the server does not start; when it fails later, mail goes on.
package admin

import (
	"context"
	"time"

	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Verb is what an operator wants done with queued messages.
type Verb string

// The verbs.
const (
	Retry   Verb = "retry"   // try again now
	Hold    Verb = "hold"    // keep, and do not try
	Release Verb = "release" // end a hold
	Bounce  Verb = "bounce"  // give up now and tell the sender
	Delete  Verb = "delete"  // remove, and tell nobody
)

// Verbs lists the verbs in the order of the help text.
func Verbs() []Verb { return []Verb{Retry, Hold, Release, Bounce, Delete} }

// Server is the running server, as the API sees it.
type Server interface {
	Status() Status
	// Ready returns why the server cannot do its work now, or nil.
	Ready() error
	// Reload reads the configuration again. The error's text holds every diagnostic; the old configuration stays in force.
	Reload(ctx context.Context) error
	// Stop begins an orderly stop and returns at once.
	Stop()
	List(ctx context.Context, f queue.Filter, fn func(Listed) error) error
	Content(id queue.ID) (*queue.Record, mail.Content, error)
	// Explain tells what would become of a message. Its error is about the question.
	Explain(ctx context.Context, q Question) (Explanation, error)
	// Envelope is all that the queue knows of a message beside its content.
	Envelope(id queue.ID) (archive.Envelope, error)
	// Check reads every message and calls fn for each that is damaged.
	Check(ctx context.Context, fn func(rec *queue.Record, damage error) error) (queue.Checked, error)
	// Restore adds a message that was exported; see queue.Restore.
	Restore(ctx context.Context, from string, rec *queue.Record, c mail.Content, lost bool) (*queue.Record, error)
	// Act does the verb to the messages and returns how many it was done to.
	Act(ctx context.Context, verb Verb, ids []queue.ID, reason string) (int, error)
	// Suspend keeps mail for a destination, or of a sender, from being tried, until Resume. Both return how much waits.
	Suspend(ctx context.Context, what, reason string) (Suspension, error)
	Resume(ctx context.Context, what string) (Suspension, error)
}

// Listed is a message in a list: its record, and what only the running server knows of it.
type Listed struct {
	*queue.Record
	Suspended string // why its destination is suspended; "" where it is not
}

// Suspension is a destination or a sender whose mail the operator keeps from being tried.
type Suspension struct {
	What    string    `json:"what"` // a destination: a route, a domain, *.domain, or *; or a sender: an address, @domain, a pattern
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"since"`
	Waiting int       `json:"waiting"` // messages for a destination, without those that go elsewhere too; -1: of a sender they are not counted
}

// Status is the server at a glance.
type Status struct {
	Version   string           `json:"version"`
	Hostname  string           `json:"hostname"`
	PID       int              `json:"pid"`
	Started   time.Time        `json:"started"`
	Config    string           `json:"config"`
	Loaded    time.Time        `json:"config_loaded"`
	Ready     string           `json:"ready"` // "ok", or why not
	Listeners []ListenerStatus `json:"listeners"`
	Queue     QueueStatus      `json:"queue"`
	Sites     []SiteStatus     `json:"sites,omitempty"` // destinations with waiting mail, the deepest first
	Suspended []Suspension     `json:"suspended,omitempty"`
	Plugins   []PluginStatus   `json:"plugins"`
}

// ListenerStatus is one listener.
type ListenerStatus struct {
	Name     string   `json:"name"`
	Address  []string `json:"address"`
	Sessions int      `json:"sessions"`
}

// QueueStatus is the queue in figures.
type QueueStatus struct {
	Waiting  int   `json:"waiting"` // for their next attempt, the held ones not counted
	Active   int   `json:"active"`  // being delivered
	Held     int   `json:"held"`
	FreeDisk int64 `json:"free_disk"` // bytes
	Full     bool  `json:"full"`      // below min_free: no new mail is taken

	Refusing      string    `json:"refusing,omitempty"` // why no new mail is taken, whatever the reason
	RefusingSince time.Time `json:"refusing_since,omitzero"`
	Lag           float64   `json:"lag"` // of output behind input: new mail before its first attempt, in budgets of memory; at most 32

	Damaged  int64    `json:"damaged,omitempty"`  // messages that can't be read
	Missing  int64    `json:"missing,omitempty"`  // messages, at the least, that should be there and are not
	Problems []string `json:"problems,omitempty"` // what of the queue's files is damaged
}

// SiteStatus is one destination.
type SiteStatus struct {
	Name         string    `json:"name"`
	Waiting      int       `json:"waiting"`
	Active       int       `json:"active"`               // attempts that are running, each on a connection of its own
	SlowStart    int       `json:"slow_start,omitempty"` // as many it may have, since it takes connections again only now
	FailingSince time.Time `json:"failing_since,omitzero"`
	NextTry      time.Time `json:"next_try,omitzero"` // of one that fails: none is made before
	LastReply    string    `json:"last_reply,omitempty"`
	Suspended    string    `json:"suspended,omitempty"` // why, of one that the operator has suspended
}

// PluginStatus is one plugin's process.
type PluginStatus struct {
	Name     string    `json:"name"`
	Source   string    `json:"source"`
	Version  string    `json:"version"`
	Kinds    []string  `json:"kinds"`
	State    string    `json:"state"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Restarts int       `json:"restarts"`
	Calls    uint64    `json:"calls"`
	Errors   uint64    `json:"errors"`
	Problem  string    `json:"problem,omitempty"` // the last one

	EventsLost uint64 `json:"events_lost,omitempty"` // of an observer

	SHA256  string    `json:"sha256,omitempty"`
	PIDs    []int     `json:"pids,omitempty"` // of the pool; 0 where there is no process at the moment
	Breaker string    `json:"breaker"`        // closed, open, half-open
	Waiting int       `json:"waiting"`        // calls under way
	Queued  int       `json:"queued"`         // calls that wait for others to end
	Refused uint64    `json:"refused"`        // calls for which there was no room
	Next    time.Time `json:"next,omitzero"`  // when a process is started again
	InForce []string  `json:"in_force,omitempty"`
}

// Message is a queued message as lists show it. Fields are only ever added.
type Message struct {
	ID         string      `json:"id"`
	State      string      `json:"state"` // waiting, held
	From       string      `json:"from"`  // "" is the null sender: a report
	Recipients []Recipient `json:"recipients"`
	Size       int64       `json:"size"`
	Received   time.Time   `json:"received"`
	Next       time.Time   `json:"next,omitzero"`
	Attempts   int         `json:"attempts"`
	Held       string      `json:"held,omitempty"`      // why
	Suspended  string      `json:"suspended,omitempty"` // why its destination is
	Priority   int8        `json:"priority,omitempty"`  // RFC 6710
	User       string      `json:"user,omitempty"`
	Remote     string      `json:"remote,omitempty"`
	Listener   string      `json:"listener,omitempty"`
}

// Recipient is one recipient of a Message.
type Recipient struct {
	Address string `json:"address"`
	State   string `json:"state"`
	Reply   string `json:"reply,omitempty"` // the last one
	Host    string `json:"host,omitempty"`  // who gave it
}

// MessageOf makes the listed form of a record.
func MessageOf(r Listed) Message {
	m := Message{
		ID: r.ID.String(), State: "waiting", From: r.Envelope.From.String(), Size: r.Size, Received: r.Received,
		Next: r.Next, Attempts: r.Attempts, Held: r.Held, Suspended: r.Suspended, Priority: r.Envelope.Priority,
		User: r.Meta["user"], Remote: r.Meta["remote"], Listener: r.Meta["listener"],
	}
	if r.Held != "" {
		m.State, m.Next = "held", time.Time{}
	}
	for _, rcpt := range r.Recipients {
		out := Recipient{Address: rcpt.Address.String(), State: rcpt.State.String(), Host: rcpt.Host}
		if rcpt.Reply.Code != 0 {
			out.Reply = rcpt.Reply.String()
		}
		m.Recipients = append(m.Recipients, out)
	}
	return m
}
