package schedule

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
)

// did checks a verb's answer.
func did(t *testing.T, want int) func(int, error) {
	t.Helper()
	return func(n int, err error) {
		t.Helper()
		if n != want || err != nil {
			t.Errorf("%d done, %v; want %d", n, err, want)
		}
	}
}

func TestVerbsOnWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
		id := w.accept(message("bob@example.net"))
		ids := []queue.ID{id, 4711}
		synctest.Wait()

		did(t, 1)(w.Hold(ids, "look at this"))
		did(t, 0)(w.Hold(ids, ""))
		did(t, 0)(w.Retry(ids))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if r := w.queue.get(id); r.Held != "look at this" || len(w.net.made()) != 1 || w.Stats(1).Held != 1 {
			t.Fatalf("held: %+v, %d attempts", r, len(w.net.made()))
		}
		did(t, 1)(w.Release(ids))
		did(t, 0)(w.Release(ids))
		synctest.Wait()
		if r := w.queue.get(id); r.Held != "" || len(w.net.made()) != 2+w.seen(event.Bounced) {
			t.Fatalf("released: %+v, %d attempts", r, len(w.net.made()))
		}
		before := len(w.net.made())
		did(t, 1)(w.Retry(ids))
		synctest.Wait()
		if n := len(w.net.made()); n != before+1 {
			t.Fatalf("%d attempts after a retry", n-before)
		}
		did(t, 1)(w.Bounce(ids, ""))
		synctest.Wait()
		reports := w.reports("ann@example.org")
		if text := read(t, reports[len(reports)-1].Content); !strings.Contains(text, "removed from the queue by the operator") || !strings.Contains(text, "Status: 5.0.0") {
			t.Errorf("told:\n%s", text)
		}
		if w.queue.size() != 0 {
			t.Error("bounced, and still there")
		}
		did(t, 0)(w.Delete(ids))
		if w.seen(event.MessageHeld) != 1 || w.seen(event.MessageReleased) != 1 {
			t.Error("events")
		}
	})
}

func TestVerbsOnHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		m := message("bob@example.net", "carl@ok.example")
		m.Held = "quarantine"
		a, b := w.accept(m), w.accept(m)
		did(t, 1)(w.Delete([]queue.ID{a}))
		did(t, 1)(w.Bounce([]queue.ID{b}, ""))
		synctest.Wait()
		if len(w.reports("ann@example.org")) != 1 || len(w.net.made()) != 1 || w.queue.size() != 0 || w.seen(event.MessageDeleted) != 1 {
			t.Errorf("%d attempts, %d left", len(w.net.made()), w.queue.size())
		}
	})
}

// TestVerbsDuringLease: what is asked of a message that is being attempted happens when the attempt has ended.
func TestVerbsDuringLease(t *testing.T) {
	for _, tt := range []struct {
		name   string
		do     func(*world, []queue.ID) (int, error)
		answer deliver.Outcome
		check  func(*world, *queue.Record) bool
	}{
		{"hold", func(w *world, ids []queue.ID) (int, error) { return w.Hold(ids, "wait") }, later,
			func(w *world, r *queue.Record) bool {
				return r.Held == "wait" && r.Attempts == 1 && w.Stats(1).Held == 1
			}},
		{"hold, but delivered", func(w *world, ids []queue.ID) (int, error) { return w.Hold(ids, "wait") }, delivered,
			func(_ *world, r *queue.Record) bool { return r == nil }},
		{"delete", func(w *world, ids []queue.ID) (int, error) { return w.Delete(ids) }, later,
			func(w *world, r *queue.Record) bool { return r == nil && w.seen(event.Bounced) == 0 }},
		{"bounce", func(w *world, ids []queue.ID) (int, error) { return w.Bounce(ids, "") }, later,
			func(w *world, r *queue.Record) bool { return r == nil && len(w.reports("ann@example.org")) == 1 }},
		{"bounce, but delivered", func(w *world, ids []queue.ID) (int, error) { return w.Bounce(ids, "") }, delivered,
			func(w *world, r *queue.Record) bool { return r == nil && w.seen(event.Bounced) == 0 }},
		{"retry", func(w *world, ids []queue.ID) (int, error) { return w.Retry(ids) }, later,
			func(w *world, r *queue.Record) bool { return r.Attempts == 2 && len(w.net.made()) == 2 }},
		{"hold and release", func(w *world, ids []queue.ID) (int, error) {
			if _, err := w.Hold(ids, "wait"); err != nil {
				return 0, err
			}
			return w.Release(ids)
		}, later, func(_ *world, r *queue.Record) bool { return r.Held == "" && r.Attempts == 1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": tt.answer})
				w.net.before = func(context.Context, *deliver.Job) { time.Sleep(time.Minute) }
				id := w.accept(message("bob@example.net"))
				time.Sleep(time.Second)
				did(t, 1)(tt.do(w, []queue.ID{id}))
				time.Sleep(150 * time.Second)
				synctest.Wait()
				if r := w.queue.get(id); !tt.check(w, r) {
					t.Errorf("%+v, %d attempts", r, len(w.net.made()))
				}
			})
		})
	}
}

// TestVerbsWhileReady: a message that waits for a connection is not attempted any more once it is held, deleted or
// bounced.
func TestVerbsWhileReady(t *testing.T) {
	for _, memory := range []int64{0, 1} { // its content in memory, or not
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.Limits.SiteConnections, o.Limits.Memory = 1, memory })
			w.net.before = func(_ context.Context, j *deliver.Job) { time.Sleep(time.Minute) }
			w.accept(message("first@example.net"))
			hold, del, fail := w.accept(message("a@example.net")), w.accept(message("b@example.net")), w.accept(message("c@example.net"))
			time.Sleep(time.Second)
			did(t, 1)(w.Hold([]queue.ID{hold}, "wait"))
			did(t, 1)(w.Delete([]queue.ID{del}))
			did(t, 1)(w.Bounce([]queue.ID{fail}, ""))
			time.Sleep(time.Hour)
			synctest.Wait()
			if r := w.queue.get(hold); r == nil || r.Held != "wait" || w.queue.size() != 1 {
				t.Errorf("%+v, %d left", r, w.queue.size())
			}
			if n := len(w.net.made()); n != 2 || len(w.reports("ann@example.org")) != 1 {
				t.Errorf("%d attempts", n)
			}
		})
	}
}

func TestVerbsOnMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		w.queue.delay = time.Millisecond
		var ids []queue.ID
		for i := range 1000 {
			ids = append(ids, w.accept(message(fmt.Sprintf("u%d@dead.example", i))))
		}
		time.Sleep(time.Minute)
		did(t, 1000)(w.Hold(ids, ""))
		did(t, 1000)(w.Release(ids[:]))
		time.Sleep(time.Minute)
		did(t, 1000)(w.Delete(ids))
		synctest.Wait()
		if w.queue.size() != 0 {
			t.Errorf("%d left", w.queue.size())
		}
	})
}

// TestRetryWakesSite: an operator who knows that a host is back need not wait for it to be found out.
func TestRetryWakesSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		var ids []queue.ID
		for i := range 50 {
			ids = append(ids, w.accept(message(fmt.Sprintf("u%d@dead.example", i))))
		}
		synctest.Wait()
		w.net.mu.Lock()
		w.net.answer = nil
		w.net.mu.Unlock()
		did(t, 1)(w.Retry(ids[:1]))
		synctest.Wait()
		left := w.queue.size() // those that were not asked for while it was dead come up by themselves
		if left >= defaultSiteConnections {
			t.Fatalf("%d left", left)
		}
		did(t, left)(w.Retry(ids))
		synctest.Wait()
		if w.queue.size() != 0 {
			t.Errorf("%d left", w.queue.size())
		}
	})
}

func TestBounceWhenReportFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Bounce = func(context.Context, *Report) (*queue.Message, error) { return nil, errReport }
		})
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
		id := w.accept(message("bob@example.net"))
		synctest.Wait()
		if n, err := w.Bounce([]queue.ID{id}, ""); n != 0 || err != errReport {
			t.Errorf("%d, %v", n, err)
		}
		if r := w.queue.get(id); r == nil || r.Recipients[0].State != queue.Pending || w.Stats(1).Waiting != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// TestVerbsWhileTheQueueWrites: nor is what is asked forgotten between the end of an attempt and its record.
func TestVerbsWhileTheQueueWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
		w.queue.delay = 10 * time.Second
		hold, again := w.accept(message("a@example.net")), w.accept(message("b@example.net"))
		time.Sleep(5 * time.Second)
		did(t, 1)(w.Hold([]queue.ID{hold}, "wait"))
		did(t, 1)(w.Retry([]queue.ID{again}))
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if r := w.queue.get(hold); r.Held != "wait" || len(w.net.to("a@example.net")) != 1 {
			t.Errorf("%+v", r)
		}
		if n := len(w.net.to("b@example.net")); n != 2 {
			t.Errorf("%d attempts", n)
		}
	})
}
