package queue

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/journal"
)

// fresh is what the journal says and the store does not have yet. Most messages are delivered at once: they come and go
// here, and the store never hears of them.
//
// The committer alone writes to the journal. When a file of it is full, what the file says is frozen, and a checkpoint
// puts into the store what is still true of it, while the committer goes on in the other file. A key is looked up in the
// active layer, then in the frozen one, then in the store.
type fresh struct {
	journal *journal.Journal // nil: the queue is in memory or only read, and there is the store alone
	mu      sync.RWMutex     // of what follows; held while a value is read, so that its file is not overwritten
	active  *layer
	frozen  *layer // nil when the store has it

	changes []change // of the group that is being committed; of the committer goroutine alone
	maxKeys int      // of a layer, after which it is frozen though its file is not full
}

// maxKeys bounds the memory of a layer, some 20 MiB: a removal takes few bytes in the journal, and while a long queue is drained a
// file holds half a million of them.
const maxKeys = 1 << 18

// layer is what one file of the journal says.
type layer struct {
	keys    map[shortKey]entry
	tally   tally // after its last group
	highest ID    // the largest ID in it, also of what is gone
	set     []ID  // the messages whose records were set in it, also what is gone
	removed int64 // bytes of contents in the store, or in an older layer, that it removes

	once   sync.Once
	hurry  chan struct{} // closed when somebody waits for the checkpoint
	done   chan struct{} // closed when the store has it, or err says why not
	err    error
	noRoom chan struct{} // closed when the disk had no room for the checkpoint, as full says
	full   error
}

// entry is what a layer says of a key.
type entry struct {
	place journal.Place
	state entryState
}

type entryState uint8

const (
	born    entryState = iota + 1 // set, and in no older layer, nor in the store
	changed                       // set
	gone                          // removed
)

type change struct {
	key   shortKey
	entry entry
}

// shortKey is a key of the store as a value, so that a layer needs no memory for it but its own.
type shortKey struct {
	id     uint64 // of the message, or the number of a block of done marks
	chunk  uint32
	prefix byte
	length uint8
}

func shorten(key []byte) shortKey {
	k := shortKey{prefix: key[0], length: uint8(len(key))}
	if len(key) >= idKeyLength {
		k.id = binary.BigEndian.Uint64(key[1:])
	}
	if len(key) >= chunkKeyLength {
		k.chunk = binary.BigEndian.Uint32(key[idKeyLength:])
	}
	return k
}

// bytes returns the key as the store has it.
func (k shortKey) bytes() []byte {
	b := make([]byte, 1, chunkKeyLength)
	b[0] = k.prefix
	if k.length >= idKeyLength {
		b = binary.BigEndian.AppendUint64(b, k.id)
	}
	if k.length >= chunkKeyLength {
		b = binary.BigEndian.AppendUint32(b, k.chunk)
	}
	return b
}

func compareKeys(a, b shortKey) int {
	return cmp.Or(cmp.Compare(a.prefix, b.prefix), cmp.Compare(a.id, b.id), cmp.Compare(a.chunk, b.chunk))
}

// ofMessage reports whether the key belongs to one message.
func (k shortKey) ofMessage() bool {
	return k.prefix == keyRecord || k.prefix == keyContent || k.prefix == keyChunk
}

func newLayer() *layer {
	return &layer{keys: map[shortKey]entry{}, hurry: make(chan struct{}), done: make(chan struct{}), noRoom: make(chan struct{})}
}

// soon has the checkpoint of the layer begin at once.
func (l *layer) soon() { l.once.Do(func() { close(l.hurry) }) }

// note applies a change. What was born and is gone in the same layer leaves no trace.
func (l *layer) note(c change) {
	if c.key.ofMessage() {
		l.highest = max(l.highest, ID(c.key.id))
	}
	if c.entry.state != gone && c.key.prefix == keyRecord {
		l.set = append(l.set, ID(c.key.id))
	}
	was, known := l.keys[c.key]
	switch {
	case c.entry.state == gone && known && was.state == born:
		delete(l.keys, c.key)
		return
	case c.entry.state == changed && known && was.state == born:
		c.entry.state = born
	}
	l.keys[c.key] = c.entry
}

// close closes the journal, if there is one.
func (f *fresh) close() error {
	if f.journal == nil {
		return nil
	}
	return f.journal.Close()
}

// find looks a key up in the layers. mu is held.
func (f *fresh) find(k shortKey) (entry, bool) {
	for _, l := range []*layer{f.active, f.frozen} {
		if l == nil {
			continue
		}
		if e, ok := l.keys[k]; ok {
			return e, true
		}
	}
	return entry{}, false
}

// says returns what the layers say of a message's record: nothing, or that it was set or is gone.
func (f *fresh) says(id ID) entryState {
	if f.journal == nil {
		return 0
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	e, _ := f.find(shorten(idKey(keyRecord, id)))
	return e.state
}

// late returns the messages that the store may not have though they are in the queue, in the order of their IDs; some may be
// gone. A checkpoint leaves out what a newer layer has changed, so it is not only the new ones.
func (f *fresh) late() (list []ID) {
	if f.journal == nil {
		return nil
	}
	f.mu.RLock()
	if f.frozen != nil {
		list = append(list, f.frozen.set...)
	}
	list = append(list, f.active.set...)
	f.mu.RUnlock()
	slices.Sort(list)
	return slices.Compact(list)
}

// read returns the value of a key that a layer has. Without one, known is false: the store is to be asked.
func (f *fresh) read(key []byte) (value []byte, known bool, err error) {
	if f.journal == nil {
		return nil, false, nil
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	e, known := f.find(shorten(key))
	if !known {
		return nil, false, nil
	}
	if e.state == gone {
		return nil, true, ErrNotFound
	}
	value, err = f.journal.Read(e.place)
	return value, true, err
}

// get returns the value of a key, wherever it is, or ErrNotFound.
func (q *Queue) get(key []byte) (value []byte, err error) {
	if !q.enter() {
		return nil, ErrStopped
	}
	defer q.readers.Done()
	if value, known, err := q.fresh.read(key); known {
		return value, err
	}
	err = q.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		q.hasRead(max(item.ValueSize(), page))
		return err
	})
	return value, err
}

// older returns the frozen layer.
func (f *fresh) older() *layer {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.frozen
}

// exists reports whether a message is in the queue.
func (q *Queue) exists(id ID) (bool, error) {
	key := idKey(keyRecord, id)
	q.fresh.mu.RLock()
	e, known := q.fresh.find(shorten(key))
	q.fresh.mu.RUnlock()
	if known {
		return e.state != gone, nil
	}
	err := q.view(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the queue: %w", err)
	}
	return true, nil
}
