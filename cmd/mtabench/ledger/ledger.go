// Package ledger writes down, for one run of a load, what was sent, what the server took with 250, and what arrived at the
// end of the line; Audit compares them. A message is a number, its recipients are the bits of a mask. Entries are made by
// many goroutines at once without a lock; Audit is for when they have ended. Times are measured from when the ledger was
// made. A ledger has a size: it never grows while something is measured.
package ledger

import (
	"sync/atomic"
	"time"
)

// MaxRecipients is how many recipients a message may have.
const MaxRecipients = 64

// refused stands for the time of the 250 where the server said no. A message of which nothing is heard, because the
// connection broke, may arrive or not; one that was refused may not.
const refused = -1

// entry is all that is known of one message. Times are nanoseconds; 0 is never.
type entry struct {
	want     atomic.Uint64 // recipients asked for
	got      atomic.Uint64 // recipients reached
	begun    atomic.Int64  // when its transaction was begun
	accepted atomic.Int64  // when the 250 came, or refused
	done     atomic.Int64  // when its last recipient was reached
}

// Ledger is the account of one run.
type Ledger struct {
	run     string
	start   time.Time
	entries []entry
	next    atomic.Int64

	takenAll     atomic.Int64 // messages answered 250
	deliveredAll atomic.Int64 // messages that reached every recipient
	first, last  atomic.Int64 // when the first and the last of those did
	lastTaken    atomic.Int64

	doubled, changed, foreign, strayed, transactions atomic.Int64
}

// New makes a ledger for at most size messages. The name of the run marks its messages, so that one left over from another
// run is known for what it is.
func New(run string, size int) *Ledger {
	return &Ledger{run: run, start: time.Now(), entries: make([]entry, size)}
}

// Run is the name of the run.
func (l *Ledger) Run() string { return l.run }

// Elapsed is the time since the ledger was made.
func (l *Ledger) Elapsed() time.Duration { return time.Since(l.start) }

func (l *Ledger) now() int64 { return max(1, int64(l.Elapsed())) }

// Begin opens the next message, for the first n recipients. It returns false when the ledger is full.
func (l *Ledger) Begin(n int) (id int, ok bool) {
	id = int(l.next.Add(1) - 1)
	if id >= len(l.entries) {
		return 0, false
	}
	e := &l.entries[id]
	e.want.Store(^uint64(0) >> (MaxRecipients - n))
	e.begun.Store(l.now())
	return id, true
}

// Accept writes down that the server answered 250 to the message.
func (l *Ledger) Accept(id int) {
	t := l.now()
	l.entries[id].accepted.Store(t)
	l.takenAll.Add(1)
	raise(&l.lastTaken, t)
}

// Refuse writes down that the server refused the message.
func (l *Ledger) Refuse(id int) { l.entries[id].accepted.Store(refused) }

// Arrival is a transaction that the sink took.
type Arrival struct {
	Run        string
	ID         int
	Recipients uint64 // a bit for each
	Intact     bool   // the body has the checksum that its header tells
}

// Arrive writes down a transaction of the sink.
func (l *Ledger) Arrive(a Arrival) {
	l.transactions.Add(1)
	if a.Run != l.run || a.ID < 0 || a.ID >= len(l.entries) {
		l.foreign.Add(1)
		return
	}
	if !a.Intact {
		l.changed.Add(1)
	}
	e := &l.entries[a.ID]
	want, before := e.want.Load(), e.got.Or(a.Recipients)
	if before&a.Recipients != 0 {
		l.doubled.Add(1)
	}
	if a.Recipients&^want != 0 || a.Recipients == 0 {
		l.strayed.Add(1)
	}
	if before&want == want || (before|a.Recipients)&want != want {
		return
	}
	t := l.now()
	e.done.Store(t)
	l.deliveredAll.Add(1)
	l.first.CompareAndSwap(0, t)
	raise(&l.last, t)
}

// Accepted is how many messages were answered 250 so far.
func (l *Ledger) Accepted() int { return int(l.takenAll.Load()) }

// LastAccepted is when the last 250 came.
func (l *Ledger) LastAccepted() time.Duration { return time.Duration(l.lastTaken.Load()) }

// Delivered is how many messages have reached every recipient so far.
func (l *Ledger) Delivered() int { return int(l.deliveredAll.Load()) }

func raise(at *atomic.Int64, t int64) {
	for {
		old := at.Load()
		if t <= old || at.CompareAndSwap(old, t) {
			return
		}
	}
}
