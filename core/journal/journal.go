// Package journal is the log in front of a store: groups of changes, each one write and one sync.
//
// Two files take turns. A group goes to the end of the one that is active; when that is full the other one is overwritten,
// so that a server that runs for long writes to blocks that the disk has given it already, without a mapping and without
// new pages of memory. What a group says must be in the store before its file is overwritten: the caller sees to that
// between two calls of Turn. Replay gives back, in order, the groups of both files; a group that was not written whole by a
// crash is the end of its file, and one that is damaged with good ones after it is ErrDamaged, never passed over.
package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrDamaged is the error of a journal that holds less than was committed to it.
var ErrDamaged = errors.New("the journal is damaged")

// FileSize is about how large a file of the journal becomes, in bytes.
const FileSize = 32 << 20

const (
	sector     = 512 // groups begin at multiples of it, so that no sector with an older group is torn
	headerSize = 32
	magic      = 0x314A4250 // "PBJ1"
	maxGroup   = 1 << 30
	buffered   = 4 << 20 // a larger buffer is not kept for the next group
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Place is where a value stands in the journal.
type Place struct {
	file uint8
	size uint32
	off  int64
}

// Change is one key that a group sets or removes.
type Change struct {
	Key    []byte
	Place  Place // of the value
	Remove bool
}

// Journal is an open journal. Its methods are called by one goroutine at a time, but for Read.
type Journal struct {
	files  [2]*os.File
	active int
	epoch  uint64 // of the active file; each turn has a larger one
	seq    uint64 // of the last group
	end    int64  // of the active file's last group
	before int64  // the same of the other file
	turned bool   // to the active file, and nothing is written to it yet
	group  []byte // the one that is being made
	count  uint32
}

// Names returns the names of the journal's files.
func Names() [2]string { return [2]string{"0.journal", "1.journal"} }

// Open opens the journal in a directory that is there, or makes one. Replay comes next.
func Open(dir string) (*Journal, error) {
	j := &Journal{}
	for i, name := range Names() {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening the journal: %w", err), j.Close())
		}
		j.files[i] = f
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// Close closes the files. Nothing is lost: each group was synced.
func (j *Journal) Close() error {
	var errs []error
	for _, f := range j.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Clear says that the store has all that the journal says. It is called after Replay, and before Close.
func (j *Journal) Clear() error {
	// The older file is cleared before the newer one: the older one alone must never be replayed, since the store is ahead of
	// it. After a Turn that nothing was written to, the active file is the older one still.
	if !j.turned {
		j.Turn()
	}
	if err := j.commitEmpty(); err != nil {
		return err
	}
	j.Turn()
	return j.commitEmpty()
}

// commitEmpty begins a file anew with a group that says nothing.
func (j *Journal) commitEmpty() error {
	j.begin()
	return j.Commit()
}

// Turn makes the other file the active one, and overwrites it from its start. All that is in it must be in the store.
func (j *Journal) Turn() {
	j.active = 1 - j.active
	j.epoch++
	j.before, j.end = j.end, 0
	j.turned = true
}

// Full reports whether so many bytes more would make the active file larger than FileSize.
func (j *Journal) Full(n int64) bool { return j.end+n > FileSize && j.end > 0 }

// begin starts a group if none was.
func (j *Journal) begin() {
	if len(j.group) == 0 {
		j.group = append(j.group, make([]byte, headerSize)...)
	}
}

// Set adds a key and its value to the group, and returns where the value will stand. A key has 255 bytes at most.
func (j *Journal) Set(key, value []byte) Place {
	j.begin()
	j.group = append(j.group, 1, byte(len(key)))
	j.group = binary.LittleEndian.AppendUint32(j.group, uint32(len(value)))
	j.group = append(j.group, key...)
	p := Place{file: uint8(j.active), size: uint32(len(value)), off: j.end + int64(len(j.group))}
	j.group = append(j.group, value...)
	j.count++
	return p
}

// Remove adds to the group that a key is gone.
func (j *Journal) Remove(key []byte) {
	j.begin()
	j.group = append(j.group, 0, byte(len(key)))
	j.group = append(j.group, key...)
	j.count++
}

// Commit writes the group and returns when it is on stable storage. After an error the journal must not be used; but when the
// disk had no room, which is syscall.ENOSPC, Commit may be called again.
func (j *Journal) Commit() error {
	if len(j.group) == 0 {
		return nil
	}
	seq, b := j.seq+1, j.group
	binary.LittleEndian.PutUint32(b, magic)
	binary.LittleEndian.PutUint64(b[8:], j.epoch)
	binary.LittleEndian.PutUint64(b[16:], seq)
	binary.LittleEndian.PutUint32(b[24:], uint32(len(b)-headerSize))
	binary.LittleEndian.PutUint32(b[28:], j.count)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	f := j.files[j.active]
	j.turned = false
	if _, err := f.WriteAt(b, j.end); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if err := syncData(f); err != nil {
		return fmt.Errorf("syncing the journal: %w", err)
	}
	j.seq, j.end = seq, aligned(j.end+int64(len(b)))
	j.count = 0
	if j.group = b[:0]; cap(b) > buffered {
		j.group = nil
	}
	return nil
}

// aligned returns where the next group begins.
func aligned(n int64) int64 { return (n + sector - 1) / sector * sector }

// Read returns the value at a place. It may be called beside the other methods, as long as the file of the place is not
// overwritten.
func (j *Journal) Read(p Place) ([]byte, error) {
	b := make([]byte, p.size)
	if _, err := j.files[p.file].ReadAt(b, p.off); err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return b, nil
}

// Replay calls fn for every change that was committed and may not be in the store, in order. The bytes of a change are
// only lent. It leaves the journal ready for Clear.
func (j *Journal) Replay(fn func(Change) error) error {
	var logs [2]*log
	for i, f := range j.files {
		l, err := readLog(f)
		if err != nil {
			return err
		}
		logs[i] = l
	}
	// The older one first. An empty file is older than any other.
	first := 0
	if logs[1].epoch < logs[0].epoch {
		first = 1
	}
	older, newer := logs[first], logs[1-first]
	if err := follows(older, newer); err != nil {
		return err
	}
	for i, l := range []*log{older, newer} {
		if err := l.replay(uint8(first^i), fn); err != nil {
			return err
		}
	}
	j.active, j.epoch, j.seq = 1-first, newer.epoch, max(older.last, newer.last)
	if j.epoch == 0 { // a new journal begins at a number that nobody can guess and put into a message
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		j.epoch = binary.LittleEndian.Uint64(b[:]) >> 2
	}
	return nil
}

// Size returns the size of the file that has been turned from last, in bytes.
func (j *Journal) Size() int64 { return j.before }

// SizeIn returns the size of the files of the journal in a directory, in bytes; 0 where there is none.
func SizeIn(dir string) (size int64) {
	for _, name := range Names() {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			size += info.Size()
		}
	}
	return size
}

// Empty reports whether the journal in a directory says nothing that the store does not have. It changes nothing.
func Empty(dir string) (bool, error) {
	empty := true
	for _, name := range Names() {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		l, err := readLog(f)
		f.Close()
		if err != nil {
			return false, err
		}
		for _, g := range l.groups {
			empty = empty && g.count == 0
		}
	}
	return empty, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing the journal's directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing the journal's directory: %w", err)
	}
	return nil
}
