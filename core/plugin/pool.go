package plugin

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// defaultConcurrent is how many calls at a time one process is given when its Spec says nothing else.
const defaultConcurrent = 1024

// line is where callers of one process wait until it has room for them. It is bounded in length and in time: who could
// not be served in the half of its time that is waited is better told so at once.
type line struct {
	room    *semaphore.Weighted
	limit   int64
	inside  atomic.Int64 // those that are served
	waiting atomic.Int64
}

func newLine(limit int) *line {
	n := int64(cmp.Or(limit, defaultConcurrent))
	return &line{room: semaphore.NewWeighted(n), limit: n}
}

// enter waits for room, not beyond patience. Who got in calls leave.
func (l *line) enter(ctx context.Context, patience time.Time) error {
	if l.room.TryAcquire(1) {
		l.inside.Add(1)
		return nil
	}
	defer l.waiting.Add(-1)
	if l.waiting.Add(1) > l.limit {
		return ErrOverload
	}
	limited, cancel := context.WithDeadline(ctx, patience)
	defer cancel()
	if err := l.room.Acquire(limited, 1); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return ErrOverload
	}
	l.inside.Add(1)
	return nil
}

func (l *line) leave() {
	l.inside.Add(-1)
	l.room.Release(1)
}

// close waits until everybody has left, for so long or until ctx ends, and lets nobody in until open is called.
func (l *line) close(ctx context.Context, timeout time.Duration) (open func()) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if l.room.Acquire(ctx, l.limit) != nil {
		return func() {}
	}
	return func() { l.room.Release(l.limit) }
}

func (l *line) queued() int { return int(l.waiting.Load()) }

// load is how many callers a process has.
func (l *line) load() int64 { return l.inside.Load() + l.waiting.Load() }

// maxSeats bounds how many sessions are remembered with their workers.
const maxSeats = 100_000

// seats remembers which worker of a pool a session talks to: a filter may keep in its memory what it knows of a session.
type seats struct {
	mu sync.Mutex
	at map[string]*worker
}

func (s *seats) find(session string) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[session]
}

func (s *seats) take(session string, w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil || len(s.at) >= maxSeats {
		s.at = map[string]*worker{}
	}
	s.at[session] = w
}

func (s *seats) leave(session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, session)
}

// choose returns a process that is not the given one, or nil: that of the session if it has one, else the one that has
// the least to do.
func (p *Plugin) choose(session string, not *process) *process {
	if len(p.workers) == 1 {
		if proc := p.workers[0].current.Load(); proc != not {
			return proc
		}
		return nil
	}
	if session != "" {
		if w := p.seats.find(session); w != nil {
			if proc := w.current.Load(); proc != nil && proc != not {
				return proc
			}
		}
	}
	var best *process
	for _, w := range p.workers {
		if proc := w.current.Load(); proc != nil && proc != not && (best == nil || proc.line.load() < best.line.load()) {
			best = proc
		}
	}
	if best != nil && session != "" {
		p.seats.take(session, best.worker)
	}
	return best
}

// ready returns a process, or waits for one, not beyond patience. A plugin that keeps crashing is not waited for.
func (p *Plugin) ready(ctx context.Context, session string, patience time.Time, not *process) (*process, error) {
	if proc := p.choose(session, not); proc != nil {
		return proc, nil
	}
	timer := time.NewTimer(time.Until(patience))
	defer timer.Stop()
	for {
		changed := p.change()
		hopeless, last := p.hopeless()
		if proc := p.choose(session, not); proc != nil {
			return proc, nil
		}
		if hopeless {
			return nil, errors.Join(ErrDown, last)
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, errors.Join(ErrDown, last)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hopeless reports that no worker will have a process soon, and why the last of them ended.
func (p *Plugin) hopeless() (yes bool, last error) {
	yes = true
	for _, w := range p.workers {
		state, err := w.condition()
		yes = yes && (state == "crashloop" || state == "stopped")
		if err != nil {
			last = err
		}
	}
	return yes, last
}
