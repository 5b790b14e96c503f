package schedule

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
)

// work returns how often messages were read and recorded.
func (q *store) work() (loads, settles int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range q.settles {
		settles += n
	}
	return q.loads, settles
}

// backlog puts messages for a host that is dead into the queue, as they are there when the server starts.
func (w *world) backlog(many int) (ids []queue.ID) {
	w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
	for i := range many {
		ids = append(ids, w.queue.add(message(fmt.Sprintf("u%d@dead.example", i))).ID)
	}
	return ids
}

// dueOf returns when a message is tried next, the zero time for one that does not wait.
func (w *world) dueOf(id queue.ID) time.Time {
	list := []*queue.Record{{ID: 1 << 62}, {ID: id}}
	w.Due(list)
	if !list[0].Next.IsZero() {
		w.t.Error("a message is due that is not there")
	}
	return list[1].Next
}

// TestDeadBacklogCostsItsProbes: what waits for a dead host is neither read nor recorded while it waits; and mail for
// others goes past it.
func TestDeadBacklogCostsItsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 20_000
		w := prepare(t, newStore(t), func(o *Options) { o.Limits.Connections, o.Retry.WarnAfter = 4, -1 })
		ids := w.backlog(many)
		w.net.before = func(_ context.Context, j *deliver.Job) {
			if j.Domain == "dead.example" {
				time.Sleep(30 * time.Second) // and 4 connections for all
			}
		}
		w.start()
		for round := range 6 { // of a quarter of an hour
			time.Sleep(15 * time.Minute)
			begin := time.Now()
			w.accept(message(fmt.Sprintf("u%d@live.example", round)))
			synctest.Wait()
			if n := len(w.net.to(fmt.Sprintf("u%d@live.example", round))); n != 1 || time.Since(begin) != 0 {
				t.Errorf("live mail was attempted %d times after %s", n, time.Since(begin))
			}
		}
		time.Sleep(time.Minute)
		probes, last := 0, time.Time{}
		for _, a := range w.net.made() {
			if a.job.Domain != "dead.example" {
				continue
			}
			if probes++; probes > 4 && a.time.Sub(last) < 5*time.Minute { // the first find out that it is dead
				t.Errorf("probe %d comes %s after the one before", probes, a.time.Sub(last))
			}
			last = a.time
		}
		loads, settles := w.queue.work()
		if probes < 12 || probes > 30 || loads > probes || settles > probes+6 {
			t.Errorf("%d probes, %d loads, %d records for %d messages", probes, loads, settles, many)
		}
		attempts := 0
		for _, id := range ids {
			r := w.queue.get(id)
			attempts += r.Attempts
			if due := w.dueOf(id); due.Before(time.Now()) || time.Until(due) > 31*time.Minute {
				t.Fatalf("message %s is due in %s", id, time.Until(due))
			}
		}
		if attempts != probes {
			t.Errorf("%d attempts are recorded, %d were made", attempts, probes)
		}
		// It is back: the next probe finds out, and the rest follow within two of the shortest delays.
		w.net.mu.Lock()
		w.net.answer, w.net.before = nil, nil
		w.net.mu.Unlock()
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if n := w.queue.size(); n != 0 {
			t.Errorf("%d are left after the host came back", n)
		}
	})
}

// TestPutOffMailIsToldOf: a message that is put off is told of when it is late, and given up when its time is over, and a
// new policy counts at once.
func TestPutOffMailIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 500
		time.Sleep(300 * time.Millisecond) // not at a full second
		w := prepare(t, newStore(t), nil)
		ids := w.backlog(many)
		begin := time.Now()
		w.start()
		told := func(after time.Duration, n int) {
			t.Helper()
			time.Sleep(time.Until(begin.Add(after)))
			synctest.Wait()
			if got := len(w.reports("ann@example.org")); got != n {
				t.Errorf("after %s %d reports, %d were due", after, got, n)
			}
		}
		told(exactly.WarnAfter-time.Minute, 0)
		told(exactly.WarnAfter+31*time.Minute, many)
		if n := len(slices.DeleteFunc(ids, func(id queue.ID) bool { return w.queue.get(id).Attempts != 1 })); n < many/2 {
			t.Errorf("%d messages were taken once, when their sender had to be told; all others asked the host", n)
		}
		told(23*time.Hour, many)
		change := exactly
		change.Expire = 24 * time.Hour
		w.Configure(change, Limits{})
		told(24*time.Hour-time.Minute, many)
		told(24*time.Hour+31*time.Minute, 2*many)
		if n := w.queue.size(); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// TestVerbsOnPutOff: what is put off can be held, deleted and hastened as what waits.
func TestVerbsOnPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), nil)
		ids := w.backlog(50)
		w.start()
		time.Sleep(time.Minute)
		ids = slices.DeleteFunc(ids, func(id queue.ID) bool { return w.queue.get(id).Attempts > 0 }) // those that asked
		did(t, 1)(w.Hold(ids[:1], "wait"))
		did(t, 1)(w.Delete(ids[1:2]))
		if due := w.dueOf(ids[0]); !due.IsZero() || w.queue.get(ids[0]).Held != "wait" || w.queue.get(ids[1]) != nil {
			t.Error("not held, or not deleted")
		}
		w.net.mu.Lock()
		w.net.answer = nil
		w.net.mu.Unlock()
		did(t, 1)(w.Retry(ids[2:3]))
		synctest.Wait()
		if w.queue.get(ids[2]) != nil {
			t.Error("not tried at once")
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if n := w.queue.size(); n != 1 {
			t.Errorf("%d are left, one is held", n)
		}
		did(t, 1)(w.Release(ids[:1]))
	})
}

// TestLoneMessageOfADeadHost: what is known of a host is not forgotten between the attempts of the only message for it.
func TestLoneMessageOfADeadHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		begin := time.Now()
		w.accept(message("bob@dead.example"))
		time.Sleep(21 * time.Minute) // three attempts
		if st := w.Stats(1); st.Failing != 1 || st.Top[0].Failures != 3 || !st.Top[0].Since.Equal(begin) {
			t.Errorf("after %d attempts: %+v", len(w.net.made()), st)
		}
	})
}
