package schedule

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// TestSuspend: nothing is tried for a suspended destination, be it old, new, asked for by the operator, or there at a start; mail for
// others goes on; and what has waited goes out at once when the suspension ends.
func TestSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 3 << chunkBits // more than one step of the search
		w := prepare(t, newStore(t), nil)
		for i := range many {
			w.queue.add(message(fmt.Sprintf("u%d@example.net", i)))
		}
		x := Suspension{What: "example.net", Reason: "they are moving", Since: time.Now()}
		w.Suspend([]Suspension{x})
		w.start()
		synctest.Wait()
		fresh := w.accept(message("new@example.net"))
		both := w.accept(message("bob@example.net", "bob@live.example"))
		w.accept(message("bob@live.example"))
		w.accept(message("ann@sub.example.net"))
		synctest.Wait()
		if n, err := w.Retry([]queue.ID{fresh}); n != 0 || err != nil {
			t.Errorf("a retry counts %d, %v", n, err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := len(w.net.made()); n != 3 {
			t.Errorf("%d attempts, 3 are for other destinations", n)
		}
		for _, id := range []queue.ID{fresh, both} {
			r := w.queue.get(id)
			if got := r.Recipients[0].Reply.String(); got != "450 4.3.2 delivery there is suspended: they are moving" {
				t.Errorf("%q is said of %v", got, r.Recipients[0].Address)
			}
		}
		if r := w.queue.get(both); r.Recipients[1].State != queue.Delivered {
			t.Error("a suspension holds up another recipient")
		}
		if n := w.Suspended(x); n != many+2 {
			t.Errorf("%d are suspended", n)
		}
		if got := w.Due([]*queue.Record{{ID: 1 << 50}, {ID: fresh}, {ID: both}}); got[0] != nil || got[1] == nil || got[1].Reason != x.Reason || got[2] == nil {
			t.Errorf("suspended: %+v", got)
		}
		if loads, _ := w.queue.work(); loads > 40 {
			t.Errorf("%d messages were read", loads)
		}
		if st := w.Stats(2); st.Suspended != 1 || st.Top[0].Suspended == nil || st.Top[0].Messages != many+2 {
			t.Errorf("%+v", st)
		}
		w.Suspend(nil)
		synctest.Wait()
		if n := w.queue.size(); n != 0 {
			t.Errorf("%d have not gone out", n)
		}
	})
}

// TestSuspendedIsToldOf: that mail waits for the operator and not for the host is nothing to the sender, who is told of a
// delay and, in the end, of the failure.
func TestSuspendedIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.Suspend([]Suspension{{What: "internet"}})
		begin := time.Now()
		w.accept(message("bob@example.net"))
		w.accept(message("ann@example.com")) // by another route
		for _, x := range []struct {
			after   time.Duration
			reports int
		}{{exactly.WarnAfter - time.Minute, 0}, {exactly.WarnAfter + time.Hour, 1}, {exactly.Expire - time.Minute, 1}, {exactly.Expire + time.Hour, 2}} {
			time.Sleep(time.Until(begin.Add(x.after)))
			synctest.Wait()
			// A report goes to ann@example.org, by the same route.
			w.mu.Lock()
			got := 0
			for _, r := range w.queue.records {
				if r.Envelope.From.IsNull() {
					got++
				}
			}
			w.mu.Unlock()
			if got != x.reports {
				t.Errorf("after %s %d reports, %d were due", x.after, got, x.reports)
			}
		}
		if n := len(w.net.made()); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestSuspendWhileItRuns: a suspension under load stops what has not begun, and no message is lost or sent twice when it comes
// and goes.
func TestSuspendWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 500
		w := newWorld(t, func(o *Options) { o.Limits.SiteConnections = 3 })
		w.net.before = func(context.Context, *deliver.Job) { time.Sleep(100 * time.Millisecond) }
		w.queue.delay = time.Millisecond
		for i := range many {
			w.accept(message(fmt.Sprintf("u%d@example.net", i)))
		}
		for round := range 20 {
			time.Sleep(150 * time.Millisecond)
			w.Suspend([]Suspension{{What: "*"}})
			time.Sleep(101 * time.Millisecond) // what runs ends
			n := len(w.net.made())
			time.Sleep(time.Duration(round) * time.Second)
			if late := len(w.net.made()) - n; late != 0 {
				t.Errorf("%d attempts during a suspension", late)
			}
			w.Suspend(nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.net.made()); n != many || w.queue.size() != 0 {
			t.Errorf("%d attempts for %d messages, %d are left", n, many, w.queue.size())
		}
	})
}

// TestCalledBack: when a host that was dead is found to be there again, what was put off goes out without waiting for its time;
// what was tried itself keeps to its time, lest a host that takes a connection now and then be asked without a pause.
func TestCalledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 2000
		w := prepare(t, newStore(t), nil)
		ids := w.backlog(many)
		w.start()
		time.Sleep(time.Minute)
		tried := len(slices.DeleteFunc(ids, func(id queue.ID) bool { return w.queue.get(id).Attempts == 0 }))
		w.net.mu.Lock()
		w.net.answer = nil
		w.net.mu.Unlock()
		before := len(w.net.made())
		for len(w.net.made()) == before {
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := w.queue.size(); n > tried {
			t.Errorf("%d wait on, %d were tried while it was dead", n, tried)
		}
	})
}

// TestFlappingHostIsNotHammered: a host that takes every second connection only is asked as rarely as the policy says for
// each message.
func TestFlappingHostIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		turn := 0
		w.net.answer = func(*deliver.Job, mail.Recipient) deliver.Outcome {
			if turn++; turn%2 == 0 {
				return delivered
			}
			return dead
		}
		const many = 64
		for i := range many {
			w.accept(message(fmt.Sprintf("u%d@example.net", i)))
			synctest.Wait()
		}
		if n := len(w.net.made()); n != many {
			t.Errorf("%d attempts for %d messages at once", n, many)
		}
	})
}

func TestSuspensionCovers(t *testing.T) {
	for _, tt := range []struct{ destination, route, domain string }{
		{"*", "internet", "example.net"}, {"*", "partner", ""}, {"partner", "partner", ""}, {"internet", "internet", "example.net"},
		{"EXAMPLE.net", "internet", "example.net"}, {"*.example.net", "internet", "a.b.example.net"},
	} {
		if x := (Suspension{What: tt.destination}); !x.covers(siteKey{tt.route, tt.domain}) {
			t.Errorf("%q does not cover %s/%s", tt.destination, tt.route, tt.domain)
		}
	}
	for _, tt := range []struct{ destination, route, domain string }{
		{"*", "", "unsorted"}, {"*", "", "nowhere"}, {"nowhere", "", "nowhere"}, {"example.net", "internet", "a.example.net"},
		{"*.example.net", "internet", "example.net"}, {"net", "internet", "example.net"}, {"", "partner", ""}, {"", "internet", "example.net"},
	} {
		if x := (Suspension{What: tt.destination}); x.covers(siteKey{tt.route, tt.domain}) {
			t.Errorf("%q covers %s/%s", tt.destination, tt.route, tt.domain)
		}
	}
	for _, reason := range []string{"", "a\r\nb", strings.Repeat("x", 5000), "\xff"} {
		x := Suspension{Reason: reason}
		if r := x.outcome().Reply; r.Check() != nil || !r.Temporary() {
			t.Errorf("%q: %v", reason, r)
		}
	}
}

// TestSearchBeginsAgain: what comes back while others are being searched for is not passed by.
func TestSearchBeginsAgain(t *testing.T) {
	const many = 2 << chunkBits
	w := prepare(t, newStore(t), nil) // and not started: the steps are made here
	a, b := Suspension{What: "a.example"}, Suspension{What: "b.example"}
	w.Suspend([]Suspension{a, b})
	for i := range many {
		w.remember(w.queue.add(message(fmt.Sprintf("u%d@%c.example", i, 'a'+i%2))))
	}
	w.Schedule.mu.Lock()
	defer w.Schedule.mu.Unlock()
	step := func(list ...Suspension) bool {
		w.Schedule.mu.Unlock()
		w.Suspend(list)
		w.Schedule.mu.Lock()
		return w.search(time.Now())
	}
	if !step(b) || w.table.count[ready] == 0 || !step() {
		t.Fatal("the search ends after one step, or finds nothing")
	}
	for w.search(time.Now()) {
	}
	if n := w.table.count[ready]; n != many {
		t.Errorf("%d of %d come up", n, many)
	}
}

func from(sender string, m *queue.Message) *queue.Message {
	m.Envelope.From = mail.MustParseAddress(sender)
	return m
}

// TestSuspendSender: nothing of a suspended sender is tried, new or queued, asked for or going out behind another's; all goes out at once
// when the suspension ends, and mail of others as ever.
func TestSuspendSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 300
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections = 3 })
		senders := []string{"ann@example.org", "carol@example.org"}
		var ids []queue.ID
		for i := range many {
			ids = append(ids, w.queue.add(from(senders[i%2], message(fmt.Sprintf("u%d@example.net", i)))).ID)
		}
		w.Suspend([]Suspension{{What: "ANN@example.org", Reason: "the password is known"}, {What: "@spam.example"}})
		w.start()
		for i := range many {
			w.accept(from(senders[i%2], message(fmt.Sprintf("n%d@example.net", i))))
		}
		synctest.Wait()
		if _, err := w.Retry(ids[:1]); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		for _, a := range w.net.made() {
			if a.job.Envelope.From.String() != senders[1] {
				t.Fatalf("an attempt for %s", a.job.Envelope.From)
			}
		}
		if got := w.queue.get(ids[0]).Recipients[0].Reply.String(); got != "450 4.3.2 mail of this sender is suspended: the password is known" {
			t.Errorf("%q is said", got)
		}
		if n := w.queue.size(); n != many {
			t.Errorf("%d are queued, %d wait for their sender", n, many)
		}
		w.Suspend(nil)
		synctest.Wait()
		if n := w.queue.size(); n != 0 || len(w.net.made()) != 2*many {
			t.Errorf("%d have not gone out, in %d attempts", n, len(w.net.made()))
		}
	})
}

// TestSuspendedSenderFindsNothingOut: a message of a suspended sender that comes up when a dead host is to be asked again does
// not ask, and so must not keep others from asking.
func TestSuspendedSenderFindsNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.SiteConnections = 1 })
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		for i := range 20 {
			w.accept(from([]string{"ann@example.org", "carol@example.org"}[i%2], message(fmt.Sprintf("u%d@dead.example", i))))
		}
		synctest.Wait()
		w.Suspend([]Suspension{{What: "ann@example.org"}})
		w.net.mu.Lock()
		w.net.answer = nil
		w.net.mu.Unlock()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := w.queue.size(); n != 10 {
			t.Errorf("%d are queued, 10 wait for their sender", n)
		}
	})
}

// TestSuspendedWhileBegun: a message whose commands are on their way already, behind those of another, goes on: its connection is
// its own, and nobody else would end it.
func TestSuspendedWhileBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.SiteConnections = 1 })
		for i := range 6 {
			m := message(fmt.Sprintf("u%d@example.net", i))
			w.Offer(w.queue.add(m), m.Content) // in memory, before the start
		}
		w.net.handed = func() { w.Suspend([]Suspension{{What: "ann@example.org"}}) }
		w.start()
		synctest.Wait()
		if n := len(w.net.made()); n != 2 {
			t.Errorf("%d attempts; one was being made, and one was begun behind it", n)
		}
		if n := len(w.net.begun); n != 0 {
			t.Errorf("%d were begun and left", n)
		}
	})
}
