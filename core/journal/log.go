package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// log is what one file holds.
type log struct {
	name        string
	content     []byte
	epoch       uint64
	first, last uint64 // numbers of its groups; zero for a file without any
	groups      []group
}

// group is one group in a file.
type group struct {
	off     int64 // of its payload
	epoch   uint64
	seq     uint64
	count   uint32
	payload []byte
}

// readLog reads a file up to the end of its last whole group. Groups of an earlier turn that follow are left over.
func readLog(f *os.File) (*log, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	b := make([]byte, info.Size()) // at once: io.ReadAll would copy it some thirty times
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	l := &log{name: f.Name(), content: b}
	off := int64(0)
	for {
		g, ok := groupAt(b, off)
		if !ok || l.last != 0 && (g.epoch != l.epoch || g.seq != l.last+1) {
			break
		}
		if l.last == 0 {
			l.epoch, l.first = g.epoch, g.seq
		}
		l.last = g.seq
		l.groups = append(l.groups, g)
		off = aligned(g.off + int64(len(g.payload)))
	}
	return l, l.checkRest(off)
}

// checkRest looks for groups of the same turn behind the end: a group is written only after the one before it was
// synced, so where there is one, the end is no crash's doing.
func (l *log) checkRest(end int64) error {
	if l.last == 0 {
		return nil // follows looks at the whole
	}
	for off := end; off < int64(len(l.content)); off += sector {
		if g, ok := groupAt(l.content, off); ok && g.epoch == l.epoch && g.seq > l.last {
			return fmt.Errorf("%w: %s at offset %d: %d groups of changes can't be read", ErrDamaged, l.name, end, g.seq-l.last-1)
		}
	}
	return nil
}

// follows checks that the newer file goes on where the older one ended.
func follows(older, newer *log) error {
	if newer.last == 0 { // both are empty
		for _, l := range []*log{older, newer} {
			if g, ok := anyGroup(l, 0); ok {
				return fmt.Errorf("%w: %s at offset 0: %d groups of changes can't be read", ErrDamaged, l.name, g.seq)
			}
		}
		return nil
	}
	if older.last == 0 {
		// The older file had just been turned to when the server died, and its first group is torn; or it never was used.
		if g, ok := anyGroup(older, newer.epoch); ok {
			return fmt.Errorf("%w: %s at offset 0: %d groups of changes can't be read", ErrDamaged, older.name, g.seq-newer.last-1)
		}
		return nil
	}
	if newer.epoch != older.epoch+1 || newer.first != older.last+1 {
		return fmt.Errorf("%w: %s ends with group %d, and %s begins with group %d", ErrDamaged, older.name, older.last, newer.name, newer.first)
	}
	return nil
}

// anyGroup returns a group of a later turn than epoch.
func anyGroup(l *log, epoch uint64) (group, bool) {
	for off := int64(0); off < int64(len(l.content)); off += sector {
		if g, ok := groupAt(l.content, off); ok && g.epoch > epoch {
			return g, true
		}
	}
	return group{}, false
}

// groupAt returns the group at an offset, if there is a whole one.
func groupAt(b []byte, off int64) (group, bool) {
	if off < 0 || off+headerSize > int64(len(b)) {
		return group{}, false
	}
	h := b[off : off+headerSize]
	n := int64(binary.LittleEndian.Uint32(h[24:]))
	if binary.LittleEndian.Uint32(h) != magic || n > maxGroup || off+headerSize+n > int64(len(b)) {
		return group{}, false
	}
	if binary.LittleEndian.Uint32(h[4:]) != crc32.Checksum(b[off+8:off+headerSize+n], castagnoli) {
		return group{}, false
	}
	return group{
		off:   off + headerSize,
		epoch: binary.LittleEndian.Uint64(h[8:]), seq: binary.LittleEndian.Uint64(h[16:]),
		count: binary.LittleEndian.Uint32(h[28:]), payload: b[off+headerSize : off+headerSize+n],
	}, true
}

// replay calls fn for the changes of a file.
func (l *log) replay(file uint8, fn func(Change) error) error {
	for _, g := range l.groups {
		at := 0
		for range g.count {
			c, n := change(g.payload[at:])
			if n == 0 {
				return fmt.Errorf("%w: %s at offset %d: it is not what a journal holds", ErrDamaged, l.name, g.off+int64(at))
			}
			at += n
			if !c.Remove {
				c.Place.file, c.Place.off = file, g.off+int64(at)-int64(c.Place.size)
			}
			if err := fn(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// change decodes one change and returns its length; 0 when there is none.
func change(b []byte) (Change, int) {
	if len(b) < 2 {
		return Change{}, 0
	}
	remove, n, at := b[0] == 0, int(b[1]), 2
	c := Change{Remove: remove}
	if !remove {
		if len(b) < at+4 {
			return Change{}, 0
		}
		c.Place.size = binary.LittleEndian.Uint32(b[at:])
		at += 4
	}
	end := at + n + int(c.Place.size)
	if end > len(b) || end < at {
		return Change{}, 0
	}
	c.Key = b[at : at+n]
	return c, end
}
