package schedule

import (
	"context"
	"time"
)

// pace slows input down to what goes out. On a machine whose processors are busy, input that runs ahead of output gains
// nothing: the messages pile up, are put into the store and read back, and take the time that their own delivery needs.
// Whoever brings more while much is behind waits for one first attempt to end, so that as many come as go.
//
// Where output is slow for another reason, a remote host above all, waiting would only hold up who submits: nobody waits
// longer than paceLimit, and once somebody has waited in vain nobody waits at all for paceRest.
type pace struct {
	waiting []chan struct{} // the oldest first
	rest    time.Time       // nobody waits before
}

const (
	paceShare = 32 // of the memory budget, one part: first attempts for that much may be behind before anybody waits
	paceLimit = 50 * time.Millisecond
	paceRest  = 500 * time.Millisecond
)

// Pace waits while output is behind input but quick, until a first attempt ends; for 50 ms at most. It is called before a
// message is added to the queue.
func (s *Schedule) Pace(ctx context.Context) {
	turn := s.paceTurn()
	if turn == nil {
		return
	}
	limit := time.NewTimer(paceLimit)
	defer limit.Stop()
	select {
	case <-turn:
	case <-ctx.Done():
	case <-limit.C:
		s.mu.Lock()
		s.pace.rest = time.Now().Add(paceRest)
		s.pace.release(len(s.pace.waiting))
		s.mu.Unlock()
	}
}

// paceTurn returns what to wait for; nil: nothing.
func (s *Schedule) paceTurn() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lag<<10*paceShare <= s.settings.Load().limits.Memory || s.stopping || !s.started || time.Now().Before(s.pace.rest) {
		return nil
	}
	turn := make(chan struct{})
	s.pace.waiting = append(s.pace.waiting, turn)
	return turn
}

// release lets the first n go on. Schedule.mu is held.
func (p *pace) release(n int) {
	n = min(n, len(p.waiting))
	for _, turn := range p.waiting[:n] {
		close(turn)
	}
	left := copy(p.waiting, p.waiting[n:])
	clear(p.waiting[left:])
	p.waiting = p.waiting[:left]
}
