package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/journal"
)

// calmDown is how long a checkpoint waits, so that what was on its way when the file was full is delivered, and need not
// be put into the store.
const calmDown = 300 * time.Millisecond

// commitToJournal makes a group durable: one write, one sync.
func (q *Queue) commitToJournal(group []*op) error {
	f := &q.fresh
	if f.journal.Full(q.volume(group)) || len(f.active.keys) >= f.maxKeys {
		if _, err := q.turn(); err != nil {
			return err
		}
	}
	f.changes = f.changes[:0]
	next := q.tally
	var taken map[string]bool // keys that must be new, in this very group
	var removed map[ID]bool   // in this very group
	for _, o := range group {
		if o.need != 0 {
			there, err := q.exists(o.need)
			if err != nil {
				return err
			}
			if !there || removed[o.need] {
				o.err = ErrNotFound
				continue
			}
		}
		if o.unless != nil {
			switch _, err := q.get(o.unless); {
			case err == nil || taken[string(o.unless)]:
				o.err = ErrRestored
				continue
			case !errors.Is(err, ErrNotFound):
				return err
			}
			if taken == nil {
				taken = map[string]bool{}
			}
			taken[string(o.unless)] = true
		}
		q.logOne(o)
		next.count(o)
		if o.removed != 0 && len(group) > 1 {
			if removed == nil {
				removed = map[ID]bool{}
			}
			removed[o.removed] = true
		}
	}
	if next != q.tally || len(f.changes) > 0 {
		next.groups++
		f.journal.Set([]byte{keyTally}, next.appendTo(nil))
	}
	err := f.journal.Commit()
	if errors.Is(err, syscall.ENOSPC) && q.disk.ballast.giveUp() { // that is what it is for
		err = f.journal.Commit()
	}
	if err != nil {
		return err
	}
	q.tally = next
	f.mu.Lock()
	f.active.tally = next
	for _, c := range f.changes {
		f.active.note(c)
	}
	f.mu.Unlock()
	for _, o := range group {
		if o.err == nil && o.removed != 0 && f.active.keys[shorten(idKey(keyRecord, o.removed))].state == gone {
			f.active.removed -= o.change.bytes
		}
	}
	return nil
}

// volume is about how many bytes a group takes in the journal.
func (q *Queue) volume(group []*op) int64 {
	var w weight
	for _, o := range group {
		w = w.plus(q.weigh(o))
	}
	return w.size + w.bulk
}

func (q *Queue) logOne(o *op) {
	f := &q.fresh
	for i := range o.puts {
		e := &o.puts[i]
		k := shorten(e.Key)
		c := change{k, entry{f.journal.Set(e.Key, e.Value), changed}}
		if k.ofMessage() && ID(k.id) != o.need {
			c.entry.state = born // IDs are never used twice
		}
		f.changes = append(f.changes, c)
	}
	for _, key := range o.drops {
		f.journal.Remove(key)
		f.changes = append(f.changes, change{shorten(key), entry{state: gone}})
	}
}

// turn has the committer go on in the journal's other file, and has a checkpoint made of what it leaves. It waits until
// the store has what is in that other file.
func (q *Queue) turn() (*layer, error) {
	f := &q.fresh
	if l := f.older(); l != nil { // the committer alone makes one
		l.soon()
		<-l.done
		if l.err != nil {
			return nil, l.err
		}
	}
	l := f.active
	f.mu.Lock()
	f.frozen, f.active = l, newLayer()
	f.mu.Unlock()
	f.journal.Turn()
	go q.checkpoint(l)
	return l, nil
}

// checkpoint puts into the store what a frozen layer says.
func (q *Queue) checkpoint(l *layer) {
	calm := time.NewTimer(calmDown)
	defer calm.Stop()
	select {
	case <-calm.C:
	case <-l.hurry:
	}
	if l.err = q.awaitRoom(l); l.err == nil {
		l.err = q.apply(l)
	}
	if l.err != nil {
		q.fail(l.err)
	} else {
		q.fresh.mu.Lock()
		q.fresh.frozen = nil
		q.fresh.mu.Unlock()
	}
	close(l.done)
}

// lookAgain is how often a checkpoint that has no room on the disk looks for it.
const lookAgain = 100 * time.Millisecond

// awaitRoom waits until the disk has room for a checkpoint. The journal keeps what is not in the store yet, so nothing is lost
// meanwhile; when its other file is full too, the committer waits as well. It gives up when the queue is closed.
func (q *Queue) awaitRoom(l *layer) error {
	for {
		err := q.disk.room(q.fresh.journal.Size())
		if err == nil || q.closing() || q.failure() != nil {
			return err
		}
		if l.full == nil {
			l.full = err
			close(l.noRoom)
			q.log.Warn("what is in the journal is put into the store when there is room on the disk", "error", err)
		}
		time.Sleep(lookAgain)
	}
}

// flush returns when the store has all that was committed before, or ErrFull when it has to wait for room on the disk.
func (q *Queue) flush(ctx context.Context) error {
	if q.fresh.journal == nil {
		return nil
	}
	o := &op{flush: true}
	if err := q.do(ctx, o, true); err != nil || o.flushed == nil {
		return err
	}
	o.flushed.soon()
	select {
	case <-o.flushed.done:
		return o.flushed.err
	case <-o.flushed.noRoom:
		return o.flushed.full
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve makes the checkpoints that ops of a group ask for.
func (q *Queue) serve(group []*op) error {
	for _, o := range group {
		if !o.flush {
			continue
		}
		if o.flushed = q.fresh.older(); len(q.fresh.active.keys) > 0 {
			var err error
			if o.flushed, err = q.turn(); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleJournal puts everything into the store and clears the journal, when the committer ends.
func (q *Queue) settleJournal() error {
	l, err := q.turn()
	if err != nil {
		return err
	}
	l.soon()
	if <-l.done; l.err != nil {
		return l.err
	}
	return q.fresh.journal.Clear()
}

// replay puts into the store what the journal of a server that died says.
func (q *Queue) replay() error {
	l := newLayer()
	err := q.fresh.journal.Replay(func(c journal.Change) error {
		if n := len(c.Key); n != 1 && n != idKeyLength && n != chunkKeyLength {
			return fmt.Errorf("%w: a key of %d bytes", journal.ErrDamaged, n)
		}
		if len(c.Key) == 1 && c.Key[0] == keyTally {
			return q.replayTally(l, c.Place)
		}
		e := entry{c.Place, changed}
		if c.Remove {
			e.state = gone
		}
		l.note(change{shorten(c.Key), e})
		return nil
	})
	if err != nil {
		return journalDamage(err)
	}
	if err := q.apply(l); err != nil {
		return err
	}
	return q.fresh.journal.Clear()
}

// replayTally takes the tally of a group.
func (q *Queue) replayTally(l *layer, p journal.Place) error {
	b, err := q.fresh.journal.Read(p)
	if err != nil {
		return err
	}
	t, ok := decodeTally(b)
	if !ok {
		return fmt.Errorf("%w: a tally of %d bytes", journal.ErrDamaged, len(b))
	}
	l.tally, q.tally, q.adopted = t, t, false
	return nil
}

// apply puts a layer into the store: the records last, so that a message exists when its content does.
func (q *Queue) apply(l *layer) error {
	b := &batch{q: q}
	defer b.discard()
	for _, k := range q.still(l) {
		if err := b.add(k, l.keys[k]); err != nil {
			return err
		}
	}
	if err := b.end(l); err != nil {
		return err
	}
	q.cleaner.wrote(b.bulk + l.removed)
	return q.padded(l.removed)
}

// still returns the keys of a layer on which no younger layer has the last word, in order.
func (q *Queue) still(l *layer) []shortKey {
	q.fresh.mu.RLock()
	keys := make([]shortKey, 0, len(l.keys))
	for k := range l.keys {
		if a := q.fresh.active; a != l && a != nil {
			if _, younger := a.keys[k]; younger {
				continue
			}
		}
		keys = append(keys, k)
	}
	q.fresh.mu.RUnlock()
	slices.SortFunc(keys, compareKeys)
	return keys
}

// batch writes to the store in transactions of the size that it takes.
type batch struct {
	q    *Queue
	txn  *badger.Txn
	w    weight
	bulk int64 // of values, in all
}

func (b *batch) add(k shortKey, e entry) error {
	o := op{}
	if e.state == gone {
		o.drops = [][]byte{k.bytes()}
		if k.prefix == keyRecord {
			o.removed = ID(k.id)
		}
	} else {
		value, err := b.q.fresh.journal.Read(e.place)
		if err != nil {
			return err
		}
		o.put(k.bytes(), value)
		b.bulk += int64(len(value))
	}
	w := b.q.weigh(&o)
	if b.txn != nil && !b.q.fits(b.w.plus(w)) {
		if err := b.commit(); err != nil {
			return err
		}
	}
	if b.txn == nil {
		b.txn, b.w = b.q.db.NewTransaction(true), weight{}
	}
	b.w = b.w.plus(w)
	return b.q.build(b.txn, &o)
}

// commit ends a transaction.
func (b *batch) commit() error {
	if err := b.q.marks.write(b.txn, marksInBlock); err != nil {
		return err
	}
	log := 0 // what is written now; a transaction does not reach into the next one
	if b.q.files != nil {
		log = b.q.files.log
	}
	if err := b.q.sync(b.txn); err != nil {
		return err
	}
	if b.w.bulk > 0 && b.q.mark != nil {
		if err := b.q.mark.written(log); err != nil {
			return err
		}
	}
	b.discard()
	return nil
}

func (b *batch) discard() {
	if b.txn != nil {
		b.txn.Discard()
		b.txn = nil
	}
}

// end commits what is left, with the largest ID that was ever seen and the tally.
func (b *batch) end(l *layer) error {
	highest := l.highest
	if l.tally.groups > 0 {
		if b.txn == nil {
			b.txn = b.q.db.NewTransaction(true)
		}
		if err := b.txn.Set([]byte{keyTally}, l.tally.appendTo(nil)); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
	}
	if highest > b.q.highest {
		if b.txn == nil {
			b.txn = b.q.db.NewTransaction(true)
		}
		if err := b.txn.Set([]byte{keyHighest}, idKey(keyHighest, highest)); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
		b.q.highest = highest
	}
	if b.txn == nil {
		return nil
	}
	return b.commit()
}
