package schedule

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
)

const day = 24 * time.Hour

// wallMoves is by how much the wall clock is set in these tests. What it shows is seen by the schedule in records alone, so
// that it is those that are changed.
var wallMoves = map[string]time.Duration{"forward": 30 * day, "back": -30 * day, "not": 0}

// deadWorld makes a world in which example.net takes nothing.
func deadWorld(t *testing.T, q *store) *world {
	w := prepare(t, q, nil)
	w.net.answer = byDomain(map[string]deliver.Outcome{"example.net": later})
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) end() {
	w.t.Helper()
	if err := w.Stop(w.t.Context()); err != nil {
		w.t.Error(err)
	}
}

// setWall makes the records what they would be if the wall clock had been set by -d since they were written.
func (q *store) setWall(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.records {
		r.Received, r.Next = r.Received.Add(-d).Round(0), r.Next.Add(-d).Round(0)
	}
}

// TestWallClockSetWhileRunning: a message that came while the wall clock was wrong is tried at once, told of and given up as
// any other.
func TestWallClockSetWhileRunning(t *testing.T) {
	for name, d := range wallMoves {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := deadWorld(t, newStore(t))
				defer w.end()
				m := message("bob@example.net")
				m.Received = time.Now().Add(d)
				w.accept(m)
				for _, at := range []struct {
					after             time.Duration
					attempts, reports int
				}{{time.Second, 1, 0}, {4 * time.Hour, 10, 0}, {21 * time.Minute, 11, 1}, {5*day - 5*time.Hour, 241, 1}, {time.Hour, 243, 2}} {
					time.Sleep(at.after)
					synctest.Wait()
					if a, r := len(w.net.to("bob@example.net")), len(w.reports("ann@example.org")); a != at.attempts || r != at.reports {
						t.Errorf("%s later: %d attempts and %d reports, want %d and %d", at.after, a, r, at.attempts, at.reports)
					}
				}
			})
		})
	}
}

// TestWallClockSetBetweenStarts: what has waited two days has three left, whatever the wall clock shows at the next start and
// however long that is away, also where the wall clock is set right again afterwards.
func TestWallClockSetBetweenStarts(t *testing.T) {
	for name, d := range wallMoves {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newStore(t)
				w := deadWorld(t, q)
				w.accept(message("bob@example.net"))
				time.Sleep(2 * day)
				w.end()
				q.setWall(d)
				time.Sleep(7 * day) // nobody could try
				w = deadWorld(t, q)
				time.Sleep(day)
				synctest.Wait()
				if n := len(w.net.to("bob@example.net")); n < 47 || n > 50 || q.size() != 1 {
					t.Errorf("%d attempts in the first day, %d messages are left", n, q.size())
				}
				w.end()
				q.setWall(-d)
				w = deadWorld(t, q)
				defer w.end()
				time.Sleep(2*day - time.Hour)
				synctest.Wait()
				if q.size() != 1 {
					t.Error("given up too soon")
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if q.size() != 0 || len(w.reports("ann@example.org")) != 1 {
					t.Errorf("%d messages are left after five days, %d reports", q.size(), len(w.reports("ann@example.org")))
				}
			})
		})
	}
}

// TestPutOffAgesOverStarts: what is put off is not written, and is given up after five days nevertheless, though the server is
// started anew each day.
func TestPutOffAgesOverStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100
		q := newStore(t)
		for n := range 6 {
			w := prepare(t, q, func(o *Options) { o.Retry.WarnAfter = -1 })
			w.net.answer = byDomain(map[string]deliver.Outcome{"dead.example": dead})
			if err := w.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := 0; n == 0 && i < many; i++ {
				w.accept(message("bob@dead.example"))
			}
			time.Sleep(day)
			synctest.Wait()
			if left := q.size(); n < 4 && left != many {
				t.Fatalf("%d are left on day %d", left, n+1)
			}
			w.end()
		}
		if n := q.size(); n != 0 {
			t.Errorf("%d are left after six days", n)
		}
	})
}

// TestAgeOfStrangers: what another queue or an older program has tried is as old as the wall clock says; what nobody has tried
// is new.
func TestAgeOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newStore(t)
		add := func(attempts int, age time.Duration) queue.ID {
			m := message("bob@example.net")
			m.Received = time.Now().Add(-age)
			id := q.add(m).ID
			q.records[id].Attempts = attempts
			return id
		}
		old, tried, fresh, ahead := add(9, 6*day), add(9, 4*day), add(0, 30*day), add(9, -30*day)
		w := deadWorld(t, q)
		imported := q.get(add(9, 4*day)) // while it runs
		w.Offer(imported, nil)
		defer w.end()
		for _, at := range []struct {
			after time.Duration
			left  []queue.ID
		}{{time.Hour, []queue.ID{tried, fresh, ahead, imported.ID}}, {day, []queue.ID{fresh, ahead}}, {4 * day, nil}} {
			time.Sleep(at.after)
			synctest.Wait()
			for _, id := range at.left {
				if q.get(id) == nil {
					t.Errorf("message %d is gone too soon", id)
				}
			}
			if q.size() != len(at.left) || q.get(old) != nil {
				t.Errorf("%d are left %s later, not %d", q.size(), at.after, len(at.left))
			}
		}
	})
}

// TestWallMoved: less than a minute is not worth telling, until it is more together.
func TestWallMoved(t *testing.T) {
	base := time.Now()
	w := wall{start: base.Round(0)}
	for i, step := range []struct{ set, told time.Duration }{
		{0, 0}, {30 * day, 30 * day}, {0, 0}, {-30*day - time.Hour, -30*day - time.Hour}, {59 * time.Second, 0}, {time.Second, time.Minute}, {0, 0},
	} {
		w.start = w.start.Add(-step.set) // as if it was the clock that is read now
		if got := w.moved(base, base.Add(time.Duration(i)*time.Hour)); got != step.told {
			t.Errorf("step %d: told of %s, want %s", i, got, step.told)
		}
	}
}

// TestSetWallClockIsTold: once for each time, with its size.
func TestSetWallClockIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepare(t, newStore(t), nil)
		w.wall.start = w.wall.start.Add(-30 * day) // it was set right after
		w.start()
		time.Sleep(5 * longWait)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.events) != 1 || w.events[0].Name != event.Warning || !strings.Contains(w.events[0].Reason, "forward by 720h0m0s") {
			t.Errorf("told: %+v", w.events)
		}
	})
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int32{
		0: 0, time.Second: 1, 1999 * time.Millisecond: 1, -1: -1, -time.Second: -1, -1001 * time.Millisecond: -2,
		100 * 365 * day: 1<<31 - 1, -100 * 365 * day: -1 << 31,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%s: %d, want %d", d, got, want)
		}
	}
}
