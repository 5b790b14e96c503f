package queue

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// defaultMinFree is the room that Badger needs with certainty on any path: memory tables, value-log files, a compaction
// and a clean-up, many times over. A full disk would kill the process by SIGBUS, and each new one after it.
const defaultMinFree = 1 << 30

const (
	freshness = 100 * time.Millisecond // how old a look at the disk may be
	freshFor  = 16 << 20               // and how many bytes may have been written since
)

// guard watches the free space of a disk.
type guard struct {
	free    func() (int64, error) // nil: there is no disk to watch
	ballast *ballast              // nil: none
	minFree int64
	start   time.Time
	next    atomic.Int64 // when to look again, since start
	written atomic.Int64 // since the last look

	mu     sync.Mutex // of the look
	isFull atomic.Bool
	last   atomic.Int64
}

func newGuard(minFree int64, free func() (int64, error)) *guard {
	if minFree == 0 {
		minFree = defaultMinFree
	}
	if minFree < 0 {
		free = nil
	}
	g := &guard{free: free, minFree: minFree, start: time.Now()}
	g.last.Store(-1)
	g.look()
	return g
}

// full reports whether the disk has less than minFree. Once it had, it has to have an eighth more before it counts as
// not full again, so that the answer does not flicker.
func (g *guard) full() bool {
	if g.free == nil {
		return false
	}
	if int64(time.Since(g.start)) >= g.next.Load() && g.mu.TryLock() {
		g.look()
		g.mu.Unlock()
	}
	return g.isFull.Load()
}

// fits reports whether a message of that size leaves minFree, as far as the last look knows.
func (g *guard) fits(size int64) bool {
	if g.free == nil {
		return true
	}
	full, last := g.full(), g.last.Load()
	return !full && (last < 0 || last-size >= g.minFree)
}

// look asks the disk. A disk that can't be asked keeps the answer it gave last.
func (g *guard) look() {
	if g.free == nil {
		return
	}
	g.next.Store(int64(time.Since(g.start) + freshness))
	g.written.Store(0)
	free, err := g.ask(needed)
	if err != nil {
		return
	}
	if g.ballast != nil {
		g.ballast.takeAgain(free)
		free -= g.ballast.owed.Load()
	}
	g.last.Store(free)
	limit := g.minFree
	if g.isFull.Load() {
		limit += g.minFree / 8
	}
	g.isFull.Store(free < limit)
}

// ask returns what is free. Where that is less than what was taken already wants, the ballast is given up.
func (g *guard) ask(wanted int64) (free int64, err error) {
	if free, err = g.free(); err == nil && free < wanted && g.ballast.giveUp() {
		return g.free()
	}
	return free, err
}

// room returns ErrFull when the disk has no room to put n bytes into the store: on a full disk Badger would be killed.
func (g *guard) room(n int64) error {
	if g.free == nil {
		return nil
	}
	if free, err := g.ask(n + needed); err == nil && free < n+needed { // a disk that can't be asked is not guarded
		return fmt.Errorf("%w: %d MiB are free, and %d are needed to put the journal into the store; no message is lost",
			ErrFull, free>>20, (n+needed)>>20)
	}
	return nil
}

// wrote notes that so many bytes went to the disk.
func (g *guard) wrote(n int64) {
	if g.written.Add(n) > freshFor {
		g.next.Store(0)
	}
}

// state returns what the last look saw.
func (g *guard) state() (free int64, full bool) {
	full = g.full()
	return g.last.Load(), full
}
