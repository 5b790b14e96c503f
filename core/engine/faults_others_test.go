package engine

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// enough is how many sessions of others a figure is made of.
	enough = 200
	// otherClients is how many clients make them, for the figures.
	otherClients = 2
	otherEvery   = 20 * time.Millisecond
	// slack is what the 99th percentile of others may have beside twice the calm one: the start of one process takes a
	// core of a small machine for as long.
	slack = 100 * time.Millisecond
	// longest is how long a fault is kept up to have enough sessions of others in it.
	longest = 10 * time.Second
)

// others are clients of a server that have nothing to do with the plugins under test. They work while they are wanted.
type others struct {
	wanted atomic.Int32
	count  atomic.Int32
	took   []took // guarded by the rig's mu
	calm   []time.Duration
}

type took struct {
	ended time.Time
	long  time.Duration
}

// serveOthers keeps clients busy until stop.
func (r *faultRig) serveOthers(clients int, every time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{}, clients)
	for range clients {
		go func() {
			defer func() { ended <- struct{}{} }()
			for tick := time.Tick(every); ; <-tick {
				select {
				case <-done:
					return
				default:
				}
				if r.others.wanted.Load() > 0 {
					r.another()
				}
			}
		}()
	}
	return func() {
		close(done)
		for range clients {
			<-ended
		}
	}
}

// another is one session of somebody else. For the figures, every fourth hands a message in: a session costs a processor
// less than a message does.
func (r *faultRig) another() {
	began := time.Now()
	s := r.session("plain")
	code := s.say("MAIL FROM:<bob@else.example>")
	if n := r.others.count.Add(1); n%4 == 0 || !*allFaults {
		s.say("RSET")
		_, _, code = r.send(s, "bob@else.example", "ann@here.example", 1000)
	} else if code == 250 {
		code = s.say("RCPT TO:<ann@here.example>")
	}
	if code != 250 {
		r.t.Errorf("%s: another session was answered %s", r.kind, s)
	}
	s.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others.took = append(r.others.took, took{time.Now(), time.Since(began)})
}

// since returns how long the sessions took that ended after a moment.
func (r *faultRig) since(began time.Time) (list []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range slices.Backward(r.others.took) {
		if x.ended.Before(began) {
			break
		}
		list = append(list, x.long)
	}
	return list
}

// rest measures what others see when no plugin misbehaves.
func (r *faultRig) rest() {
	began := time.Now()
	r.others.wanted.Add(1)
	until(func() bool { return len(r.since(began)) >= 2*enough })
	r.others.wanted.Add(-1)
	list := r.since(began)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others.calm = append(r.others.calm, list...)
}

// judgeOthers wants the 99th percentile of a cell to be no more than twice that of calm, or of a server at the same time
// that has no bad plugins: on a machine that others use, too, calm is not the same all the time.
func (r *faultRig) judgeOthers(list, beside []time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, calm, other := percentile(list, 99), percentile(r.others.calm, 99), percentile(beside, 99)
	if now > 2*max(calm, other)+slack {
		return fmt.Errorf("the 99th percentile of %d other sessions is %v, where it is %v without a fault, and %v in a server beside it", len(list), now, calm, other)
	}
	return nil
}

func percentile(list []time.Duration, n int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)*n/100].Round(100 * time.Microsecond)
}
