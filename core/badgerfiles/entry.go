package badgerfiles

import (
	"encoding/binary"
	"hash/crc32"
)

// The bits of an entry's meta data that matter here.
const (
	bitDelete       = 1 << 0
	bitValuePointer = 1 << 1
	bitTxn          = 1 << 6 // part of a transaction
	bitFinTxn       = 1 << 7 // the end of one
)

// versionLength is the length of what Badger puts behind each key: its version.
const versionLength = 8

// Bounds of what is taken for an entry where one is searched for: longer ones are not written by us.
const (
	maxKey   = 1 << 10
	maxValue = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Entry is one entry of a log or of a table.
type Entry struct {
	Offset int64
	Length int64
	Meta   byte
	User   byte
	Expiry uint64 // seconds since 1970; 0: never
	Key    []byte // without its version
	Value  []byte // or where it stands in the value log: see Points

	Version uint64
}

// Deletes reports that the entry removes its key.
func (e *Entry) Deletes() bool { return e.Meta&bitDelete != 0 }

// Points reports that the value stands in the value log.
func (e *Entry) Points() bool { return e.Meta&bitValuePointer != 0 }

// parse reads the entry at the start of b: a byte of meta data, one of the user's, the lengths of key and value and the
// time of expiry as varints, key, value, and the CRC-32C of all that.
func parse(b []byte) (Entry, bool) {
	if len(b) < 2 {
		return Entry{}, false
	}
	e := Entry{Meta: b[0], User: b[1]}
	at := 2
	var numbers [3]uint64
	for i := range numbers {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return Entry{}, false
		}
		numbers[i] = v
		at += n
	}
	klen, vlen := numbers[0], numbers[1]
	if klen <= versionLength || klen > 1<<16 || vlen > uint64(len(b)) || uint64(at)+klen+vlen+4 > uint64(len(b)) {
		return Entry{}, false
	}
	key := b[at : at+int(klen)]
	at += int(klen)
	e.Value = b[at : at+int(vlen)]
	at += int(vlen)
	if crc32.Checksum(b[:at], castagnoli) != binary.BigEndian.Uint32(b[at:]) {
		return Entry{}, false
	}
	e.Expiry, e.Length = numbers[2], int64(at+4)
	e.setKey(key)
	return e, true
}

// setKey splits a key from its version, which is stored so that newer ones sort first.
func (e *Entry) setKey(key []byte) {
	cut := len(key) - versionLength
	e.Key, e.Version = key[:cut], ^binary.BigEndian.Uint64(key[cut:])
}

// appendTo writes the entry as one that belongs to no transaction.
func (e *Entry) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, e.Meta&^(bitTxn|bitFinTxn), e.User)
	b = binary.AppendUvarint(b, uint64(len(e.Key)+versionLength))
	b = binary.AppendUvarint(b, uint64(len(e.Value)))
	b = binary.AppendUvarint(b, e.Expiry)
	b = append(b, e.Key...)
	b = binary.BigEndian.AppendUint64(b, ^e.Version)
	b = append(b, e.Value...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// search returns the first good entry in b from offset on, whatever stands before it.
func search(b []byte, offset int64) (Entry, bool) {
	for i := offset; i+5+versionLength+4 < int64(len(b)); i++ {
		if b[i+1] != 0 || b[i]&^(bitDelete|bitValuePointer|bitTxn|bitFinTxn|1<<2) != 0 {
			continue // no meta data of ours
		}
		if !plausible(b[i+2:]) {
			continue
		}
		if e, ok := parse(b[i:]); ok {
			e.Offset = i
			return e, true
		}
	}
	return Entry{}, false
}

// plausible reports whether lengths of a key and a value could stand at the start of b, so that few sums are made in vain.
func plausible(b []byte) bool {
	klen, n := binary.Uvarint(b)
	if n <= 0 || klen <= versionLength || klen > maxKey {
		return false
	}
	vlen, m := binary.Uvarint(b[n:])
	return m > 0 && vlen <= maxValue
}
