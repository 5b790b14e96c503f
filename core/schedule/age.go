package schedule

import (
	"fmt"
	"math"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
)

// How old a message is decides when its sender is told of the delay, and when it is given up. It is counted by a clock of
// the queue's own, which goes by the monotonic clock while a server has the queue, and stands still otherwise: nobody sets
// it, a machine that comes back after a week does not give up at once what nobody could try meanwhile, and no wall clock
// that is wrong makes a message older or younger, be it before a start, after it or in between. What a wall clock shows
// is written and told, and nothing is decided by it.
//
// Each record that waits says how old it was when it was written last, and what the clock showed then. The latest of all is
// where the clock goes on at the next start; what has passed since, half an hour at most where anything is tried, is lost.

// firstTick is what the clock of a queue that remembers none begins with: 0 says that there is none.
const firstTick = time.Second

// clock returns what the queue's clock shows; 0 where that is not known yet.
func (t *table) clock(now time.Time) time.Duration {
	if t.origin == 0 {
		return 0
	}
	return t.origin + now.Sub(t.base)
}

// age returns how old a message is, to the second and never too young.
func (t *table) age(e *entry, now time.Time) time.Duration {
	if e.unborn {
		return time.Duration(e.born) * time.Second
	}
	return t.clock(now) - time.Duration(e.born)*time.Second
}

// bear notes how old a message is that was not known yet. What was never tried is new, whatever its record says.
func (t *table) bear(e *entry, rec *queue.Record, now time.Time) {
	var age time.Duration
	switch {
	case rec.Clock > 0:
		t.latest = max(t.latest, rec.Clock)
		e.born = seconds(rec.Clock - rec.Age)
		return
	case rec.Attempts > 0: // of another queue or an older program: there is nothing but the wall clock
		age = max(now.Round(0).Sub(rec.Received.Round(0)), 0)
	}
	if e.unborn = t.origin == 0; e.unborn {
		e.born = seconds(age)
		return
	}
	e.born = seconds(t.clock(now) - age)
}

// begin has the clock go on where the records that were read end.
func (t *table) begin(now time.Time) {
	t.origin = max(t.latest, firstTick) - now.Sub(t.base)
	for i := uint32(1); i < t.used; i++ {
		if e := t.at(i); e.unborn {
			e.unborn = false
			e.born = seconds(t.clock(now) - time.Duration(e.born)*time.Second)
		}
	}
}

// seconds returns the whole seconds of d, rounded down.
func seconds(d time.Duration) int32 {
	n := d / time.Second
	if d < 0 && d%time.Second != 0 {
		n--
	}
	return int32(min(max(n, math.MinInt32), math.MaxInt32))
}

// tellDue returns when the sender of a waiting message has to be told something. s.mu is held.
func (s *Schedule) tellDue(e *entry, now time.Time) time.Time {
	return now.Add(s.settings.Load().retry.TellAge(e.warned) - s.table.age(e, now))
}

// dueAgain returns when a message is due that waited in the queue, or was just added. By a clock that is wrong, now or when
// it was written, its record may say anything: what was never tried is due at once, and the rest after the longest delay at most.
func (s *Schedule) dueAgain(rec *queue.Record, now time.Time) time.Time {
	switch latest := s.settings.Load().retry.Latest(now); {
	case rec.Attempts == 0:
		return now
	case latest.Before(rec.Next):
		return latest
	}
	return rec.Next
}

// wall watches the wall clock, so that the log says when it was set.
type wall struct {
	start time.Time // what it showed at table.base
	off   time.Duration
}

// setBy is by how much the wall clock has to go off before it is told.
const setBy = time.Minute

// moved returns by how much the wall clock was set since it was told last; 0 for not worth telling.
func (w *wall) moved(base, now time.Time) time.Duration {
	off := now.Round(0).Sub(w.start) - now.Sub(base)
	d := off - w.off
	if d.Abs() < setBy {
		return 0
	}
	w.off = off
	return d
}

// watchWall tells of a wall clock that was set. It is called by the clock goroutine alone.
func (s *Schedule) watchWall(now time.Time) {
	if d := s.wall.moved(s.table.base, now); d != 0 {
		way := "forward"
		if d < 0 {
			way = "back"
		}
		s.o.Events.Emit(event.Event{Name: event.Warning, Reason: fmt.Sprintf("the wall clock of this machine went %s by %s beside the time that has passed: "+
			"it was set, or the machine slept. No message is given up sooner or later for that", way, d.Abs().Round(time.Second))})
	}
}
