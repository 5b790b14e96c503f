package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/smtpc"
	"github.com/pabal-mta/mta/core/tlspolicy"
	"github.com/pabal-mta/mta/sdk/mail"
)

// The phases of an Outcome that are not of a connection.
const (
	phaseResolve = "resolve"
	phaseStore   = "store"
	phaseConvert = "convert"
	phaseRoute   = "route"
)

var (
	errTooLong  = errors.New("the attempt took too long")
	errNoAnswer = errors.New("the attempt ended without an answer for the recipient")
)

// Deliverer makes attempts. It is safe for use by many goroutines.
type Deliverer struct {
	o        Options
	pool     *pool
	memory   *memory
	self     *self
	sessions tls.ClientSessionCache
}

// New makes a Deliverer.
func New(o Options) *Deliverer {
	o.Limits = o.Limits.withDefaults()
	return &Deliverer{o: o, pool: newPool(o.Limits), memory: newMemory(), self: newSelf(o.SelfAddrs),
		sessions: tls.NewLRUClientSessionCache(1000)}
}

// Close says QUIT on all idle connections, and makes those in use be closed after their message. It returns when all idle
// ones are closed or the context ends.
func (d *Deliverer) Close(ctx context.Context) { d.pool.close(ctx) }

// Attempt tries once to deliver and returns one Outcome for each of job.Envelope.To, in their order.
func (d *Deliverer) Attempt(ctx context.Context, job *Job) (outcomes []Outcome) {
	a := &attempt{Deliverer: d, job: job, outcomes: make([]Outcome, len(job.Envelope.To))}
	defer func() {
		// A plugin that breaks us must not take the other messages with it.
		if p := recover(); p != nil {
			a.all(ours(TempFail, "", 451, "4.3.0", "the attempt failed for a reason of ours").because(fmt.Errorf("panic: %v\n%s", p, debug.Stack())))
		}
		outcomes = a.finished()
	}()
	ctx, stop := context.WithTimeoutCause(ctx, d.o.Limits.Attempt, errTooLong)
	defer stop()
	if b := job.begun; b != nil && b.by != d {
		// The configuration is another one since, and the message may have to go another way.
		b.line.conn.Close()
		job.begun = nil
	}
	way, ok := d.o.Ways[job.Route]
	if !ok {
		a.all(ours(TempFail, phaseResolve, 451, "4.3.5", "the route %q is not configured", job.Route))
		return nil
	}
	a.way = way
	switch way.Kind {
	case KindStore:
		a.store(ctx)
	case KindRouter:
		a.route(ctx)
	default:
		a.relay(ctx)
	}
	return nil
}

// attempt is the state of one Attempt.
type attempt struct {
	*Deliverer
	job      *Job
	way      Way
	outcomes []Outcome
	routed   bool // a router has chosen the hosts
	form     form // what was converted last, and for which peer
	passedOn bool // the connection belongs to the next job
}

// begun is a job that has a connection before its attempt.
type begun struct {
	by          *Deliverer
	line        *line
	transaction *smtpc.Transaction
}

// all gives every recipient that has no outcome yet this one.
func (a *attempt) all(o Outcome) {
	for i := range a.outcomes {
		if a.outcomes[i].Class == 0 {
			a.outcomes[i] = o
		}
	}
}

// finished sees to it that every outcome is whole.
func (a *attempt) finished() []Outcome {
	now := time.Now()
	for i := range a.outcomes {
		if a.outcomes[i].Class == 0 {
			a.outcomes[i] = ours(TempFail, "", 451, "4.3.0", "the attempt failed for a reason of ours").because(errNoAnswer)
		}
		a.outcomes[i].Time = now
	}
	return a.outcomes
}

// relay sends the job over a connection that is open already, or over a new one.
func (a *attempt) relay(ctx context.Context) {
	if b := a.job.begun; b != nil && a.send(ctx, b.line, b.transaction) {
		return
	}
	key, hosts, failure := a.destination(ctx)
	if failure != nil {
		a.all(*failure)
		return
	}
	if l := a.pool.take(key, a.suits); l != nil && a.send(ctx, l, nil) {
		return
	}
	l, o := a.search(ctx, hosts)
	if l == nil {
		a.all(o)
		return
	}
	l.key = key
	a.send(ctx, l, nil)
}

// suits reports whether the message may go over an open connection: one under REQUIRETLS wants a proven certificate.
func (a *attempt) suits(l *line) bool { return !a.requireTLS() || l.verified }

// requireTLS reports whether REQUIRETLS binds this hop: LMTP is final delivery and not bound (RFC 8689, 4.2.1).
func (a *attempt) requireTLS() bool { return a.job.Envelope.RequireTLS && a.way.Kind != KindLMTP }

// send does the job over a connection and puts it back. It reports false when the connection, used before, turned out to
// be closed: nothing has been tried then. The transaction is nil, or one that was made before.
func (a *attempt) send(ctx context.Context, l *line, t *smtpc.Transaction) bool {
	defer a.leave(l)
	if !a.convert(ctx, l.target()) {
		a.about(l)
		return true
	}
	all := len(a.job.Envelope.To)
	for at := 0; at < all; at += a.o.Limits.Recipients {
		end := min(at+a.o.Limits.Recipients, all)
		if t == nil || at > 0 {
			t = a.transaction(l, at, end)
		}
		var next func() *smtpc.Transaction
		if end == all && a.mayPassOn(l) {
			next = func() *smtpc.Transaction { return a.passOn(l) }
		}
		results, err := t.Send(ctx, next)
		var e *smtpc.Error
		if at == 0 && l.used > 0 && errors.As(err, &e) && e.Unanswered && ctx.Err() == nil {
			a.noteLoss(l, t, e)
			return false
		}
		a.take(l, at, results, err)
		if !l.conn.Usable() {
			break
		}
	}
	l.used++
	if !l.conn.Usable() {
		a.all(ours(TempFail, smtpc.PhaseMail, 451, "4.4.2", "%s closed the connection before all recipients were named", l.where()).at(l))
	}
	return true
}

// transaction makes one of some of the recipients.
func (a *attempt) transaction(l *line, at, end int) *smtpc.Transaction {
	env := a.form.envelope
	env.To, env.RequireTLS = env.To[at:end], a.requireTLS()
	return l.conn.Transaction(&env, a.form.content)
}

// mayPassOn reports whether another job may be begun behind this one. The hosts of mx are anybody's: some refuse commands that come
// behind a message, lest they be smuggled mail, and nobody knows what else they think of it. Other hosts were chosen by the operator.
func (a *attempt) mayPassOn(l *line) bool {
	return a.job.Next != nil && a.way.Kind != KindMX && !a.routed && l.used+1 < a.o.Limits.Messages && !a.memory.has(loses, l.addr)
}

// noteLoss remembers a host that lost a message's commands, or refused them, because they came with the end of the one before
// (RFC 2920, 3.2 forbids it): it gets the next ones by themselves, and nobody waits for its answer in vain again.
func (a *attempt) noteLoss(l *line, t *smtpc.Transaction, e *smtpc.Error) {
	var timeout *smtpc.TimeoutError
	var refused *smtpc.NotBegunError
	if !t.Begun() || !errors.As(e, &timeout) && !errors.As(e, &refused) {
		return
	}
	a.warn(l.host, l.addr, "the host does not take what follows a message in the same write; it gets each message by itself for a while", e)
	a.memory.add(loses, l.addr, a.o.Limits.RememberLoss)
}

// passOn gives the connection to the next job, if there is one, and returns what that is to begin with; nil where it may not go
// over this connection, or has to be converted for it, which takes time while the peer waits.
func (a *attempt) passOn(l *line) *smtpc.Transaction {
	job := a.job.Next()
	if job == nil {
		return nil
	}
	n := &attempt{Deliverer: a.Deliverer, job: job, way: a.way}
	if !n.suits(l) || !n.plain(l.target()) || len(job.Envelope.To) > a.o.Limits.Recipients {
		return nil
	}
	n.form = form{envelope: job.Envelope, content: job.Content}
	t := n.transaction(l, 0, len(job.Envelope.To))
	job.begun = &begun{a.Deliverer, l, t}
	a.passedOn = true
	return t
}

// leave puts a connection back that nobody else has yet.
func (a *attempt) leave(l *line) {
	if !a.passedOn {
		a.pool.put(l)
	}
}

// take turns the results of one transaction into outcomes.
func (a *attempt) take(l *line, at int, results []smtpc.Result, err error) {
	for i, r := range results {
		o := &a.outcomes[at+i]
		switch {
		case r.Reply.Code == 0:
			*o = a.problem(l.host, l.addr, err)
			o.TLS = l.tls
		case r.Ours:
			*o = Outcome{Class: classOf(r.Reply), Reply: r.Reply, Addr: l.addr, TLS: l.tls, Phase: r.Phase, Err: err}
		default:
			*o = Outcome{Class: classOf(r.Reply), Reply: r.Reply, Host: l.host.name, Addr: l.addr, TLS: l.tls, Phase: r.Phase}
			// RFC 3461, 5.2.1: who takes the message with its DSN parameters reports from there on.
			o.Relayed = o.Class == Delivered && l.conn.Caps().DSN
		}
	}
}

// about says which host the outcomes so far are about.
func (a *attempt) about(l *line) {
	for i := range a.outcomes {
		a.outcomes[i].Addr, a.outcomes[i].TLS = l.addr, l.tls
	}
}

func classOf(r mail.Reply) Class {
	switch {
	case r.Positive():
		return Delivered
	case r.Permanent():
		return PermFail
	default:
		return TempFail
	}
}

// ours makes an outcome of our own words.
func ours(c Class, phase string, code int, enhanced, format string, args ...any) Outcome {
	r := mail.Reply{Code: code, Text: tidy(fmt.Sprintf(format, args...))}
	// The codes are constants of this package; a wrong one is caught by the tests, which check every reply.
	r.Enhanced, _ = mail.ParseEnhanced(enhanced)
	return Outcome{Class: c, Phase: phase, Reply: r}
}

func (o Outcome) because(err error) Outcome {
	o.Err = err
	return o
}

func (o Outcome) at(l *line) Outcome {
	o.Addr, o.TLS = l.addr, l.tls
	return o
}

// tidy makes text fit for a reply: one short line without controls.
func tidy(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "")
	}
	return s
}

// warn tells the operator of something that mail goes on in spite of.
func (a *attempt) warn(h host, addr, reason string, err error) {
	a.o.Events.Emit(event.Event{Name: event.Warning, ID: a.job.ID, Route: a.job.Route, Host: h.name, Remote: addr, Reason: reason, Err: err})
}

// mode returns the TLS mode of the way: LMTP is mostly spoken on the same machine.
func (w Way) mode() tlspolicy.Mode {
	if w.TLS == "" && w.Kind == KindLMTP {
		return tlspolicy.None
	}
	return w.TLS
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, v time.Duration) { *d = first(*d, v) }
	set(&l.Connect, 30*time.Second)
	set(&l.Search, 5*time.Minute)
	set(&l.Attempt, 30*time.Minute)
	set(&l.Store, 5*time.Minute)
	set(&l.Convert, 2*time.Minute)
	set(&l.Route, 30*time.Second)
	set(&l.IdleTimeout, 5*time.Second)
	set(&l.RememberDown, time.Minute)
	set(&l.RememberTLS, time.Hour)
	set(&l.RememberLoss, 24*time.Hour)
	for _, n := range []struct {
		n *int
		v int
	}{{&l.Addresses, 10}, {&l.Recipients, 100}, {&l.Messages, 1000}, {&l.IdlePerHost, 10}, {&l.Idle, 200}} {
		*n.n = first(*n.n, n.v)
	}
	return l
}

// first returns v if it is positive, else the default.
func first[T int | time.Duration](v, standard T) T {
	if v > 0 {
		return v
	}
	return standard
}

// keyOf names the set of hosts that a connection belongs to, whatever their order.
func keyOf(route string, hosts []host) string {
	if len(hosts) == 1 {
		return route + " " + hosts[0].String()
	}
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.String()
	}
	slices.Sort(names)
	return route + " " + strings.Join(names, " ")
}
