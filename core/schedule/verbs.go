package schedule

import (
	"errors"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
)

// verb is what an operator asks of a message.
type verb uint8

const (
	doNothing verb = iota
	doRetry
	doHold
	doRelease
	doDelete
	doBounce
)

type operation struct {
	kind   verb
	reason string
}

// Retry makes messages due now, also those to sites that are left alone for a while, and returns how many. A message that
// is being attempted is tried again right after; one that is held stays held, and one whose destination is suspended waits.
func (s *Schedule) Retry(ids []queue.ID) (n int, err error) {
	return s.operate(ids, operation{kind: doRetry})
}

// Hold keeps messages from being tried until Release, and returns how many. One that is being attempted is held when the
// attempt has ended, if anything is left of it then.
func (s *Schedule) Hold(ids []queue.ID, reason string) (n int, err error) {
	if reason == "" {
		reason = "held by the operator"
	}
	return s.operate(ids, operation{doHold, reason})
}

// Release ends the hold of messages, makes them due now, and returns how many.
func (s *Schedule) Release(ids []queue.ID) (n int, err error) {
	return s.operate(ids, operation{kind: doRelease})
}

// Delete removes messages and tells nobody, and returns how many. One that is being attempted is removed when the attempt
// has ended.
func (s *Schedule) Delete(ids []queue.ID) (n int, err error) {
	return s.operate(ids, operation{kind: doDelete})
}

// Bounce fails messages now, with a report to their senders that gives the reason, and returns how many. One that is being attempted fails for
// those recipients that the attempt has not reached.
func (s *Schedule) Bounce(ids []queue.ID, reason string) (n int, err error) {
	return s.operate(ids, operation{doBounce, reason})
}

// operateAtOnce bounds the messages of one verb that wait for the queue.
const operateAtOnce = 256

// operate does one thing to many messages. It goes on after an error and returns the first. It returns when the queue has
// recorded what could be done at once; what must wait for an attempt is counted and done then.
func (s *Schedule) operate(ids []queue.ID, op operation) (n int, err error) {
	answers := make(chan error, operateAtOnce)
	open := 0
	collect := func() {
		open--
		if e := <-answers; e == nil {
			n++
		} else if err == nil && !errors.Is(e, queue.ErrNotFound) {
			err = e
		}
	}
	for _, id := range ids {
		if open == operateAtOnce {
			collect()
		}
		switch l, done := s.take(id, op); {
		case l != nil:
			l.asker = answers
			open++
			s.carryOut(l)
		case done:
			n++
		}
	}
	for open > 0 {
		collect()
	}
	return n, err
}

// take finds a message and returns a lease of it if the operation is to be done now by the caller; done means that it
// was done, or will be. Neither means that it does not apply.
func (s *Schedule) take(id queue.ID, op operation) (l *lease, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.table.byID[id]
	if !ok || s.stopping {
		return nil, false
	}
	e := s.table.at(at)
	switch {
	case op.kind == doRelease && e.busy && s.ops[id].kind == doHold: // it was not held yet
		delete(s.ops, id)
		e.busy = false
		return nil, true
	case op.kind == doRelease && e.state != held, op.kind == doHold && e.state == held, op.kind == doRetry && e.state == held,
		op.kind == doRetry && s.sites.list[e.site].suspended != nil:
		return nil, false
	case op.kind == doRetry && e.state != leased:
		s.hasten(at)
		return nil, true
	case e.state == ready || e.state == leased: // a worker has it, or will
		if e.busy && s.ops[id].kind > op.kind {
			return nil, true // what was asked before goes further
		}
		e.busy = true
		s.ops[id] = op
		return nil, true
	}
	l = &lease{entry: at, id: id, name: id.String(), was: e.state, begun: true, recording: true}
	s.table.unwait(at)
	s.table.become(at, leased)
	e.busy = true
	s.ops[id] = op
	s.settling++
	return l, true
}

// hasten makes a message due now. s.mu is held.
func (s *Schedule) hasten(at uint32) {
	e := s.table.at(at)
	if t := s.sites.list[e.site].trouble; t != nil {
		t.until = time.Time{}
	}
	if e.state == waiting {
		s.table.unwait(at)
		s.ready(at)
	}
}

// carryOut does what take has noted.
func (s *Schedule) carryOut(l *lease) {
	rec, content, err := s.o.Queue.Load(l.id)
	if err == nil {
		l.rec, l.content = rec, content
		s.record(l)
		return
	}
	s.mu.Lock()
	deleting := s.ops[l.id].kind == doDelete
	s.mu.Unlock()
	if deleting && !errors.Is(err, queue.ErrNotFound) { // a message that can't be read can still be removed
		l.rec = &queue.Record{ID: l.id}
		s.record(l)
		return
	}
	s.o.Events.Emit(event.Event{Name: event.Warning, ID: l.name, Reason: "the message can't be read from the queue", Err: err})
	s.putBack(l, err)
}

// putBack ends a lease that came to nothing.
func (s *Schedule) putBack(l *lease, err error) {
	s.mu.Lock()
	s.settling--
	s.room.Broadcast()
	delete(s.ops, l.id)
	s.table.at(l.entry).busy = false
	switch {
	case errors.Is(err, queue.ErrNotFound):
		s.forget(l.entry)
	case l.was == held:
		s.table.become(l.entry, held)
	default:
		s.wait(l.entry, s.settings.Load().retry.Next(1, time.Now(), 0.5))
	}
	s.mu.Unlock()
	l.asker <- err
}
