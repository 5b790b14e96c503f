package schedule

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/queue"
)

// TestWaitingKeepsMonotonicTime: what waits is measured without the wall clock, whose steps then make nothing due and put
// nothing off.
func TestWaitingKeepsMonotonicTime(t *testing.T) {
	w := prepare(t, newStore(t), nil)
	rec := &queue.Record{ID: 1, Next: time.Now().Add(20 * time.Minute), Attempts: 1, Received: time.Now(), Recipients: []queue.Recipient{{Recipient: message("bob@example.net").Envelope.To[0]}}}
	w.remember(rec)
	_, due, ok := w.table.first()
	if !ok || !strings.Contains(due.String(), " m=") { // Sub, Before and After go by it where both have one
		t.Errorf("it is due at %v, by the wall clock", due)
	}
	if left := time.Until(due); left > 20*time.Minute || left < 10*time.Minute {
		t.Errorf("it is due in %s", left)
	}
}

// TestStartWithTheClockSetBack: times that were written by a clock that was a year ahead keep nothing in the queue for that
// long, and what was received then is not given up.
func TestStartWithTheClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), nil)
		w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
		ahead := time.Now().AddDate(1, 0, 0)
		for _, to := range []string{"bob@live.example", "bob@dead.example"} {
			m := message(to)
			m.Received = ahead
			w.queue.records[w.queue.add(m).ID].Attempts = 1
		}
		for _, r := range w.queue.records {
			r.Next = ahead.Add(30 * time.Minute)
		}
		w.start()
		synctest.Wait()
		if n := len(w.net.made()); n != 0 {
			t.Errorf("%d attempts at once", n)
		}
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if n := len(w.net.to("bob@live.example")); n != 1 {
			t.Errorf("%d attempts at the first within half an hour", n)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(w.net.to("bob@dead.example")); n < 40 || n > 60 || w.queue.size() != 1 {
			t.Errorf("%d attempts at a dead host in a day; %d are left", n, w.queue.size())
		}
	})
}
