package deliver

import (
	"context"
	"sync"
	"time"
)

// fresh is how long an idle connection is trusted without a look at it.
const fresh = 50 * time.Millisecond

// pool keeps connections that are idle. Its one goroutine lives while there are any.
type pool struct {
	limits Limits
	done   chan struct{} // closed by close

	mu      sync.Mutex
	idle    map[string][]*line // the one put back last is the last
	size    int
	running bool
	closed  bool
	quits   sync.WaitGroup
}

func newPool(l Limits) *pool {
	return &pool{limits: l, done: make(chan struct{}), idle: map[string][]*line{}}
}

// take returns an idle connection to a set of hosts that suits and is alive, or nil.
func (p *pool) take(key string, suits func(*line) bool) *line {
	for {
		l := p.pick(key, suits)
		if l == nil || time.Since(l.since) < fresh || l.conn.Alive() {
			return l
		}
		l.conn.Close()
	}
}

func (p *pool) pick(key string, suits func(*line) bool) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	for i := len(list) - 1; i >= 0; i-- {
		if l := list[i]; suits(l) {
			p.remove(key, i)
			return l
		}
	}
	return nil
}

// remove takes a connection out; the lock is held.
func (p *pool) remove(key string, i int) {
	list := p.idle[key]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(p.idle, key)
	} else {
		p.idle[key] = list
	}
	p.size--
}

// put takes a connection back. One that is of no further use is closed.
func (p *pool) put(l *line) {
	if !l.conn.Usable() {
		l.conn.Close()
		return
	}
	if l.used >= p.limits.Messages || !p.keep(l) {
		l.conn.Quit()
	}
}

// keep adds a connection if there is room.
func (p *pool) keep(l *line) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.size >= p.limits.Idle || len(p.idle[l.key]) >= p.limits.IdlePerHost {
		return false
	}
	l.since = time.Now()
	p.idle[l.key] = append(p.idle[l.key], l)
	p.size++
	if !p.running {
		p.running = true
		go p.sweep()
	}
	return true
}

// sweep says QUIT on connections that were idle for too long. It ends when none is left.
func (p *pool) sweep() {
	for {
		wait, more := p.expire(time.Now())
		if !more {
			return
		}
		select {
		case <-time.After(wait):
		case <-p.done:
			return
		}
	}
}

// expire takes out what is due and returns when the next is.
func (p *pool) expire(now time.Time) (wait time.Duration, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = p.limits.IdleTimeout
	for key, list := range p.idle {
		for i := len(list) - 1; i >= 0; i-- {
			left := p.limits.IdleTimeout - now.Sub(list[i].since)
			if left > 0 {
				wait = min(wait, left)
				continue
			}
			p.quits.Go(list[i].conn.Quit)
			p.remove(key, i)
		}
	}
	p.running = p.size > 0
	return wait, p.running
}

// close says QUIT on everything and waits for it, but not longer than the context.
func (p *pool) close(ctx context.Context) {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.done)
		for _, list := range p.idle {
			for _, l := range list {
				p.quits.Go(l.conn.Quit)
			}
		}
		clear(p.idle)
		p.size = 0
	}
	p.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		p.quits.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}
