package schedule

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

func TestDeadSiteDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 10_000
		w := newWorld(t, func(o *Options) { o.Limits.Connections = 40; o.Retry.Jitter = 0.1 })
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		w.net.before = func(_ context.Context, j *deliver.Job) {
			if j.Domain == "dead.example" {
				time.Sleep(30 * time.Second)
			} else {
				time.Sleep(20 * time.Millisecond)
			}
		}
		begin := time.Now()
		var first queue.ID
		for i := range many {
			if id := w.accept(message(fmt.Sprintf("u%d@dead.example", i))); i == 0 {
				first = id
			}
		}
		for i := range 100 {
			w.accept(message(fmt.Sprintf("u%d@live.example", i)))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range 100 {
			made := w.net.to(fmt.Sprintf("u%d@live.example", i))
			if len(made) != 1 || made[0].time.Sub(begin) > time.Second {
				t.Fatalf("live %d: %d attempts, the first after %s", i, len(made), made[0].time.Sub(begin))
			}
		}
		if st := w.Stats(3); st.Failing != 1 || st.Top[0].Domain != "dead.example" || st.Top[0].Messages != many || !strings.Contains(st.Top[0].LastReply, "no host") {
			t.Errorf("%+v", st)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		n := 0
		for _, a := range w.net.made() {
			if a.job.Domain == "dead.example" {
				n++
			}
		}
		if n < 30 || n > 20+3*60/4 {
			t.Errorf("%d connects in three hours for %d messages to a dead host", n, many)
		}
		r := w.queue.get(first)
		if r.Attempts < 1 || r.Attempts > 9 || r.Recipients[0].Reply.Text != dead.Reply.Text || r.Recipients[0].Attempts != r.Attempts {
			t.Errorf("%d attempts counted, reply %v", r.Attempts, r.Recipients[0].Reply)
		}
		// It comes back: within the usual half hour everything is there.
		w.net.mu.Lock()
		w.net.answer, w.net.before = nil, nil
		w.net.mu.Unlock()
		time.Sleep(80 * time.Minute)
		synctest.Wait()
		if n := w.queue.size(); n != 0 {
			t.Errorf("%d left after the host came back", n)
		}
	})
}

// TestDeadSiteComesBackSlowly: a host that takes connections again gets two at first, and one more with each attempt that
// reaches it, up to the limit; a failure on the way begins it anew.
func TestDeadSiteComesBackSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.SiteConnections = 12 })
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		for i := range 5000 {
			w.accept(message(fmt.Sprintf("u%d@dead.example", i)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		var mu sync.Mutex
		var active, made, reached, most, low int
		var failed time.Time
		w.net.mu.Lock()
		w.net.before = func(context.Context, *deliver.Job) {
			mu.Lock()
			active++
			most = max(most, active)
			if time.Since(failed) > time.Minute { // those that had begun before have ended
				if active > max(slowStart, 1+reached) {
					t.Errorf("%d connections when it had been reached %d times", active, reached)
				}
				if made >= 71 && reached == 0 {
					low++
				}
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			active--
			mu.Unlock()
		}
		w.net.answer = func(*deliver.Job, mail.Recipient) deliver.Outcome {
			mu.Lock()
			defer mu.Unlock()
			if made++; made >= 60 && made < 72 {
				failed, reached = time.Now(), 0
				return dead
			}
			reached++
			return delivered
		}
		w.net.mu.Unlock()
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if n := w.queue.size(); n != 0 {
			t.Fatalf("%d left", n)
		}
		if most != 12 {
			t.Errorf("never more than %d connections; 12 are the limit", most)
		}
		if low == 0 {
			t.Error("it never began anew")
		}
	})
}

// TestSlotsAreShared: sites that hold every slot give one up after each message to the site that waits.
func TestSlotsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Connections, o.Limits.SiteConnections = 10, 10 })
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(time.Second) }
		begin := time.Now()
		for i := range 1000 {
			w.accept(message(fmt.Sprintf("u%d@busy.example", i)))
		}
		for i := range 20 {
			w.accept(message(fmt.Sprintf("u@small%d.example", i)))
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for i := range 20 {
			made := w.net.to(fmt.Sprintf("u@small%d.example", i))
			if len(made) != 1 || made[0].time.Sub(begin) > 5*time.Second {
				t.Errorf("small %d waited %s behind the busy one", i, made[0].time.Sub(begin))
			}
		}
		if w.queue.size() != 0 {
			t.Errorf("%d left", w.queue.size())
		}
		if took := w.net.made()[1019].time.Sub(begin); took > 105*time.Second {
			t.Errorf("slots were idle: the last attempt began after %s", took)
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Connections, o.Limits.SiteConnections = 7, 3 })
		var mu sync.Mutex
		now, most := map[string]int{}, map[string]int{}
		count := func(d int, keys ...string) {
			mu.Lock()
			defer mu.Unlock()
			for _, k := range keys {
				now[k] += d
				most[k] = max(most[k], now[k])
			}
		}
		w.net.before = func(_ context.Context, j *deliver.Job) {
			count(1, j.Domain, "all")
			time.Sleep(time.Second)
			count(-1, j.Domain, "all")
		}
		for i := range 300 {
			w.accept(message(fmt.Sprintf("u@d%d.example", i%5)))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if most["all"] != 7 || len(w.net.made()) != 300 {
			t.Errorf("%v at once, %d attempts", most, len(w.net.made()))
		}
		delete(most, "all")
		if m := slices.Max(slices.Collect(maps.Values(most))); m != 3 {
			t.Errorf("%d at once at one site", m)
		}
	})
}

func TestMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Memory, o.Limits.SiteConnections = 64<<10, 1 })
		release := make(chan struct{})
		w.net.before = func(context.Context, *deliver.Job) { <-release }
		big := message("a@example.net")
		big.Content = mail.Bytes(make([]byte, 20<<10))
		for range 10 {
			w.accept(big)
		}
		w.accept(message("a@example.net", "b@ok.example"))
		synctest.Wait()
		if st := w.Stats(1); st.Memory > 64<<10 || st.Memory < 40<<10 {
			t.Errorf("%d bytes in memory", st.Memory)
		}
		if p := w.Pressure(); p < 3 || p > 4 {
			t.Errorf("pressure %v with 200 KiB waiting and a budget of 64", p)
		}
		close(release)
		synctest.Wait()
		if w.Pressure() != 0 || w.queue.size() != 0 || len(w.net.made()) != 12 || w.queue.loads == 0 {
			t.Errorf("pressure %v, %d left, %d attempts", w.Pressure(), w.queue.size(), len(w.net.made()))
		}
	})
}

// TestFailingSiteGetsFewSlots: while nobody knows whether a host is dead, few slots wait for it.
func TestFailingSiteGetsFewSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.SiteFailures = 1000 })
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(30 * time.Second) }
		for range 100 {
			w.accept(message("u@dead.example"))
		}
		time.Sleep(45 * time.Second)
		if n := w.Stats(1).Active; n != 2 {
			t.Errorf("%d slots wait for a failing site", n)
		}
		time.Sleep(24 * time.Hour)
	})
}

// TestNewAndOldTakeTurns: neither a backlog nor a stream of new messages starves the other.
func TestNewAndOldTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections = 1 })
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(time.Second) }
		for range 20 {
			w.queue.add(message("old@example.net"))
		}
		w.start()
		for range 20 {
			w.accept(message("new@example.net"))
		}
		time.Sleep(10 * time.Second)
		if n, o := len(w.net.to("new@example.net")), len(w.net.to("old@example.net")); n < 4 || o < 4 {
			t.Errorf("%d new and %d old", n, o)
		}
		time.Sleep(time.Minute)
	})
}
