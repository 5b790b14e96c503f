package queue

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/sdk/mail"
)

// ErrRestored says that a message was restored before, is still in the queue, or was removed from it since.
var ErrRestored = errors.New("the message is or was in this queue already")

// restoredFor is how long it is remembered that a message was restored: longer than any stays in a queue.
const restoredFor = 30 * 24 * time.Hour

// Name returns the name of this queue, which no other has; "" before the first Recover. It tells whose a message is that
// was exported.
func (q *Queue) Name() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.name
}

// newName makes a name for a queue that has none.
func (q *Queue) newName(o *op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.name == "" {
		q.name = rand.Text()
		o.put([]byte{keyName}, []byte(q.name))
	}
}

// Restore adds a message that was exported from the queue of that name, with all that is known of it: what was delivered
// to a recipient is not delivered again. It gets a new ID. The same message is restored once; a second time it is
// ErrRestored. So is one of this very queue: it is here, or was removed because all of it was done. With lost, one of this
// queue that is not here and is not known to be removed is restored: the queue was damaged, and it is thought to be lost.
func (q *Queue) Restore(ctx context.Context, from string, rec *Record, content mail.Content, lost bool) (*Record, error) {
	if q.disk.full() {
		return nil, ErrFull
	}
	if !rec.open() {
		return nil, fmt.Errorf("%w: no recipient of %s is still to be delivered", ErrRestored, rec.ID)
	}
	if from != "" && from == q.Name() {
		if !lost {
			return nil, ErrRestored
		}
		if known, err := q.knows(rec.ID); err != nil {
			return nil, err
		} else if known {
			return nil, ErrRestored
		}
	}
	d := &draft{content: content, bytes: inMemory(content), rec: rec.renewed(q.NewID(), content.Size())}
	o, err := q.finish(ctx, d)
	if err == nil {
		o.unless = restoredKey(from, rec.ID)
		o.put(o.unless, binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(restoredFor).Unix())))
		err = q.do(ctx, o, false)
	}
	if err != nil {
		q.forget(d)
		return nil, err
	}
	return d.rec, nil
}

// renewed copies a record under another ID, for a content of that size.
func (r *Record) renewed(id ID, size int64) *Record {
	c := *r
	c.ID, c.Size = id, size
	c.Recipients, c.Meta = slices.Clone(r.Recipients), maps.Clone(r.Meta)
	c.sums = make([]uint32, 0, chunks(size))
	c.remember()
	return &c
}

// knows reports whether a message of this queue is in it, or was removed from it.
func (q *Queue) knows(id ID) (known bool, err error) {
	if known, err = q.exists(id); known || err != nil {
		return known, err
	}
	err = q.view(func(txn *badger.Txn) error {
		gone, err := loadRemovals(txn)
		if err == nil {
			_, known = slices.BinarySearch(gone.done, id)
		}
		return err
	})
	return known, err
}

func restoredKey(from string, id ID) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(from+"\x00"), uint64(id)))
	return idKey(keyRestored, ID(binary.BigEndian.Uint64(sum[:])))
}
