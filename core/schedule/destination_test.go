package schedule

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
)

// bigHosts: the domains of big*.example have their mail at one provider, all others have a host of their own.
func bigHosts(_ context.Context, _, domain string) ([]string, error) {
	time.Sleep(10 * time.Millisecond)
	if strings.HasPrefix(domain, "big") {
		return []string{"mx1.big.test", "mx2.big.test"}, nil
	}
	return []string{"mx." + domain}, nil
}

// gauge measures how many attempts run at once at big domains and at others.
type gauge struct {
	mu                    sync.Mutex
	big, most, other, top int
}

func (g *gauge) attempt(_ context.Context, j *deliver.Job) {
	big := strings.HasPrefix(j.Domain, "big")
	g.add(big, 1)
	time.Sleep(time.Second)
	g.add(big, -1)
}

func (g *gauge) add(big bool, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if big {
		g.big += n
		g.most = max(g.most, g.big)
	} else {
		g.other += n
		g.top = max(g.top, g.other)
	}
}

// highest returns the most that ran at once, at big domains and at others.
func (g *gauge) highest() (big, other int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most, g.top
}

// restart begins to measure again.
func (g *gauge) restart() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.most, g.top = g.big, g.other
}

func TestDestinationConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Connections: 40, SiteConnections: 5, Destinations: []Destination{{Name: "big", Hosts: []string{"*.big.test"}, Connections: 3}}}
		var asked atomic.Int32
		w := newWorld(t, func(o *Options) {
			o.Limits = limits
			o.Hosts = func(ctx context.Context, route, domain string) ([]string, error) {
				asked.Add(1)
				return bigHosts(ctx, route, domain)
			}
		})
		g := &gauge{}
		w.net.before = g.attempt
		for i := range 300 {
			w.accept(message(fmt.Sprintf("u%d@big%d.example", i, i%20)))
			w.accept(message(fmt.Sprintf("u%d@small.example", i)))
		}
		time.Sleep(20 * time.Second)
		if big, other := g.highest(); big != 3 || other != 5 {
			t.Errorf("%d attempts at once at the destination, %d at another site; 3 and 5 are allowed", big, other)
		}
		seen := map[string]bool{}
		for _, a := range w.net.made() {
			seen[a.job.Domain] = true
		}
		if n := asked.Load(); n != 21 {
			t.Errorf("the hosts of 21 sites were asked for %d times", n)
		}
		if len(seen) != 21 {
			t.Errorf("%d of 21 domains had their turn in 20 s", len(seen))
		}

		limits.Destinations[0].Connections = 8 // more than another site may have
		w.Configure(exactly, limits)
		g.restart()
		time.Sleep(5 * time.Second)
		if big, _ := g.highest(); big != 8 {
			t.Errorf("%d attempts at once after the limit was raised to 8", big)
		}
		limits.Destinations[0].Connections = 2
		w.Configure(exactly, limits)
		time.Sleep(2 * time.Second)
		g.restart()
		time.Sleep(10 * time.Second)
		if big, _ := g.highest(); big != 2 {
			t.Errorf("%d attempts at once after the limit was lowered to 2", big)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := w.queue.size(); n != 0 {
			t.Errorf("%d left", n)
		}
	})
}

// TestDestinationRate: the rate is kept from the first message on, by all sites of the destination together, and others
// do not feel it.
func TestDestinationRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Destinations: []Destination{{Name: "big", Hosts: []string{"*.big.test"}, Connections: 10, Count: 60, Per: time.Minute}}}
		w := newWorld(t, func(o *Options) { o.Limits, o.Hosts = limits, bigHosts })
		count := func(prefix string) (n int) {
			for _, a := range w.net.made() {
				if strings.HasPrefix(a.job.Domain, prefix) {
					n++
				}
			}
			return n
		}
		for i := range 400 {
			w.accept(message(fmt.Sprintf("u%d@big%d.example", i, i%7)))
			w.accept(message(fmt.Sprintf("u%d@small.example", i)))
		}
		time.Sleep(time.Second)
		if n := count("small"); n != 400 {
			t.Errorf("%d of 400 to another site went out in a second", n)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n := count("big"); n != 60 {
			t.Errorf("%d in the first minute, not 60", n)
		}
		for range 3 {
			was := count("big")
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if n := count("big") - was; n != 20 {
				t.Errorf("%d in 20 s, not 20", n)
			}
		}
		limits.Destinations[0].Count = 240
		w.Configure(exactly, limits)
		was := count("big")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := count("big") - was; n < 39 || n > 41 {
			t.Errorf("%d in 10 s after the rate was raised to 4 a second", n)
		}
		limits.Destinations = nil
		w.Configure(exactly, limits)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := w.queue.size(); n != 0 {
			t.Errorf("%d left a second after the limits were taken away", n)
		}
	})
}

// TestDestinationIsLeft: the only site that keeps a destination busy turns out to have other hosts now. Who waits for it must not
// wait for the clock, which looks once an hour when nothing is due.
func TestDestinationIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moved atomic.Bool
		limits := Limits{Destinations: []Destination{{Name: "big", Hosts: []string{"*.big.test"}, Connections: 1}}}
		w := newWorld(t, func(o *Options) {
			o.Limits = limits
			o.Hosts = func(_ context.Context, _, domain string) ([]string, error) {
				time.Sleep(100 * time.Millisecond)
				if domain == "first.example" && moved.Load() {
					return []string{"mx.elsewhere.test"}, nil
				}
				return []string{"mx.big.test"}, nil
			}
		})
		w.net.before = func(_ context.Context, j *deliver.Job) {
			if j.Domain == "first.example" {
				time.Sleep(time.Minute)
			}
		}
		for _, to := range []string{"carol@first.example", "dave@second.example", "dan@second.example", "erin@first.example"} {
			w.accept(message(to))
			time.Sleep(time.Second) // carol is on her way for a minute, and the others wait
		}
		moved.Store(true)
		w.Configure(exactly, limits) // the hosts have to be asked for again
		time.Sleep(time.Minute)      // dave had his turn, and the next one, erin's, is found to be elsewhere
		synctest.Wait()
		for _, to := range []string{"dave@second.example", "erin@first.example", "dan@second.example"} {
			if n := len(w.net.to(to)); n != 1 {
				t.Errorf("%d attempts for %s", n, to)
			}
		}
	})
}
