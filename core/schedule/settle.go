package schedule

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pabal-mta/mta/core/bounce"
	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// tally is what one recording of a lease comes to.
type tally struct {
	now       time.Time
	age       time.Duration
	early     bool // jobs are open, and not late: only what was delivered is recorded
	final     bool // no job is open: the message is given back
	op        operation
	delivered []int
	actions   []bounce.Action // one for each of delivered
	failed    []int
	reports   []*queue.Message
	home      siteKey // where it waits next
	err       error   // why a report of failure could not be made
}

// record writes down what has ended of a lease, with the reports that are due, and calls itself again when more has ended
// meanwhile. It is called by whom mayRecord told to.
func (s *Schedule) record(l *lease) {
	t := tally{now: time.Now()}
	s.mu.Lock()
	t.final = l.open == 0
	t.early = !t.final && !l.late
	batch := l.ended
	l.ended = nil
	e := s.table.at(l.entry)
	t.age = s.table.age(e, t.now)
	if l.rec != nil {
		l.rec.Age, l.rec.Clock = t.age, s.table.clock(t.now)
	}
	if t.final && e.busy {
		t.op = s.ops[l.id]
		delete(s.ops, l.id)
		e.busy = false
	}
	s.mu.Unlock()

	kept := s.apply(l, batch, &t)
	if len(kept) > 0 {
		s.mu.Lock()
		l.ended = append(kept, l.ended...)
		s.mu.Unlock()
	}
	if t.op.kind == doDelete {
		s.o.Queue.Delete(l.id, func(err error) { s.recorded(l, &t, nil, err) })
		return
	}
	s.conclude(l, &t)
	s.o.Queue.Settle(l.rec, t.reports, func(added []*queue.Record, err error) { s.recorded(l, &t, added, err) })
}

// apply puts outcomes into the record and returns the jobs of which some are left for later.
func (s *Schedule) apply(l *lease, batch []*job, t *tally) (kept []*job) {
	for _, j := range batch {
		left := false
		for k := range j.outcomes {
			o := &j.outcomes[k]
			if o.Class == deliver.PermFail && t.early {
				left = true
				continue
			}
			if o.Class != 0 {
				s.applyOne(l, j, k, t)
				o.Class = 0
			}
		}
		if left {
			kept = append(kept, j)
		}
	}
	return kept
}

// applyOne makes the move of one recipient: pending → delivered | failed, or nothing.
func (s *Schedule) applyOne(l *lease, j *job, k int, t *tally) {
	o, i := &j.outcomes[k], j.indexes[k]
	r := &l.rec.Recipients[i]
	r.Reply, r.Host, r.Time = o.Reply, o.Host, o.Time
	if r.Time.IsZero() {
		r.Time = t.now
	}
	r.Attempts++
	l.tried = true
	switch o.Class {
	case deliver.Delivered:
		r.State = queue.Delivered
		// RFC 3461, 5.2.2: told of when it is in the mailbox, or passed on to a server that will not report.
		if !o.Relayed && r.Notify.Wants(mail.NotifySuccess) {
			t.delivered = append(t.delivered, i)
			action := bounce.Relayed
			if j.final {
				action = bounce.Delivered
			}
			t.actions = append(t.actions, action)
		}
	case deliver.PermFail:
		r.State = queue.Failed
		t.failed = append(t.failed, i)
	}
	s.tellAttempt(l, j, o, r, t.now)
}

func (s *Schedule) tellAttempt(l *lease, j *job, o *deliver.Outcome, r *queue.Recipient, now time.Time) {
	if s.o.Events == nil {
		return
	}
	s.o.Events.Emit(event.Event{
		Name: event.Attempt, Time: now, ID: l.name, From: l.rec.Envelope.From.String(), To: r.Address.String(),
		Route: j.key.route, Host: o.Host, Remote: o.Addr, Stage: o.Phase, Class: o.Class.String(), Reply: o.Reply.String(),
		Attempt: l.rec.Attempts + 1, Size: l.rec.Size, Took: now.Sub(l.rec.Received), Err: o.Err,
	})
}

// conclude decides what becomes of the message, and has the reports made.
func (s *Schedule) conclude(l *lease, t *tally) {
	rec, policy := l.rec, &s.settings.Load().retry
	if t.final {
		if t.op.kind == doBounce {
			s.giveUp(rec, t, removed(t.op.reason), queue.Failed)
		}
		if l.tried && s.ctx.Err() == nil && policy.Expired(t.age) {
			s.giveUp(rec, t, expired, queue.Expired)
		}
		if l.tried {
			rec.Attempts++
		}
	}
	s.tell(l, t)
	if !t.final {
		return
	}
	t.home = s.home(rec)
	if len(rec.Pending()) == 0 {
		rec.Held = ""
		return
	}
	if l.tried && policy.WarnDue(t.age, rec.Warned) {
		s.warn(l, t)
	}
	s.reschedule(l, t)
}

// reschedule says when the message is due again.
func (s *Schedule) reschedule(l *lease, t *tally) {
	rec := l.rec
	switch {
	case t.op.kind == doHold:
		rec.Held = t.op.reason
	case t.op.kind == doRelease:
		rec.Held, rec.Next = "", t.now
	case t.op.kind == doRetry:
		rec.Next = t.now
	case l.tried:
		rec.Next = s.settings.Load().retry.Next(max(rec.Attempts, 1), t.now, rand.Float64())
	case t.op.kind == doBounce: // its report could not be made
		rec.Next = s.settings.Load().retry.Next(1, t.now, rand.Float64())
	}
}

var expired = mail.NewReply(450, "4.4.7", "delivery time expired")

// removed is the reply for what an operator has failed; a reason that may not stand in a reply is left out.
func removed(reason string) mail.Reply {
	r := mail.NewReply(554, "5.0.0", "removed from the queue by the operator")
	plain := r
	if r.Text += ": " + reason; reason == "" || strings.Contains(reason, "\n") || r.Check() != nil {
		return plain
	}
	return r
}

// giveUp ends what is still pending. What was said last stays the reason that is told, where anything was said.
func (s *Schedule) giveUp(rec *queue.Record, t *tally, why mail.Reply, state queue.RecipientState) {
	for _, i := range rec.Pending() {
		r := &rec.Recipients[i]
		r.State = state
		if r.Reply.Code == 0 || state != queue.Expired {
			r.Reply, r.Host, r.Time = why, "", t.now
		}
		t.failed = append(t.failed, i)
	}
}

// recorded goes on when the queue has written a recording down. It is called by the queue's committer: it waits for
// nothing.
func (s *Schedule) recorded(l *lease, t *tally, added []*queue.Record, err error) {
	if err != nil {
		s.unrecorded(l, err)
		return
	}
	s.mu.Lock()
	again := false
	if t.final {
		s.giveHome(l, t)
		s.settling--
		s.room.Broadcast()
	} else {
		l.recording = false
		s.settling--
		again = s.mayRecord(l)
	}
	s.mu.Unlock()
	for i, rec := range added {
		s.Offer(rec, t.reports[i].Content)
	}
	s.tellEnd(l, t)
	if l.asker != nil && t.final {
		l.asker <- t.err
	}
	if again {
		go s.record(l)
	}
}

// giveHome ends a lease: its entry waits again, or is no more. s.mu is held.
func (s *Schedule) giveHome(l *lease, t *tally) {
	at := l.entry
	e := s.table.at(at)
	s.memory -= l.bytes
	s.table.unwait(at)
	if l.more != nil {
		delete(s.leases, l.id)
	}
	if t.op.kind == doDelete || len(l.rec.Pending()) == 0 {
		s.forget(at)
		return
	}
	s.caughtUp(e)
	e.of(l.rec)
	e.stranded = l.stranded(t.home)
	s.move(at, t.home)
	switch {
	case l.rec.Held != "":
		s.table.become(at, held)
	case e.busy: // asked for while the queue wrote
		s.ready(at)
	default:
		s.wait(at, l.rec.Next)
	}
}

// unrecorded leaves a message leased whose outcome could not be recorded: were it tried again, what was delivered would
// be delivered twice. The queue stops the server at its first error, and the message is found at the next start. Only a
// message that somebody else has removed is forgotten.
func (s *Schedule) unrecorded(l *lease, err error) {
	gone := errors.Is(err, queue.ErrNotFound)
	e := event.Event{Name: event.StorageFailed, ID: l.name, Reason: "the outcome could not be recorded", Err: err}
	if gone {
		e.Name = event.Warning
	}
	s.o.Events.Emit(e)
	s.mu.Lock()
	l.recording = !gone
	if gone && l.open == 0 {
		s.memory -= l.bytes
		delete(s.leases, l.id)
		s.forget(l.entry)
	}
	s.settling--
	s.room.Broadcast()
	s.mu.Unlock()
	if l.asker != nil {
		l.asker <- err
	}
}

// tellEnd emits what became of the message.
func (s *Schedule) tellEnd(l *lease, t *tally) {
	if s.o.Events == nil || !t.final {
		return
	}
	e := event.Event{ID: l.name, From: l.rec.Envelope.From.String(), Time: t.now, Attempt: l.rec.Attempts, Size: l.rec.Size}
	switch {
	case t.op.kind == doDelete:
		e.Name = event.MessageDeleted
	case len(l.rec.Pending()) == 0:
		e.Name, e.Took = event.MessageDone, t.now.Sub(l.rec.Received)
	case t.op.kind == doHold:
		e.Name, e.Reason = event.MessageHeld, l.rec.Held
	case t.op.kind == doRelease:
		e.Name = event.MessageReleased
	default:
		return
	}
	s.o.Events.Emit(e)
}
