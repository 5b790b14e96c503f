package badgerfiles

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// CheckLog reads a whole value-log file that Badger has finished and returns a Damage when an entry is not good.
func CheckLog(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	offset, err := soundUpTo(f)
	if err != nil {
		return &Damage{path, offset, err}
	}
	return nil
}

// CheckNewestLog is CheckLog for the file that was being written: what a crash leaves at its end is no damage.
func CheckNewestLog(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	offset, bad := soundUpTo(f)
	if bad == nil {
		return nil
	}
	more, err := goodAfter(f, offset)
	if err != nil {
		return err
	}
	if !more {
		return nil
	}
	return &Damage{path, offset, errBadEntry}
}

// KeepNewestLog keeps what follows a damaged entry in the newest value-log file, and returns the Damage. Badger takes the
// first bad entry of that file for the end of what a crash left, and cuts the file off there. A file that is not the
// newest is left as it is, so where there is something good after the bad, an empty one is put behind it.
func KeepNewestLog(dir string) (*Damage, error) {
	list, err := List(dir, LogSuffix)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	newest := list[len(list)-1]
	var damage *Damage
	err = CheckNewestLog(filepath.Join(dir, LogName(newest)))
	if !errors.As(err, &damage) {
		return nil, err
	}
	return damage, PutEmptyLog(dir, newest+1)
}

// PutEmptyLog makes an empty value-log file, so that Badger neither cuts off the one before it nor uses the number again.
func PutEmptyLog(dir string, n int) error {
	return os.WriteFile(filepath.Join(dir, LogName(n)), make([]byte, HeaderLength), 0o600)
}

// soundUpTo returns the offset of the first entry that is not good, and why it is not; nil at the end of the file.
func soundUpTo(f *os.File) (int64, error) {
	r := &summing{r: bufio.NewReaderSize(f, 256<<10), sum: crc32.New(castagnoli)}
	if _, err := r.r.Discard(HeaderLength); err != nil {
		return 0, err
	}
	offset := int64(HeaderLength)
	for {
		if _, err := r.r.Peek(1); err == io.EOF {
			return offset, nil
		}
		n, err := r.entry()
		if err != nil {
			return offset, err
		}
		offset += n
	}
}

// goodAfter reports whether a good entry stands somewhere after the offset.
func goodAfter(f *os.File, offset int64) (bool, error) {
	end, err := lastByte(f, offset)
	if err != nil {
		return false, err
	}
	b := make([]byte, end-offset)
	if _, err := f.ReadAt(b, offset); err != nil {
		return false, err
	}
	_, found := search(b, 0)
	return found, nil
}

// lastByte returns where the zeros begin that fill f to its end, or offset when there is nothing else after it. A file
// that was being written has up to 64 MiB of them.
func lastByte(f *os.File, offset int64) (int64, error) {
	buf := make([]byte, 256<<10)
	end := offset
	for {
		n, err := f.ReadAt(buf, offset)
		if used := bytes.TrimRight(buf[:n], "\x00"); len(used) > 0 {
			end = offset + int64(len(used))
		}
		offset += int64(n)
		if err == io.EOF {
			return end, nil
		}
		if err != nil {
			return end, err
		}
	}
}

// summing reads bytes and sums them up. It reads what parse reads, but of a file that need not fit into memory.
type summing struct {
	r   *bufio.Reader
	sum hash.Hash32
	n   int64
}

// ReadByte reads one byte.
func (s *summing) ReadByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == nil {
		s.n++
		_, err = s.sum.Write([]byte{c})
	}
	return c, err
}

// entry reads one entry and returns its length.
func (s *summing) entry() (int64, error) {
	s.sum.Reset()
	s.n = 0
	for range 2 {
		if _, err := s.ReadByte(); err != nil {
			return 0, err
		}
	}
	var lengths [3]uint64
	for i := range lengths {
		v, err := binary.ReadUvarint(s)
		if err != nil {
			return 0, err
		}
		lengths[i] = v
	}
	if lengths[0] > 1<<16 || lengths[1] > 1<<31 {
		return 0, fmt.Errorf("an entry of %d and %d bytes", lengths[0], lengths[1])
	}
	body := int64(lengths[0] + lengths[1])
	if _, err := io.CopyN(s.sum, s.r, body); err != nil {
		return 0, err
	}
	var want [4]byte
	if _, err := io.ReadFull(s.r, want[:]); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint32(want[:]) != s.sum.Sum32() {
		return 0, fmt.Errorf("a checksum is wrong")
	}
	return s.n + body + 4, nil
}
