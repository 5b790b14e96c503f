package gate

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// How wrong logins are slowed down.
const (
	firstDelay   = 500 * time.Millisecond
	longestDelay = 10 * time.Second
	forgetAfter  = 10 * time.Minute
	maxFailures  = 40 // from one address, before it is not asked any more
	maxPlaces    = 10_000
	authTime     = 30 * time.Second
)

// MaxPerSession is how many wrong logins one connection may try.
const MaxPerSession = 3

// ErrTooMany says that too many logins from there have failed; nobody was asked.
var ErrTooMany = errors.New("too many wrong logins from this address")

// Authenticator says whether a login is right: mail.ErrBadLogin, or trouble of ours.
type Authenticator interface {
	Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error)
}

// Guard asks about logins, and slows down who guesses.
type Guard struct {
	auth Authenticator

	mu     sync.Mutex
	places map[netip.Prefix]*failures
}

type failures struct {
	n    int
	last time.Time
}

// NewGuard makes a guard.
func NewGuard(auth Authenticator) *Guard {
	return &Guard{auth: auth, places: make(map[netip.Prefix]*failures)}
}

// Login asks whether a login is right. A wrong one takes longer each time, whatever was wrong with it.
func (g *Guard) Login(ctx context.Context, login mail.Login) (mail.Identity, error) {
	place := placeOf(login.Remote.Addr())
	if g.count(place, 0) >= maxFailures {
		return mail.Identity{}, ErrTooMany
	}
	start := time.Now()
	asking, cancel := context.WithTimeout(ctx, authTime)
	defer cancel()
	identity, err := g.auth.Authenticate(asking, login)
	if !errors.Is(err, mail.ErrBadLogin) {
		return identity, err
	}
	n := g.count(place, 1)
	select {
	case <-time.After(min(firstDelay<<min(n-1, 10), longestDelay) - time.Since(start)): // so that it does not tell what was compared
	case <-ctx.Done():
	}
	return mail.Identity{}, mail.ErrBadLogin
}

// placeOf returns what is counted as one place: an IPv4 address, or what one customer has of IPv6.
func placeOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // an address that is not valid is a place too
	return p
}

// count adds to the failures from a place, and returns how many there are now.
func (g *Guard) count(place netip.Prefix, add int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	f := g.places[place]
	if f != nil && now.Sub(f.last) > forgetAfter {
		delete(g.places, place)
		f = nil
	}
	if f == nil {
		if add == 0 {
			return 0
		}
		g.room(now)
		f = &failures{}
		g.places[place] = f
	}
	if add > 0 {
		f.n, f.last = f.n+add, now
	}
	return f.n
}

// room forgets what is old, or anything at all, before there are too many places.
func (g *Guard) room(now time.Time) {
	if len(g.places) < maxPlaces {
		return
	}
	for p, f := range g.places {
		if now.Sub(f.last) > forgetAfter {
			delete(g.places, p)
		}
	}
	for p := range g.places {
		if len(g.places) < maxPlaces {
			return
		}
		delete(g.places, p)
	}
}
