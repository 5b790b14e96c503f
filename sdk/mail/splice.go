package mail

import (
	"errors"
	"io"
	"slices"
)

// Spliced is a content put together of new bytes and the end of another content. Nothing of the other one is copied.
type Spliced struct {
	Head []byte // must not change afterwards
	Rest Content
	From int64 // where in Rest it goes on
}

// Splice puts head before what stands in c from an offset on; 0 is all of it. Splices are not stacked: a message that ten filters
// have edited is read as fast as one that one has.
func Splice(head []byte, c Content, from int64) *Spliced {
	if s, ok := c.(*Spliced); ok {
		left := s.Head[min(from, int64(len(s.Head))):]
		head, c, from = slices.Concat(head, left), s.Rest, s.From+max(0, from-int64(len(s.Head)))
	}
	return &Spliced{Head: head, Rest: c, From: from}
}

// Size is that of both parts.
func (s *Spliced) Size() int64 { return int64(len(s.Head)) + s.Rest.Size() - s.From }

// ReadAt reads over the seam.
func (s *Spliced) ReadAt(p []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, errors.New("negative offset")
	}
	if at < int64(len(s.Head)) {
		if n = copy(p, s.Head[at:]); n == len(p) {
			return n, nil
		}
	}
	if at += int64(n); at >= s.Size() {
		return n, io.EOF
	}
	m, err := s.Rest.ReadAt(p[n:], s.From+at-int64(len(s.Head)))
	return n + m, err
}
