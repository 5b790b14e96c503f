package plugin

import (
	"cmp"
	"sync"
	"time"
)

const (
	breakerLimit    = 5
	breakerCooldown = 5 * time.Second
	breakerMax      = time.Minute
)

// breaker keeps calls from a plugin that answers none of them.
type breaker struct {
	limit int           // failures in a row that open it; 0: breakerLimit
	pause time.Duration // the first; 0: breakerCooldown

	mu       sync.Mutex
	failures int // in a row
	until    time.Time
	cooldown time.Duration
	probing  bool
}

// allow reports whether a call may be made. When the pause is over, one call at a time tries how it is.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < cmp.Or(b.limit, breakerLimit) {
		return true
	}
	if b.probing || time.Now().Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

// note takes the result of a call that was allowed.
func (b *breaker) note(failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	if !failed {
		b.failures, b.cooldown = 0, 0
		return
	}
	if b.failures++; b.failures >= cmp.Or(b.limit, breakerLimit) && !time.Now().Before(b.until) {
		b.cooldown = max(min(2*b.cooldown, breakerMax), cmp.Or(b.pause, breakerCooldown))
		b.until = time.Now().Add(b.cooldown)
	}
}

// forget takes a call that was allowed and says nothing of the plugin's health.
func (b *breaker) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// reset closes the breaker: a fresh process is owed fresh trust.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.cooldown, b.probing, b.until = 0, 0, false, time.Time{}
}

func (b *breaker) state() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.failures < cmp.Or(b.limit, breakerLimit):
		return "closed"
	case time.Now().Before(b.until):
		return "open"
	}
	return "half-open"
}
