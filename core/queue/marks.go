package queue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// Done marks are the second lock against a message that comes back. Versions of Badger before 4.9.6 could bring a
// deleted key back in a compaction or a clean-up of the value log, and a message that comes back is delivered twice. So
// the IDs of the last million removals are written down in blocks, and Recover drops what it finds marked. A block is
// written when it is full: the removals of an unfinished one are so recent that no compaction has touched them.
const (
	marksInBlock = 128
	markBlocks   = 8192
)

type marks struct {
	ids  []ID   // the unfinished block
	next uint64 // the number of it
}

func (m *marks) add(id ID) { m.ids = append(m.ids, id) }

// write puts the block into the transaction if it holds at least so many IDs, and drops the one that is too old.
func (m *marks) write(txn *badger.Txn, atLeast int) error {
	for len(m.ids) >= atLeast {
		n := min(len(m.ids), marksInBlock)
		if err := txn.Set(markKey(m.next), appendMarks(nil, m.ids[:n])); err != nil {
			return fmt.Errorf("writing the queue: %w", err)
		}
		if m.next >= markBlocks {
			if err := txn.Delete(markKey(m.next - markBlocks)); err != nil {
				return fmt.Errorf("writing the queue: %w", err)
			}
		}
		m.next++
		m.ids = slices.Delete(m.ids, 0, n)
	}
	return nil
}

func markKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyDone}, n) }

// appendMarks writes the sorted IDs as differences, and a checksum.
func appendMarks(b []byte, ids []ID) []byte {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	start, last := len(b), ID(0)
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id-last))
		last = id
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// decodeMarks appends the IDs of a block. From a damaged block it takes none: a mark that is wrong loses a message.
func decodeMarks(ids []ID, b []byte) []ID {
	if len(b) < 4 || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return ids
	}
	var last ID
	for b = b[:len(b)-4]; len(b) > 0; {
		d, n := binary.Uvarint(b)
		if n <= 0 {
			return ids
		}
		last += ID(d)
		ids = append(ids, last)
		b = b[n:]
	}
	return ids
}

// removals tells which IDs are those of removed messages.
type removals struct {
	lowest ID   // nothing below it is left
	done   []ID // sorted
}

func (r *removals) has(id ID) bool {
	if id < r.lowest {
		return true
	}
	_, found := slices.BinarySearch(r.done, id)
	return found
}

func loadRemovals(txn *badger.Txn) (*removals, error) {
	r := &removals{}
	lowest, err := getID(txn, keyLowest)
	if err != nil {
		return nil, err
	}
	r.lowest = lowest
	err = each(txn, keyDone, func(item *badger.Item) error {
		return item.Value(func(b []byte) error {
			r.done = decodeMarks(r.done, b)
			return nil
		})
	})
	slices.Sort(r.done)
	return r, err
}
