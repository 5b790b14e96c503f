package schedule

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

func TestFirstAttemptReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		m := message("bob@example.net")
		m.Envelope.SMTPUTF8, m.Envelope.EnvID = true, "id"
		id := w.accept(m)
		synctest.Wait()
		made := w.net.made()
		if len(made) != 1 || w.queue.loads != 0 || w.queue.settles[id] != 1 || w.queue.size() != 0 {
			t.Fatalf("%d attempts, %d loads, %d settles, %d left", len(made), w.queue.loads, w.queue.settles[id], w.queue.size())
		}
		j := made[0].job
		if j.ID != id.String() || j.Route != "internet" || j.Domain != "example.net" || j.Attempt != 1 ||
			!j.Envelope.SMTPUTF8 || j.Envelope.EnvID != "id" || j.Envelope.To[0].Address.String() != "bob@example.net" || j.Content != m.Content {
			t.Errorf("job %+v", j)
		}
		if w.seen(event.Attempt) != 1 || w.seen(event.MessageDone) != 1 {
			t.Errorf("events %+v", w.events)
		}
	})
}

// TestOfferWithoutContent: what was too large to be kept in memory is read for its first attempt, which is not a second one.
func TestOfferWithoutContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		rec := w.queue.add(message("bob@example.net"))
		w.Offer(rec, nil)
		synctest.Wait()
		made := w.net.made()
		if len(made) != 1 || made[0].job.Content == nil || made[0].job.Attempt != 1 || w.queue.loads != 1 || w.queue.size() != 0 {
			t.Fatalf("%d attempts, %d loads, %d left: %+v", len(made), w.queue.loads, w.queue.size(), made)
		}
	})
}

func TestFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { fiveDays(t, nil) })
}

func TestFiveDaysRealQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := queue.Open("", queue.Options{InMemory: true, MinFree: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		})
		fiveDays(t, q)
	})
}

// fiveDays has a peer that takes nothing: tried after 5, 20 and 50 minutes and then each half hour, a warning after four
// hours, a failure after five days, and nothing left.
func fiveDays(t *testing.T, q *queue.Queue) {
	begin := time.Now()
	w := prepare(t, newStore(t), func(o *Options) {
		if q != nil {
			o.Queue = q
		}
	})
	w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
	w.start()
	m := message("bob@example.net")
	if q == nil {
		w.accept(m)
	} else {
		r, err := q.Add(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		w.Offer(r, m.Content)
	}
	time.Sleep(6 * 24 * time.Hour)
	synctest.Wait()

	at := []time.Duration{0, 5 * time.Minute, 20 * time.Minute}
	for at[len(at)-1] < 5*24*time.Hour {
		at = append(at, at[len(at)-1]+30*time.Minute)
	}
	made := w.net.to("bob@example.net")
	if len(made) != len(at) {
		t.Fatalf("%d attempts, want %d", len(made), len(at))
	}
	for i, a := range made {
		if got := a.time.Sub(begin).Round(time.Millisecond); got != at[i] || a.job.Attempt != i+1 {
			t.Errorf("attempt %d (%d) after %s, want %s", i+1, a.job.Attempt, got, at[i])
		}
	}
	reports := w.net.to("ann@example.org")
	if len(reports) != 2 {
		t.Fatalf("%d reports", len(reports))
	}
	for i, want := range []struct {
		at          time.Duration
		text, until string
	}{{4*time.Hour + 20*time.Minute, "Action: delayed", "Will-Retry-Until: "}, {at[len(at)-1], "Status: 4.4.7", "Action: failed"}} {
		text := read(t, reports[i].job.Content)
		if got := reports[i].time.Sub(begin).Round(time.Millisecond); got != want.at || !strings.Contains(text, want.text) || !strings.Contains(text, want.until) {
			t.Errorf("report %d after %s, want %s with %q:\n%s", i+1, got, want.at, want.text, text)
		}
		if !strings.Contains(text, "greylisted") || !strings.Contains(text, "Arrival-Date: "+begin.Format("Mon, 2 Jan 2006")) {
			t.Errorf("report %d lacks facts:\n%s", i+1, text)
		}
	}
	if st := w.Stats(5); st.Waiting+st.Ready+st.Leased+st.Held != 0 {
		t.Errorf("left over: %+v", st)
	}
}

func read(t *testing.T, c mail.Content) string {
	t.Helper()
	b, err := io.ReadAll(mail.Reader(c))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRecipientsOfSeveralSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"late.example": later, "never.example": never, "gone.example": never})
		id := w.accept(message("a@ok.example", "b@ok.example", "c@late.example", "d@never.example", "e@gone.example", "u@example.com", "x@partner.example", "y@sub.partner.example"))
		synctest.Wait()
		r := w.queue.get(id)
		var states []string
		for _, rcpt := range r.Recipients {
			states = append(states, rcpt.State.String())
		}
		if got := strings.Join(states, " "); got != "delivered delivered pending failed failed delivered delivered delivered" {
			t.Fatal(got)
		}
		if got := len(w.net.to("a@ok.example")[0].job.Envelope.To); got != 2 {
			t.Errorf("two recipients of one domain went in %d", got)
		}
		if j := w.net.to("x@partner.example")[0].job; len(j.Envelope.To) != 2 || j.Route != "partner" {
			t.Errorf("a smarthost is one site: %+v", j)
		}
		if j := w.net.to("u@example.com")[0].job; j.Route != "local" {
			t.Errorf("%+v", j)
		}
		reports := w.reports("ann@example.org")
		if len(reports) != 1 {
			t.Fatalf("%d reports of one attempt", len(reports))
		}
		text := read(t, reports[0].Content)
		if strings.Count(text, "Final-Recipient:") != 2 || strings.Contains(text, "late.example") {
			t.Errorf("reported:\n%s", text)
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if n := len(w.net.to("c@late.example")); n != 2 || len(w.net.to("a@ok.example")) != 1 || len(w.net.to("d@never.example")) != 1 {
			t.Errorf("%d attempts at the late one, %d at the delivered", n, len(w.net.to("a@ok.example")))
		}
		w.net.mu.Lock()
		w.net.answer = nil
		w.net.mu.Unlock()
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		if w.queue.size() != 0 {
			t.Error("the message is still there")
		}
	})
}

// TestSlowSite: what was delivered is on record at once, and failures are told of soon, while one site takes its time.
func TestSlowSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		release := make(chan struct{})
		w.net.answer = byDomain(map[string]deliver.Outcome{"never.example": never})
		w.net.before = func(_ context.Context, j *deliver.Job) {
			switch j.Domain {
			case "slow.example":
				<-release
			case "ok.example":
				time.Sleep(time.Second)
			}
		}
		id := w.accept(message("s@slow.example", "a@ok.example", "d@never.example"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r := w.queue.get(id)
		if r.Recipients[1].State != queue.Delivered || r.Recipients[0].State != queue.Pending || r.Recipients[2].State != queue.Pending {
			t.Fatalf("%+v", r.Recipients)
		}
		if n := len(w.reports("ann@example.org")); n != 0 {
			t.Fatalf("%d reports already", n)
		}

		// We die now: what was delivered is not sent again.
		twin := prepare(t, w.queue, nil)
		twin.start()
		synctest.Wait()
		if len(twin.net.to("a@ok.example")) != 0 || len(twin.net.to("s@slow.example")) != 1 {
			t.Errorf("after a crash: %+v", twin.net.made())
		}
		close(release)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		release := make(chan struct{})
		w.net.answer = byDomain(map[string]deliver.Outcome{"never.example": never, "gone.example": never})
		w.net.before = func(_ context.Context, j *deliver.Job) {
			if j.Domain == "slow.example" {
				<-release
			}
		}
		id := w.accept(message("s@slow.example", "d@never.example", "e@gone.example"))
		time.Sleep(settleAfter + time.Second)
		synctest.Wait()
		if n := len(w.reports("ann@example.org")); n != 1 {
			t.Errorf("%d reports while one site is slow", n)
		}
		if r := w.queue.get(id); r.Recipients[1].State != queue.Failed || r.Recipients[0].State != queue.Pending {
			t.Errorf("%+v", r.Recipients)
		}
		close(release)
		synctest.Wait()
		if w.queue.size() != 0 || len(w.net.to("d@never.example")) != 1 {
			t.Error("not ended")
		}
	})
}

func TestCrashBetweenAttemptAndSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newStore(t)
		w := prepare(t, q, nil)
		w.start()
		q.mu.Lock()
		q.broken = queue.ErrStopped
		q.mu.Unlock()
		w.accept(message("bob@example.net"))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(w.net.made()); n != 1 || w.seen(event.StorageFailed) != 1 {
			t.Fatalf("%d attempts by a process that can't record them", n)
		}
		q.mu.Lock()
		q.broken = nil
		q.mu.Unlock()
		twin := prepare(t, q, nil)
		twin.start()
		synctest.Wait()
		if n := len(twin.net.made()); n != 1 || q.size() != 0 {
			t.Errorf("%d attempts after the restart, %d messages left", n, q.size())
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newStore(t)
		w := prepare(t, q, func(o *Options) { o.Limits.SiteConnections = 2 })
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(10 * time.Second) }
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			w.accept(message("bob@example.net"))
		}
		synctest.Wait()
		begin := time.Now()
		if err := w.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second || len(w.net.made()) != 2 || q.size() != 8 {
			t.Errorf("stopped after %s with %d attempts, %d left", took, len(w.net.made()), q.size())
		}
		w.accept(message("late@example.net"))
		if n, err := w.Retry([]queue.ID{3}); n != 0 || err != nil {
			t.Errorf("a verb after the stop: %d, %v", n, err)
		}
		synctest.Wait()
		if len(w.net.made()) != 2 {
			t.Error("an attempt after the stop")
		}
		if err := w.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStopCutsAttemptsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newStore(t)
		w := prepare(t, q, nil)
		w.net.before = func(ctx context.Context, _ *deliver.Job) { <-ctx.Done() }
		w.net.answer = byDomain(map[string]deliver.Outcome{"late.example": later})
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		id := w.accept(message("bob@late.example"))
		w.accept(message("bob@made.it.example"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait()
		if r := q.get(id); q.size() != 1 || r == nil || r.Attempts != 0 {
			t.Errorf("%d left; what we cut short counts: %+v", q.size(), r)
		}
	})
}

func TestMisbehavingDeliverer(t *testing.T) {
	for name, answer := range map[string]func() []deliver.Outcome{
		"panics":       func() []deliver.Outcome { panic("boom") },
		"says nothing": func() []deliver.Outcome { return nil },
		"too much":     func() []deliver.Outcome { return make([]deliver.Outcome, 3) },
		"no class":     func() []deliver.Outcome { return make([]deliver.Outcome, 1) },
		"wrong class":  func() []deliver.Outcome { return []deliver.Outcome{{Class: 77}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *Options) { o.Deliver = fixed(answer) })
				id := w.accept(message("bob@example.net"))
				time.Sleep(time.Hour)
				synctest.Wait()
				if r := w.queue.get(id); r == nil || r.Attempts != 4 || !r.Recipients[0].Reply.Temporary() {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

type fixed func() []deliver.Outcome

func (f fixed) Attempt(context.Context, *deliver.Job) []deliver.Outcome { return f() }

func TestNoRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		table := route.Table{}
		w := newWorld(t, func(o *Options) {
			o.Routes = func() route.Table { mu.Lock(); defer mu.Unlock(); return table }
		})
		id := w.accept(message("bob@example.net"))
		synctest.Wait()
		if r := w.queue.get(id); r.Recipients[0].Reply != noRoute || r.Attempts != 1 || len(w.net.made()) != 0 {
			t.Fatalf("%+v", r)
		}
		mu.Lock()
		table = routes // reloaded
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if w.queue.size() != 0 || len(w.net.made()) != 1 {
			t.Error("the new route was not taken")
		}
	})
}

func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newStore(t)
		w := prepare(t, q, nil)
		q.add(message("now@example.net"))
		q.add(message("a@example.net", "b@example.com"))
		stopped := message("held@example.net")
		stopped.Held = "quarantine"
		q.add(stopped)
		waits := q.add(message("waits@example.net"))
		q.mu.Lock()
		q.records[waits.ID].Attempts, q.records[waits.ID].Next = 1, time.Now().Add(20*time.Minute)
		q.mu.Unlock()
		w.start()
		synctest.Wait()
		if st := w.Stats(9); len(w.net.made()) != 3 || st.Held != 1 || st.Waiting != 1 {
			t.Errorf("%d attempts, %+v", len(w.net.made()), st)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if len(w.net.to("waits@example.net")) != 1 || len(w.net.to("held@example.net")) != 0 {
			t.Errorf("%+v", w.net.made())
		}
		if err := w.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
	})
}

func TestMessageIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
		id := w.accept(message("bob@example.net"))
		synctest.Wait()
		w.queue.Delete(id, func(error) {})
		time.Sleep(time.Hour)
		synctest.Wait()
		if st := w.Stats(1); st.Waiting+st.Ready+st.Leased != 0 || len(w.net.made()) != 1 {
			t.Errorf("%+v", st)
		}
	})
}
