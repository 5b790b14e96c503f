package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Recover calls fn for every message that was in the queue when it was opened, in the order of their IDs; not for what
// was added since. It is called once, after Open and before the first Settle or Delete. It also removes what a crash left: chunks of messages that never were accepted, and
// records of removed messages that came back. A record that can't be read is logged, counted in Stats and left where it
// is. Recover ends with the first error of fn.
func (q *Queue) Recover(ctx context.Context, fn func(*Record) error) error {
	lowest := q.was.highest + 1
	var dead [][]byte
	var is tally
	err := q.view(func(txn *badger.Txn) error {
		gone, err := loadRemovals(txn)
		if err != nil {
			return err
		}
		s := &scan{q: q, txn: txn, ctx: ctx, gone: gone, upTo: q.was.highest}
		err = s.run(func(rec *Record, err error) error {
			lowest = min(lowest, rec.ID)
			is.added++
			is.set ^= token(rec.ID)
			q.countRecovered(rec, err)
			if err != nil {
				q.logDamaged(ctx, rec.ID, err)
				return nil
			}
			return fn(rec)
		})
		dead = append(s.ghosts, orphans(txn, q.was.highest)...)
		dead = append(dead, forgotten(txn, time.Now())...)
		q.stats.ghosts.Add(int64(len(s.ghosts)))
		return err
	})
	if err != nil {
		return err
	}
	accept, err := q.compare(is)
	if err != nil {
		return err
	}
	if len(q.problems) > 0 && !q.repairing && q.enter() {
		go q.audit(context.WithoutCancel(ctx))
	}
	return q.sweep(ctx, dead, lowest, accept)
}

// compare names what is missing of the messages that should be there. What it returns makes the tally agree, for a store
// of an earlier version that has none.
func (q *Queue) compare(is tally) (*found, error) {
	f := found{count: is.live() - q.was.live(), set: is.set ^ q.was.set}
	if q.adopted {
		return &f, nil
	}
	if !f.differs() {
		if q.files == nil {
			return nil, nil
		}
		return nil, os.RemoveAll(filepath.Join(q.files.dir, asideName))
	}
	q.stats.missing.Store(f.missing())
	q.trouble(f.words(is, q.was))
	return nil, nil
}

// words says what is missing.
func (f found) words(is, was tally) string {
	switch {
	case f.count < 0:
		return fmt.Sprintf("%d messages are there of the %d that should be: %d are missing at the least", is.live(), was.live(), -f.count)
	case f.count > 0:
		return fmt.Sprintf("%d messages are there where %d should be: removed ones have come back, and others may be missing", is.live(), was.live())
	}
	return fmt.Sprintf("%d messages are there, as many as should be, but not the same ones: one is missing at the least", is.live())
}

func (q *Queue) countRecovered(rec *Record, err error) {
	q.stats.messages.Add(1)
	if err != nil {
		q.stats.damaged.Add(1)
		return
	}
	q.stats.bytes.Add(rec.Size)
	q.stats.held.Add(one(rec.Held != ""))
}

// sweep removes keys and notes the oldest message that is left.
func (q *Queue) sweep(ctx context.Context, dead [][]byte, lowest ID, accept *found) error {
	const atOnce = 1000
	for len(dead) > 0 {
		n := min(len(dead), atOnce)
		if err := q.do(ctx, &op{drops: dead[:n]}, true); err != nil {
			return err
		}
		dead = dead[n:]
	}
	o := &op{accept: accept}
	q.newName(o)
	o.put([]byte{keyLowest}, idKey(keyLowest, lowest))
	return q.do(ctx, o, true)
}

// orphans returns the keys of chunks whose message does not exist, among those that were in the store when it was
// opened. Only large messages have chunks, so there are few.
func orphans(txn *badger.Txn, upTo ID) [][]byte {
	var dead [][]byte
	var last ID
	lost := false
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{keyChunk}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		id := keyID(it.Item().Key())
		if id > upTo {
			break
		}
		if id != last {
			_, err := txn.Get(idKey(keyRecord, id))
			last, lost = id, errors.Is(err, badger.ErrKeyNotFound)
		}
		if lost {
			dead = append(dead, it.Item().KeyCopy(nil))
		}
	}
	return dead
}

// forgotten returns the keys of imports that need not be remembered any longer.
func forgotten(txn *badger.Txn, now time.Time) (dead [][]byte) {
	_ = each(txn, keyRestored, func(item *badger.Item) error {
		return item.Value(func(b []byte) error {
			if len(b) < 8 || binary.BigEndian.Uint64(b) < uint64(now.Unix()) {
				dead = append(dead, item.KeyCopy(nil))
			}
			return nil
		})
	})
	return dead
}

// List calls fn for every message that the filter selects, in the order of their IDs, and nothing waits for it. What is added
// meanwhile does not show; what is removed or changed meanwhile may show as it was. A message whose record is damaged is
// shown with its ID and why, as held. List ends with the first error of fn.
func (q *Queue) List(ctx context.Context, f Filter, fn func(*Record) error) error {
	return q.ListSome(ctx, f, func(some []*Record) error {
		for _, rec := range some {
			if err := fn(rec); err != nil {
				return err
			}
		}
		return nil
	})
}

// ListSome is List for those who do something for several records at once: what is found between two breaths is handed over together.
// The slice is only lent.
func (q *Queue) ListSome(ctx context.Context, f Filter, fn func([]*Record) error) error {
	now, n := time.Now(), 0
	some := make([]*Record, 0, politeness)
	hand := func() error {
		list := some
		if some = some[:0]; len(list) == 0 {
			return nil
		}
		return fn(list)
	}
	show := func(rec *Record, err error) error {
		if err != nil {
			rec.Held = err.Error()
		}
		if !f.Match(rec, now) {
			return nil
		}
		if n++; f.Limit > 0 && n > f.Limit {
			return errEnough
		}
		if some = append(some, rec); len(some) == cap(some) {
			return hand()
		}
		return nil
	}
	late := q.fresh.late() // before the snapshot is taken: what leaves the layers meanwhile is in it
	err := q.snapshot(ctx, func(s *scan) error {
		s.patient, s.late, s.live, s.found = f.Patient, late, true, hand
		if len(f.IDs) > 0 {
			return s.some(f.IDs, show)
		}
		return s.run(show)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if last := hand(); err == nil { // also of a list that ends early
		err = last
	}
	return err
}

// snapshot calls fn with a scan of what the store has now.
func (q *Queue) snapshot(ctx context.Context, fn func(*scan) error) error {
	return q.view(func(txn *badger.Txn) error {
		s := &scan{q: q, txn: txn, ctx: ctx, gone: &removals{}}
		if q.readOnly {
			var err error
			if s.gone, err = loadRemovals(txn); err != nil {
				return err
			}
		}
		return fn(s)
	})
}

// each calls fn for every record as the store has it; where it is damaged, with the ID alone and why.
func (q *Queue) each(ctx context.Context, fn func(*Record, error) error) error {
	if err := q.flush(ctx); err != nil {
		return err
	}
	return q.snapshot(ctx, func(s *scan) error { return s.run(fn) })
}

var errEnough = errors.New("enough")

// scan walks over records.
type scan struct {
	q      *Queue
	txn    *badger.Txn
	ctx    context.Context
	gone   *removals
	upTo   ID       // larger IDs are left out; 0: none is
	live   bool     // the journal is asked, too
	late   []ID     // messages that the store may not have yet, sorted
	ghosts [][]byte // keys of records and contents of messages that were removed before

	n       int          // records so far
	found   func() error // what is to be done at each breath, or nil
	patient bool
	begun   time.Time // when the last breath ended
}

// run calls fn for every record. With an error, the record holds the ID alone.
func (s *scan) run(fn func(*Record, error) error) error {
	err := each(s.txn, keyRecord, func(item *badger.Item) error {
		id := keyID(item.Key())
		if err := s.lateBefore(id, fn); err != nil {
			return err
		}
		if s.live && s.q.fresh.says(id) == gone { // of these there may be very many, and they cost nothing
			return s.ctx.Err()
		}
		if err := s.breathe(); err != nil {
			return err
		}
		if s.upTo != 0 && id > s.upTo {
			return nil
		}
		return s.one(item, fn)
	})
	if err != nil {
		return err
	}
	return s.lateBefore(math.MaxUint64, fn)
}

// politeness is how many records are read between two breaths.
const politeness = 64

// breathe is called for every record: commits go first.
func (s *scan) breathe() error {
	if s.n++; s.n%politeness != 0 {
		return nil
	}
	if s.found != nil {
		if err := s.found(); err != nil {
			return err
		}
	}
	runtime.Gosched()
	s.rest()
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.q.closing() {
		return ErrStopped
	}
	return nil
}

// lateBefore calls fn for the late messages with smaller IDs than this one, which the store has.
func (s *scan) lateBefore(id ID, fn func(*Record, error) error) error {
	for len(s.late) > 0 && s.late[0] <= id {
		next := s.late[0]
		s.late = s.late[1:]
		if next == id {
			continue
		}
		if err := s.breathe(); err != nil {
			return err
		}
		if err := s.now(next, fn); err != nil {
			return err
		}
	}
	return nil
}

// now calls fn for a message as it is now, if it is still there.
func (s *scan) now(id ID, fn func(*Record, error) error) error {
	rec, err := s.q.record(id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case errors.Is(err, ErrStopped):
		return err
	case err != nil:
		rec = &Record{ID: id}
	}
	return fn(rec, err)
}

// Of what a patient scan took it rests restFactor times as long, but within these bounds.
const (
	restFactor = 19
	restLeast  = time.Millisecond
	restMost   = 20 * time.Millisecond
	restBusy   = 100 * time.Millisecond // so long after a commit
)

// rest lets the mail go first while there is some.
func (s *scan) rest() {
	if !s.patient {
		return
	}
	if now := time.Now(); now.UnixNano()-s.q.committed.Load() < int64(restBusy) {
		time.Sleep(min(max(restFactor*now.Sub(s.begun), restLeast), restMost))
	}
	s.begun = time.Now()
}

// some calls fn for the records with these IDs, as far as there are any.
func (s *scan) some(ids []ID, fn func(*Record, error) error) error {
	for _, id := range ids {
		if s.live && s.q.fresh.says(id) != 0 {
			if err := s.now(id, fn); err != nil {
				return err
			}
			continue
		}
		item, err := s.txn.Get(idKey(keyRecord, id))
		if errors.Is(err, badger.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.one(item, fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) one(item *badger.Item, fn func(*Record, error) error) error {
	id := keyID(item.Key())
	if s.live && s.q.fresh.says(id) != 0 {
		return s.now(id, fn)
	}
	rec, err := readRecord(item)
	s.q.hasRead(item.ValueSize())
	if s.gone.has(id) {
		s.ghosts = append(s.ghosts, bytes.Clone(item.Key()))
		if err == nil {
			s.ghosts = append(s.ghosts, contentKeys(id, rec.Size)...)
		}
		return nil
	}
	if err != nil {
		rec = &Record{ID: id}
	}
	return fn(rec, err)
}
