package schedule

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// second has each attempt last a second.
func second(context.Context, *deliver.Job) { time.Sleep(time.Second) }

// begunBehind counts the attempts that were begun behind others.
func (n *net) begunBehind() (count int) {
	for _, a := range n.made() {
		if a.begun {
			count++
		}
	}
	return count
}

// What is ready for a site whose workers are all at work is begun behind what they are at, each message once.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.SiteConnections = 2 })
		w.net.before = second
		for i := range 20 {
			w.accept(message(fmt.Sprintf("u%d@example.net", i)))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range 20 {
			if n := len(w.net.to(fmt.Sprintf("u%d@example.net", i))); n != 1 {
				t.Errorf("message %d was attempted %d times", i, n)
			}
		}
		if n := w.net.begunBehind(); n != 18 || w.queue.size() != 0 {
			t.Errorf("%d of 18 were begun behind another, %d are left", n, w.queue.size())
		}
	})
}

// A site that waits for a slot gets it, and no message is begun in front of it.
func TestFollowNotBeforeAHungrySite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Connections = 1 })
		w.net.before = second
		for range 5 {
			w.accept(message("u@one.example"))
			w.accept(message("u@two.example"))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		made := w.net.made()
		for i := range 8 { // then one site has all
			if a, b := made[i].job.Domain, made[i+1].job.Domain; a == b || made[i+1].begun {
				t.Errorf("attempts %d and %d are for %s and %s", i, i+1, a, b)
			}
		}
		if len(made) != 10 {
			t.Errorf("%d attempts", len(made))
		}
	})
}

// Begun is begun: a rate counts from there.
func TestFollowKeepsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Limits.Destinations = []Destination{{Name: "big", Hosts: []string{"*.big.test"}, Connections: 1, Count: 1, Per: 3 * time.Second}}
			o.Hosts = bigHosts
		})
		long := true
		w.net.before = func(context.Context, *deliver.Job) {
			if long { // the rate would allow another one meanwhile
				time.Sleep(10 * time.Second)
			}
			long = false
		}
		for i := range 10 {
			w.accept(message(fmt.Sprintf("u%d@big.example", i)))
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		made := w.net.made()
		for i := 1; i < len(made); i++ {
			if after := made[i].time.Sub(made[i-1].time); after < 3*time.Second {
				t.Errorf("attempt %d began %s after the one before", i, after)
			}
		}
		if len(made) != 10 || w.net.begunBehind() != 1 {
			t.Errorf("%d attempts, %d begun behind another", len(made), w.net.begunBehind())
		}
	})
}

// A stop lets end what was begun, and begins nothing more.
func TestFollowAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections = 1 })
		if err := w.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.net.before = second
		for i := range 5 {
			w.accept(message(fmt.Sprintf("u%d@example.net", i)))
		}
		time.Sleep(1500 * time.Millisecond) // the second one is under way
		if err := w.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if made := w.net.made(); len(made) != 2 || !made[1].begun || w.queue.size() != 3 {
			t.Errorf("%+v, %d left", made, w.queue.size())
		}
		w.balanced()
	})
}

// A stop that waits no longer cuts what was begun short: it stays in the queue as it was.
func TestFollowAndStopShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections = 1 })
		if err := w.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.net.before = func(ctx context.Context, _ *deliver.Job) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		w.net.answer = func(j *deliver.Job, _ mail.Recipient) deliver.Outcome {
			if w.Schedule.ctx.Err() != nil {
				return later
			}
			return delivered
		}
		var ids []queue.ID
		for i := range 5 {
			ids = append(ids, w.accept(message(fmt.Sprintf("u%d@example.net", i))))
		}
		time.Sleep(1500 * time.Millisecond)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := w.Stop(ctx); err != ctx.Err() {
			t.Error(err)
		}
		if made := w.net.made(); len(made) != 2 || !made[1].begun {
			t.Errorf("%+v", made)
		}
		for i, id := range ids[1:] {
			if r := w.queue.get(id); r == nil || r.Attempts != 0 || r.Recipients[0].Attempts != 0 {
				t.Errorf("message %d: %+v", i+1, r)
			}
		}
		w.balanced()
	})
}

// What an operator asks of a message that is ready is done, and the message not begun.
func TestFollowNotAheadOfTheOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.SiteConnections = 1 })
		w.net.before = second
		w.accept(message("u0@example.net"))
		held := w.accept(message("u1@example.net"))
		w.accept(message("u2@example.net"))
		synctest.Wait()
		if _, err := w.Hold([]queue.ID{held}, "look at it"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := w.queue.get(held); r == nil || r.Held == "" || len(w.net.to("u1@example.net")) != 0 || len(w.net.to("u2@example.net")) != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// Whatever would keep a worker from the next message of its site keeps it from beginning it.
func TestFollowWaits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world, st *site)
		begun  bool
	}{
		{"nothing", func(*world, *site) {}, true},
		{"the site is in trouble", func(_ *world, st *site) { st.trouble = &trouble{} }, false},
		{"it has more workers than it may", func(_ *world, st *site) { st.ramp, st.active = 1, 2 }, false},
		{"the queue is behind", func(w *world, _ *site) { w.settling = maxSettling }, false},
		{"a stop", func(w *world, _ *site) { w.stopping = true }, false},
		{"a hungry site", func(w *world, _ *site) { w.sites.starve(w.sites.get(siteKey{"internet", "other.example"})) }, false},
		{"its hosts are not known", func(w *world, _ *site) { w.destinations, w.o.Hosts = []*destination{{}}, bigHosts }, false},
		{"its destination is crowded", func(_ *world, st *site) {
			st.dest = &destination{Destination: Destination{Connections: 5}, waiting: []*site{{}}}
		}, false},
		{"its destination has too many", func(_ *world, st *site) { st.dest = &destination{active: 1} }, false},
		{"its destination's rate", func(_ *world, st *site) { st.dest = &destination{next: time.Now().Add(time.Hour)} }, false},
		{"what is to be read, whose turn it is", func(w *world, st *site) {
			w.Offer(w.queue.add(message("u@example.net")), nil)
			st.turn = true
		}, false},
		{"what is to be read", func(w *world, _ *site) { w.Offer(w.queue.add(message("u@example.net")), nil) }, true},
		{"an operator", func(w *world, st *site) { w.table.at(st.lane().jobs.lease.entry).busy = true }, false},
		{"a suspension", func(_ *world, st *site) { st.suspended = &Suspension{} }, false},
		{"what is more urgent, and to be read", func(w *world, _ *site) {
			w.Offer(w.queue.add(urgent(message("u@example.net"), 3)), nil)
		}, false},
		{"nothing is ready", func(_ *world, st *site) { st.popJob(st.lane()) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := prepare(t, newStore(t), nil)
			w.accept(message("u@example.net"))
			st := w.sites.byKey[siteKey{"internet", "example.net"}]
			tt.change(w, st)
			if j := w.follow(st); (j != nil) != tt.begun {
				t.Errorf("begun: %v", j)
			}
		})
	}
}
