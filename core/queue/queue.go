package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Errors of the queue. Test for them with errors.Is: what is returned may say more.
var (
	ErrFull     = errors.New("the disk of the queue is nearly full")
	ErrStopped  = errors.New("the queue has stopped")
	ErrLocked   = errors.New("the queue is in use by another process")
	ErrNotFound = errors.New("no such message in the queue")
	ErrDamaged  = errors.New("the message is damaged on disk")
)

// Options are the settings of a queue.
type Options struct {
	MinFree  int64        // bytes free on the disk below which Add returns ErrFull; 0: 1 GiB; negative: no guard
	Logger   *slog.Logger // nil: silent
	Fatal    func(error)  // called once, on a goroutine of its own, at the first storage error; may be nil
	InMemory bool         // nothing on disk, nothing survives: for tests, also within testing/synctest
}

// Stats are the queue's figures.
type Stats struct {
	Messages int64 // in the queue; right after Recover
	Held     int64 // of these
	Bytes    int64 // of their contents
	Free     int64 // bytes free on the disk when it was last looked at; -1 when not known
	Full     bool  // Add returns ErrFull
	Added    int64 // since Open
	Removed  int64 // since Open
	Groups   int64 // groups committed since Open; each is one sync
	Damaged  int64 // messages that are known to be damaged: what Recover and Check could not read
	Missing  int64 // messages, at the least, that Recover did not find though they were added and never removed
	Ghosts   int64 // records of removed messages that had come back and that Recover removed again
}

// Problems returns what an operator has to know of the store: what of it is damaged, in words. It is what was found at
// Open and Recover, and stays so until `mta queue check -repair`.
func (q *Queue) Problems() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.problems)
}

// trouble notes a problem and logs it.
func (q *Queue) trouble(words string) {
	q.mu.Lock()
	q.problems = append(q.problems, words)
	q.mu.Unlock()
	q.tell(words)
}

func (q *Queue) tell(words string) { q.log.Error("the queue is damaged on disk", "what", words) }

// Queue is an open queue. Its methods may be called by several goroutines at once.
type Queue struct {
	db       *badger.DB
	log      *slog.Logger
	fatal    func(error)
	readOnly bool
	lock     *dirLock // nil in memory
	ids      sequence
	disk     *guard
	fresh    fresh
	files    *watch // nil in memory
	marks    marks  // of the goroutine that writes to the store: the checkpoint, or in memory the committer

	mu       sync.Mutex
	wake     sync.Cond   // the committer waits for it
	alarm    *time.Timer // wakes it when it has waited long enough for company
	gather   gather
	urgent   []*op // Settle and Delete go first: what they remove makes room, and a duplicate is worse than a wait
	waiting  []*op
	stopping bool          // Close was called
	cause    error         // the first storage error
	ended    chan struct{} // closed when the committer has returned
	readers  sync.WaitGroup

	highest ID // in the store; as marks

	tally    tally // of all that was committed; of the committer goroutine alone
	mark     *mark // nil in memory
	was      tally // when the store was opened
	adopted  bool  // the store had no tally then
	problems []string
	name     string // of this queue, which no other has

	repairing bool // nothing is cleaned up, and nothing told that the repair tells
	garbage   struct {
		mem   int   // the memory table
		bytes int64 // of contents whose removal is written in it
		limit int64
	}
	committed atomic.Int64 // when the last group was, in nanoseconds since 1970
	touched   atomic.Int64 // bytes of the store's files that were read since their maps were forgotten
	cleaner   *cleaner
	stats     struct {
		messages, held, bytes, added, removed, groups, damaged, ghosts, missing atomic.Int64
	}
}

// Stats returns the queue's figures.
func (q *Queue) Stats() Stats {
	s := Stats{
		Messages: q.stats.messages.Load(),
		Held:     q.stats.held.Load(),
		Bytes:    q.stats.bytes.Load(),
		Added:    q.stats.added.Load(),
		Removed:  q.stats.removed.Load(),
		Groups:   q.stats.groups.Load(),
		Damaged:  q.stats.damaged.Load(),
		Ghosts:   q.stats.ghosts.Load(),
		Missing:  q.stats.missing.Load(),
	}
	s.Free, s.Full = q.disk.state()
	return s
}

// HasRoom reports whether Add takes a message of that size, as far as the disk is concerned. Once the disk was nearly full it
// needs an eighth of Options.MinFree more.
func (q *Queue) HasRoom(size int64) bool { return q.disk.fits(size) }

// Close commits what waits, ends what reads and closes the store. Whatever is called after it returns ErrStopped, and so
// does reading a large content that Load returned before. It must not be called from a function given to the queue.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.stopping {
		q.mu.Unlock()
		<-q.ended
		return nil
	}
	q.stopping = true
	q.wake.Broadcast()
	q.mu.Unlock()
	<-q.ended
	q.awaitCheckpoint()
	q.alarm.Stop()
	q.cleaner.stop()
	q.readers.Wait()
	defer func() { _ = q.fresh.close() }() // each group was synced
	if err := q.closeStore(); err != nil {
		return fmt.Errorf("closing the queue: %w", err)
	}
	return nil
}

// closePatience is how long Close waits for a store that has failed, and may never answer.
const closePatience = 3 * time.Second

// awaitCheckpoint waits for a checkpoint that is under way when the queue has failed; else the committer has.
func (q *Queue) awaitCheckpoint() {
	l := q.fresh.older()
	if l == nil {
		return
	}
	l.soon()
	select {
	case <-l.done:
	case <-time.After(closePatience):
	}
}

// closeStore closes Badger. After a storage error that can last for ever, so then it is not waited for.
func (q *Queue) closeStore() error {
	if q.failure() == nil {
		defer q.lock.release()
		return q.closeInOrder()
	}
	defer q.mark.close()
	closed := make(chan error, 1)
	go func() { closed <- q.db.Close() }()
	select {
	case err := <-closed:
		q.lock.release()
		return err
	case <-time.After(closePatience):
		return q.failure()
	}
}

// closeInOrder closes Badger, and notes in the mark what its files look like now.
func (q *Queue) closeInOrder() error {
	if err := q.db.Close(); err != nil || q.mark == nil {
		return err
	}
	defer q.mark.close()
	sizes, err := logSizes(q.files.dir)
	if err != nil {
		return err
	}
	return q.mark.closed(sizes)
}

// fail stops the queue at its first storage error: a store that failed once may have lost what it was given before
// (the kernel forgets a page that it could not write), so the only safe way on is to start again from the disk.
func (q *Queue) fail(err error) {
	q.mu.Lock()
	first := q.cause == nil
	if first {
		q.cause = err
	}
	left := append(q.urgent, q.waiting...)
	q.urgent, q.waiting = nil, nil
	q.wake.Broadcast()
	q.mu.Unlock()
	if first && q.fatal != nil {
		go q.fatal(err)
	}
	for _, o := range left {
		if o.take() {
			o.done(q.stopped())
		}
	}
}

// failure returns the storage error that stopped the queue, or nil.
func (q *Queue) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cause
}

// stopped returns ErrStopped with its cause.
func (q *Queue) stopped() error {
	if cause := q.failure(); cause != nil {
		return fmt.Errorf("%w: %w", ErrStopped, cause)
	}
	return ErrStopped
}
