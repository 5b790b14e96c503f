package calls

import (
	"fmt"
	"io"
	"os"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxMemory is the biggest streamed content that is kept in memory; a bigger one goes to an unlinked temporary file.
const maxMemory = 4 << 20

// spool takes a streamed content of a known size.
type spool struct {
	size, got int64
	mem       []byte
	file      *os.File
}

// newSpool makes room for size bytes. The file needs no closing: it has no name, and the descriptor goes with the value.
func newSpool(size uint64, limit int64) (*spool, error) {
	if size > uint64(limit) {
		return nil, fmt.Errorf("content of %d bytes, where at most %d are taken", size, limit)
	}
	s := &spool{size: int64(size)}
	if s.size <= maxMemory {
		s.mem = make([]byte, 0, s.size)
		return s, nil
	}
	f, err := os.CreateTemp("", "mta-content-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	s.file = f
	return s, nil
}

func (s *spool) write(b []byte) error {
	s.got += int64(len(b))
	if s.got > s.size {
		return fmt.Errorf("more content came than the %d bytes that were announced", s.size)
	}
	if s.file == nil {
		s.mem = append(s.mem, b...)
		return nil
	}
	_, err := s.file.Write(b)
	return err
}

// content returns what was written, if it is all there.
func (s *spool) content() (mail.Content, error) {
	if s.got != s.size {
		return nil, fmt.Errorf("%d bytes of content came, %d were announced: %w", s.got, s.size, io.ErrUnexpectedEOF)
	}
	if s.file == nil {
		return mail.Bytes(s.mem), nil
	}
	return spooled{s.file, s.size}, nil
}

type spooled struct {
	*os.File
	size int64
}

func (s spooled) Size() int64 { return s.size }

// ReadAt ends where the content ends.
func (s spooled) ReadAt(b []byte, off int64) (int, error) {
	return io.NewSectionReader(s.File, 0, s.size).ReadAt(b, off)
}

// poolTier is a size that no chunk has: with its head it just misses a buffer of gRPC's pool, and takes one of 1 MiB.
const poolTier = 32 << 10

// nextChunk returns how big the next chunk is when rest bytes are left, so that neither it nor the last one is a poolTier.
func nextChunk(rest int64) int64 {
	n := min(chunkSize, rest)
	if n == poolTier || rest-n == poolTier {
		n -= 1 << 10
	}
	return n
}

// sendChunks sends a content in pieces.
func sendChunks(c mail.Content, send func([]byte) error) error {
	buf := make([]byte, min(chunkSize, c.Size()))
	for at := int64(0); at < c.Size(); {
		b := buf[:nextChunk(c.Size()-at)]
		n, err := c.ReadAt(b, at)
		if n < len(b) {
			return fmt.Errorf("reading the content: %w", err)
		}
		if err := send(b); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
