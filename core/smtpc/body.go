package smtpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pabal-mta/mta/sdk/mail"
)

// blockSize is how much content is read and sent at a time.
const blockSize = 64 << 10

// errBareLine says that content can't be sent as lines. It is refused when it comes in (RFC 5321, 2.3.8); to let it out
// would make one message into two for a lax peer.
var errBareLine = errors.New("the message holds a CR or LF that is not part of a CRLF")

// ContentError says that the message could not be read. The trouble is ours, not the peer's.
type ContentError struct{ Err error }

// Error returns it in words.
func (e *ContentError) Error() string { return "reading the message: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ContentError) Unwrap() error { return e.Err }

// reader reads content in blocks, ready to be sent.
type reader struct {
	content mail.Content
	at      int64
	raw     bool // as it is, for BDAT; else lines with their dots stuffed and a final dot
	last    byte // the last byte of the block before; '\n' at the start
	dots    []int
}

func newReader(c mail.Content, raw bool) *reader { return &reader{content: c, raw: raw, last: '\n'} }

// next replaces b by the next block. It reports io.EOF together with the last one.
func (r *reader) next(b []byte) ([]byte, error) {
	n := int(min(blockSize, r.content.Size()-r.at))
	b = slices.Grow(b[:0], n+8)[:n] // 8: a stuffed dot, and the end
	if got, err := r.content.ReadAt(b, r.at); got < n {
		if err == nil || err == io.EOF {
			err = fmt.Errorf("it ends after %d of %d bytes: %w", r.at+int64(got), r.content.Size(), io.ErrUnexpectedEOF)
		}
		return nil, &ContentError{err}
	}
	r.at += int64(n)
	done := r.at == r.content.Size()
	if !r.raw {
		var err error
		if b, err = r.lines(b, done); err != nil {
			return nil, err
		}
	}
	if done {
		return b, io.EOF
	}
	return b, nil
}

// lines stuffs dots (RFC 5321, 4.5.2) and refuses bare CR and LF. Most content has no line that begins with a dot and is
// not moved at all.
func (r *reader) lines(b []byte, done bool) ([]byte, error) {
	before := r.last
	if len(b) > 0 {
		r.last = b[len(b)-1]
	}
	var ok bool
	if r.dots, ok = findDots(r.dots[:0], b, before, done); !ok {
		return nil, errBareLine
	}
	b = stuff(b, r.dots)
	if !done {
		return b, nil
	}
	if r.last != '\n' {
		b = append(b, "\r\n"...)
	}
	return append(b, ".\r\n"...), nil
}

// findDots adds the places of the dots that begin a line. It reports false for a CR or LF that is not part of a CRLF; before
// is the byte before b, and done says that nothing follows it.
func findDots(dots []int, b []byte, before byte, done bool) (_ []int, ok bool) {
	crs, lfs := bytes.Count(b, []byte{'\r'}), 0
	if before == '\r' {
		crs++
	}
	if len(b) > 0 && b[len(b)-1] == '\r' && !done {
		crs-- // its LF is in the next block
	}
	if len(b) > 0 && b[0] == '.' && before == '\n' {
		dots = append(dots, 0)
	}
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return dots, crs == lfs
		}
		if at += i; at > 0 {
			before = b[at-1]
		}
		if before != '\r' {
			return dots, false
		}
		lfs++
		if at++; at < len(b) && b[at] == '.' {
			dots = append(dots, at)
		}
	}
}

// stuff doubles dots in place, from the end, so that each byte is moved once, however many dots there are.
func stuff(b []byte, dots []int) []byte {
	end := len(b)
	b = slices.Grow(b, len(dots))[:end+len(dots)]
	for i := len(dots) - 1; i >= 0; i-- {
		at := dots[i]
		copy(b[at+i+1:], b[at:end])
		b[at+i] = '.'
		end = at
	}
	return b
}
