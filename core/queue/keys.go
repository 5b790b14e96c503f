package queue

import "encoding/binary"

// The keys, by their first byte. IDs are big-endian, so that keys sort as messages came in.
const (
	keyRecord   = 'r' // ID → record; a message exists when this does
	keyContent  = 'c' // ID → content of up to chunkSize
	keyChunk    = 'b' // ID, number → one chunk of a larger content; without a record it is an orphan
	keyDone     = 'd' // number of the block → IDs of removed messages
	keyHighest  = 'h' // → the largest ID in the store
	keyLowest   = 'l' // → no message with a smaller ID is left
	keyTally    = 't' // → what was ever added and removed
	keyName     = 'n' // → the name of this queue
	keyRestored = 'i' // where it was exported from → nothing, for a while
	keyPadding  = 'p' // number → nothing
)

const (
	idKeyLength    = 9
	chunkKeyLength = 13
)

const (
	chunkSize = 256 << 10
	// pieceSize bounds how much content one step of the committer takes from one message, so that a large message
	// does not hold up the small ones.
	pieceSize = 4 * chunkSize
)

// chunks returns how many chunks a content of that size has.
func chunks(size int64) int64 {
	n := size / chunkSize
	if size%chunkSize != 0 {
		n++
	}
	return n
}

func idKey(prefix byte, id ID) []byte {
	b := make([]byte, 0, idKeyLength)
	return binary.BigEndian.AppendUint64(append(b, prefix), uint64(id))
}

func chunkKey(id ID, n int64) []byte {
	b := make([]byte, 0, chunkKeyLength)
	b = binary.BigEndian.AppendUint64(append(b, keyChunk), uint64(id))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// keyID returns the ID in a key, or 0 for a key that holds none.
func keyID(key []byte) ID {
	if len(key) < idKeyLength {
		return 0
	}
	return ID(binary.BigEndian.Uint64(key[1:idKeyLength]))
}

// contentKeys returns the keys that hold the content of a message.
func contentKeys(id ID, size int64) [][]byte {
	n := chunks(size)
	switch n {
	case 0:
		return nil
	case 1:
		return [][]byte{idKey(keyContent, id)}
	}
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = chunkKey(id, int64(i))
	}
	return keys
}

// contentKey returns the key of the n-th chunk of a content of that size.
func contentKey(id ID, size, n int64) []byte {
	if size <= chunkSize {
		return idKey(keyContent, id)
	}
	return chunkKey(id, n)
}
