package mime

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxLine is the longest line of text, without its CRLF (RFC 5321, 4.5.3.1.6; RFC 2045, 2.7).
const maxLine = 998

// class is what octets hold, as RFC 2045, 2.7 to 2.9 tell them apart. A greater class holds the smaller ones.
type class uint8

const (
	class7Bit class = iota
	class8Bit
	classBinary
)

// String returns the word of Content-Transfer-Encoding.
func (c class) String() string { return [...]string{"7bit", "8bit", "binary"}[c] }

// scan is what was found in some octets.
type scan struct {
	high bool // octets above 127
	bare bool // NUL, CR or LF that is not part of CRLF
	long bool // a line of more than 998
	line int  // octets since the last LF
	cr   bool // the last octet was CR
}

func (s *scan) class() class {
	switch {
	case s.bare || s.long:
		return classBinary
	case s.high:
		return class8Bit
	}
	return class7Bit
}

// onlyLong says that nothing but long lines keeps the octets from being of class c. Every host of today takes them, so
// that they are mended where that harms nothing, and left alone elsewhere.
func (s *scan) onlyLong(c class) bool {
	short := *s
	short.long = false
	return s.long && short.class() <= c
}

func scanBytes(b []byte) scan {
	var s scan
	s.add(b)
	s.end()
	return s
}

// add looks at the next octets. It runs over every message that leaves, so it works in whole words.
func (s *scan) add(b []byte) {
	s.high = s.high || hasHigh(b)
	s.bare = s.bare || bytes.IndexByte(b, 0) >= 0
	crs := bytes.Count(b, []byte{'\r'})
	if s.cr {
		crs++
	}
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		if i > 0 && b[i-1] == '\r' || i == 0 && s.cr {
			crs--
			s.line--
		} else {
			s.bare = true
		}
		s.long = s.long || s.line+i > maxLine
		s.line, s.cr = 0, false
		b = b[i+1:]
	}
	s.line += len(b)
	if len(b) > 0 {
		s.cr = b[len(b)-1] == '\r'
	}
	if s.cr {
		crs--
	}
	s.bare = s.bare || crs > 0
	s.long = s.long || s.line > maxLine+1
}

// end says that nothing follows.
func (s *scan) end() {
	s.bare = s.bare || s.cr
	s.long = s.long || s.line > maxLine
}

func hasHigh(b []byte) bool {
	const mask = 0x8080808080808080
	for len(b) >= 32 {
		if (binary.NativeEndian.Uint64(b)|binary.NativeEndian.Uint64(b[8:])|
			binary.NativeEndian.Uint64(b[16:])|binary.NativeEndian.Uint64(b[24:]))&mask != 0 {
			return true
		}
		b = b[32:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

var chunks = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// scanContent looks at a whole message, holding little of it in memory.
func scanContent(ctx context.Context, c mail.Content) (scan, error) {
	buf := chunks.Get().(*[64 << 10]byte)
	defer chunks.Put(buf)
	var s scan
	for at := int64(0); at < c.Size(); {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		n, err := c.ReadAt(buf[:min(int64(len(buf)), c.Size()-at)], at)
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return s, fmt.Errorf("reading the message: %w", err)
		}
		s.add(buf[:n])
		at += int64(n)
	}
	s.end()
	return s, nil
}
