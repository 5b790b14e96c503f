package queue

import "encoding/binary"

// tally is what was ever done to a store. It stands in the store itself, changed with each group, and is what the
// messages found at a start have to agree with; and it stands in the mark, which the store may not be behind.
type tally struct {
	groups  uint64 // that were committed
	added   uint64 // messages
	removed uint64 // messages
	set     uint64 // the tokens of all messages in the queue, xored: which they are, not only how many
	highest ID
}

const tallyLength = 5 * 8

// live is how many messages there are.
func (t tally) live() int64 { return int64(t.added - t.removed) }

// token stands for an ID in a set: its bits well mixed (splitmix64), so that no two sets look alike by accident.
func token(id ID) uint64 {
	z := uint64(id) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// count notes an op of the next group.
func (t *tally) count(o *op) {
	t.added += uint64(o.change.added)
	t.removed += uint64(o.change.removed)
	t.set ^= o.change.set
	t.highest = max(t.highest, o.highest)
	if o.accept != nil {
		*t = t.accepting(*o.accept)
	}
}

// accepting returns the tally corrected to agree with what was found.
func (t tally) accepting(f found) tally {
	if f.count > 0 {
		t.added += uint64(f.count)
	} else {
		t.removed += uint64(-f.count)
	}
	t.set ^= f.set
	t.groups = max(t.groups, f.groups)
	t.highest = max(t.highest, f.highest)
	return t
}

// found is by how much the messages that are there differ from a tally.
type found struct {
	count   int64  // so many more
	set     uint64 // these more or fewer
	groups  uint64 // that the tally may not be behind
	highest ID
}

// differs reports that other messages are there than there should be.
func (f found) differs() bool { return f.count != 0 || f.set != 0 }

// missing is how many messages there should be and are not, at the least.
func (f found) missing() int64 {
	if f.differs() {
		return max(-f.count, 1)
	}
	return 0
}

func (t tally) appendTo(b []byte) []byte {
	for _, v := range [...]uint64{t.groups, t.added, t.removed, t.set, uint64(t.highest)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeTally(b []byte) (t tally, ok bool) {
	if len(b) < tallyLength {
		return tally{}, false
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return tally{n(0), n(1), n(2), n(3), ID(n(4))}, true
}
