package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// Badger learns that a value is garbage only when it compacts the marker of its removal, and a marker is compacted only
// after its memory table is full. With large messages that is after gigabytes: a table holds the markers of ten thousand.
// So after padAfter bytes of removed contents the table is filled up with entries that have expired already, and that
// the next compaction drops.
const (
	padAfter = 128 << 20
	padValue = valueThreshold - 24 // as large as the tree takes
)

// padded notes what a group removed and fills the memory table up when its turn has come.
func (q *Queue) padded(removed int64) error {
	if q.files == nil {
		return nil
	}
	if q.files.mem != q.garbage.mem {
		q.garbage.mem, q.garbage.bytes = q.files.mem, 0
	}
	q.garbage.bytes += removed
	if q.garbage.bytes < q.garbage.limit {
		return nil
	}
	for q.files.mem == q.garbage.mem {
		if err := q.pad(); err != nil {
			return err
		}
	}
	return nil
}

// pad commits as many expired entries as one transaction holds.
func (q *Queue) pad() error {
	txn := q.db.NewTransaction(true)
	defer txn.Discard()
	value := make([]byte, padValue)
	n := q.db.MaxBatchSize() * 9 / 10 / (padValue + entryWeight)
	for i := range n {
		key := binary.BigEndian.AppendUint32([]byte{keyPadding}, uint32(i))
		if err := txn.SetEntry(&badger.Entry{Key: key, Value: value, ExpiresAt: 1}); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
	}
	return q.sync(txn)
}
