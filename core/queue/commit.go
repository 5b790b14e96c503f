package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// op is what one caller wants done: all of it in one transaction, or nothing.
type op struct {
	need    ID             // this record must be in the store, or the op fails with ErrNotFound; 0: none
	unless  []byte         // this key must not be in the store, or the op fails with ErrRestored; nil: none
	puts    []badger.Entry // keys and values, which must not change until done is called
	drops   [][]byte
	highest ID // the largest ID in puts
	removed ID // to be marked as done
	change  figures
	accept  *found      // the tally is made to agree with what was found
	done    func(error) // called once, from the committer goroutine

	flush   bool   // the store is to have all that was committed up to now
	flushed *layer // and has it when this one is done

	taken atomic.Bool // by the committer, or by a caller that waits no longer
	err   error       // of this op alone
	room  [2]badger.Entry
}

// figures is what an op changes in the Stats.
type figures struct {
	messages, held, bytes, added, removed int64
	set                                   uint64 // the tokens of what is added and removed, xored
}

// take makes the caller the one who calls done, and reports whether it is.
func (o *op) take() bool { return o.taken.CompareAndSwap(false, true) }

func (o *op) put(key, value []byte) {
	if o.puts == nil {
		o.puts = o.room[:0]
	}
	o.puts = append(o.puts, badger.Entry{Key: key, Value: value})
}

// weight is what an op costs of a transaction's limits.
type weight struct{ count, size, bulk, removed int64 }

// valueThreshold is the size from which a value goes to the value log. There it is written once; in the tree each
// compaction would write it again.
const valueThreshold = 1 << 10

const (
	entryWeight = 40      // of an entry beside its key and value, as Badger counts, rounded up
	maxBulk     = 8 << 20 // of values in the value log, so that one group does not overflow a file of it by much
)

func (q *Queue) weigh(o *op) weight {
	w := weight{count: int64(len(o.puts) + len(o.drops))}
	w.size = w.count * entryWeight
	for i := range o.puts {
		if e := &o.puts[i]; len(e.Value) < valueThreshold || q.files == nil {
			w.size += int64(len(e.Key) + len(e.Value))
		} else {
			w.bulk += int64(len(e.Value))
		}
	}
	for _, key := range o.drops {
		w.size += int64(len(key))
	}
	if o.removed != 0 {
		w.size += binary.MaxVarintLen64 // its done mark
		w.removed = 1
	}
	return w
}

func (w weight) plus(v weight) weight {
	return weight{w.count + v.count, w.size + v.size, w.bulk + v.bulk, w.removed + v.removed}
}

// fits reports whether a group of that weight can be one transaction, with the queue's own entries in it.
func (q *Queue) fits(w weight) bool {
	const (
		own   = 2 << 10                         // the highest ID, the tally and a block of done marks that was begun before
		block = 2*(entryWeight+idKeyLength) + 8 // a block of done marks, and the old one that it pushes out, without its IDs
	)
	blocks := w.removed/marksInBlock + 1
	return w.count+2*blocks+8 < q.db.MaxBatchCount() && w.size+blocks*block+own < q.db.MaxBatchSize() && w.bulk <= maxBulk
}

// submit gives an op to the committer. If the queue has stopped, done is called here.
func (q *Queue) submit(o *op, urgent bool) {
	q.mu.Lock()
	if q.stopping || q.cause != nil || q.readOnly {
		q.mu.Unlock()
		o.done(q.stopped())
		return
	}
	if urgent {
		q.urgent = append(q.urgent, o)
	} else {
		q.waiting = append(q.waiting, o)
	}
	q.gather.came(urgent)
	q.wake.Signal()
	q.mu.Unlock()
}

// commitAll is the committer goroutine: it ends when the queue is closed and nothing waits, or after a storage error.
func (q *Queue) commitAll() {
	defer close(q.ended)
	var group []*op
	for {
		group = q.next(group[:0])
		if len(group) == 0 {
			break
		}
		err := q.commit(group)
		if err != nil {
			q.fail(err)
			err = q.stopped()
		}
		for i, o := range group {
			o.finish(err)
			group[i] = nil
		}
	}
	if q.failure() == nil && q.fresh.journal != nil { // else the next start puts into the store what is there
		if err := q.settleJournal(); err != nil {
			q.fail(err)
		}
	}
	if err := q.commitMarks(); err != nil {
		q.fail(err)
	}
}

func (o *op) finish(err error) {
	if err == nil {
		err = o.err
	}
	o.done(err)
}

// next waits for work and returns the next group: the urgent ops first, and of each kind the oldest first. It returns
// nothing when the queue ends.
func (q *Queue) next(group []*op) []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gather.ended(len(q.waiting))
	for {
		wait := q.gather.wait(time.Now(), len(q.waiting), len(q.urgent))
		if q.stopping || q.cause != nil {
			wait = 0
		}
		if wait <= 0 {
			var w weight
			group, w = q.move(group, &q.urgent, w)
			n := len(group)
			group, _ = q.move(group, &q.waiting, w)
			if len(group) > 0 || q.stopping && len(q.urgent)+len(q.waiting) == 0 || q.cause != nil {
				q.gather.begun(time.Now(), len(group)-n, len(q.waiting))
				return group
			}
		} else if wait < forever {
			q.alarm.Reset(wait)
		}
		q.wake.Wait()
	}
}

// move takes ops from a list while the group fits into a transaction.
func (q *Queue) move(group []*op, from *[]*op, w weight) ([]*op, weight) {
	n := 0
	for _, o := range *from {
		sum := w.plus(q.weigh(o))
		if len(group) > 0 && !q.fits(sum) {
			break
		}
		n++
		if o.take() {
			group, w = append(group, o), sum
		}
	}
	left := copy(*from, (*from)[n:])
	clear((*from)[left:])
	*from = (*from)[:left]
	return group, w
}

// commit makes a group durable: one sync.
func (q *Queue) commit(group []*op) error {
	commit := q.commitToJournal
	if q.fresh.journal == nil {
		commit = q.commitToStore
	}
	if err := commit(group); err != nil {
		return err
	}
	if err := q.failure(); err != nil { // a checkpoint has failed, or Badger has told its log only
		return err
	}
	if err := q.noteMark(); err != nil {
		return err
	}
	q.stats.groups.Add(1)
	q.committed.Store(time.Now().UnixNano())
	q.count(group)
	return q.serve(group)
}

// commitToStore commits a group in one transaction of the store, where there is no journal.
func (q *Queue) commitToStore(group []*op) error {
	txn := q.db.NewTransaction(true)
	defer txn.Discard()
	next := q.tally
	next.groups++
	for _, o := range group {
		if err := q.build(txn, o); err != nil {
			return err
		}
		if o.err == nil {
			next.count(o)
		}
	}
	if next.highest > q.tally.highest {
		if err := txn.Set([]byte{keyHighest}, idKey(keyHighest, next.highest)); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
	}
	if err := txn.Set([]byte{keyTally}, next.appendTo(nil)); err != nil {
		return fmt.Errorf("writing the queue: %w", err)
	}
	if err := q.marks.write(txn, marksInBlock); err != nil {
		return err
	}
	q.tally = next
	return q.sync(txn)
}

// noteMark writes down outside of the store how far the queue has come. It comes after the sync and before anybody hears of
// the group, so that the mark is never ahead of what is on disk, and after a kill not behind what was promised.
func (q *Queue) noteMark() error {
	if q.mark == nil {
		return nil
	}
	return q.mark.note(waterline{tally: q.tally})
}

// build puts an op into the transaction. An error that concerns this op alone is left in it.
func (q *Queue) build(txn *badger.Txn, o *op) error {
	if o.need != 0 {
		_, err := txn.Get(idKey(keyRecord, o.need))
		if errors.Is(err, badger.ErrKeyNotFound) {
			o.err = ErrNotFound
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the queue: %w", err)
		}
	}
	if o.unless != nil {
		switch _, err := txn.Get(o.unless); {
		case err == nil:
			o.err = ErrRestored
			return nil
		case !errors.Is(err, badger.ErrKeyNotFound):
			return fmt.Errorf("reading the queue: %w", err)
		}
	}
	for i := range o.puts {
		if err := txn.SetEntry(&o.puts[i]); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
	}
	for _, key := range o.drops {
		if err := txn.Delete(key); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
	}
	if o.removed != 0 {
		q.marks.add(o.removed)
	}
	return nil
}

// sync commits the transaction and returns when it is on stable storage.
func (q *Queue) sync(txn *badger.Txn) error {
	if err := txn.Commit(); err != nil {
		return fmt.Errorf("writing the queue: %w", err)
	}
	if err := q.failure(); err != nil { // Badger may have told its log only
		return err
	}
	if q.files != nil {
		return q.files.check()
	}
	return nil
}

// commitMarks writes the done marks of the last, unfinished block.
func (q *Queue) commitMarks() error {
	if q.failure() != nil {
		return nil
	}
	txn := q.db.NewTransaction(true)
	defer txn.Discard()
	if err := q.marks.write(txn, 1); err != nil {
		return err
	}
	return q.sync(txn)
}

// count brings the figures up to date after a commit.
func (q *Queue) count(group []*op) {
	var sum figures
	var bulk int64
	for _, o := range group {
		if o.err != nil {
			continue
		}
		sum.messages += o.change.messages
		sum.held += o.change.held
		sum.bytes += o.change.bytes
		sum.added += o.change.added
		sum.removed += o.change.removed
		for i := range o.puts {
			bulk += int64(len(o.puts[i].Value))
		}
	}
	q.stats.messages.Add(sum.messages)
	q.stats.held.Add(sum.held)
	q.stats.bytes.Add(sum.bytes)
	q.stats.added.Add(sum.added)
	q.stats.removed.Add(sum.removed)
	q.disk.wrote(bulk)
}
