package queue

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// valueLogHeader is the length of what stands before the first entry of a value-log file: a key ID and an IV.
const valueLogHeader = 20

var errUnsound = errors.New("a file of the value log is damaged")

// checkValueLog reads a whole value-log file that Badger has finished and returns an error when an entry is damaged.
func checkValueLog(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	offset, err := soundUpTo(f)
	if err != nil {
		return fmt.Errorf("%w: %s at offset %d: %w", errUnsound, path, offset, err)
	}
	return nil
}

// protectValueLog keeps what follows a damaged entry in the newest value-log file. Badger takes the first bad entry of
// that file for the end of what a crash left, and cuts the file off there. A file that is not the newest is left as it
// is, so where there is something good after the bad, an empty one is put behind it.
func protectValueLog(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	newest := 0
	for _, e := range entries {
		newest = max(newest, number(e.Name(), logSuffix))
	}
	f, err := os.Open(filepath.Join(dir, logName(newest)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	offset, err := soundUpTo(f)
	if err == nil {
		return nil
	}
	more, err := goodAfter(f, offset)
	if err != nil || !more {
		return err
	}
	return os.WriteFile(filepath.Join(dir, logName(newest+1)), make([]byte, valueLogHeader), 0o600)
}

// soundUpTo returns the offset of the first entry that is not good, and why it is not; nil at the end of the file.
func soundUpTo(f *os.File) (int64, error) {
	r := &summing{r: bufio.NewReaderSize(f, 256<<10), sum: crc32.New(castagnoli)}
	if _, err := r.r.Discard(valueLogHeader); err != nil {
		return 0, err
	}
	offset := int64(valueLogHeader)
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

// goodAfter reports whether a good entry of ours stands somewhere after the offset.
func goodAfter(f *os.File, offset int64) (bool, error) {
	end, err := lastByte(f, offset)
	if err != nil {
		return false, err
	}
	b := make([]byte, end-offset)
	if _, err := f.ReadAt(b, offset); err != nil {
		return false, err
	}
	for i := 0; i+minEntry <= len(b); i++ {
		// No meta data, and a key of one of our lengths with Badger's 8 bytes behind it.
		if b[i] != 0 || b[i+1] != 0 || b[i+2] != idKeyLength+8 && b[i+2] != chunkKeyLength+8 {
			continue
		}
		r := &summing{r: bufio.NewReader(bytes.NewReader(b[i:])), sum: crc32.New(castagnoli)}
		if _, err := r.entry(); err == nil {
			return true, nil
		}
	}
	return false, nil
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

// minEntry is the length of an entry's lengths, key and checksum at the least.
const minEntry = 5 + idKeyLength + 8 + 4

// An entry is a byte of meta data, one of the user's, the lengths of key and value and the time of expiry as varints,
// key, value, and the CRC-32C of all that.

// summing reads bytes and sums them up.
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
