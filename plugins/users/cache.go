package users

import (
	"sync"
	"time"
)

// maxKnown bounds the cache of right logins.
const maxKnown = 4096

// cache remembers which logins were right a moment ago, as keyed hashes of name, stored hash and password: a changed
// password or a removed account is not found in it.
type cache struct {
	ttl   time.Duration
	mu    sync.Mutex
	until map[[32]byte]time.Time
}

func (c *cache) has(key [32]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.until[key]
	return ok && now.Before(t)
}

func (c *cache) add(key [32]byte, now time.Time) {
	if c.ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until == nil {
		c.until = make(map[[32]byte]time.Time)
	}
	if len(c.until) >= maxKnown {
		c.shrink(now)
	}
	c.until[key] = now.Add(c.ttl)
}

// shrink drops what is over, and if that is not enough, whatever comes first: a login more is hashed, no more than that.
func (c *cache) shrink(now time.Time) {
	for k, t := range c.until {
		if !now.Before(t) {
			delete(c.until, k)
		}
	}
	for k := range c.until {
		if len(c.until) < maxKnown/2 {
			return
		}
		delete(c.until, k)
	}
}
