package smtpd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Sizes of a body in memory, in bytes.
const (
	headroom   = 1 << 10 // left free in front of a body, for the fields that we put on top
	firstRoom  = 8 << 10
	maxPromise = 256 << 10 // of the memory that SIZE= asks for in advance
	maxMemory  = 1 << 20   // a body above it goes to a file
)

// Budget bounds the memory of all bodies that are being received.
type Budget struct {
	left atomic.Int64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{}
	b.left.Store(bytes)
	return b
}

func (b *Budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

func (b *Budget) give(n int64) { b.left.Add(n) }

// body gathers the content of a message: in memory at first, in a file without a name when it is large or memory is
// short. Once it has been refused it only counts.
type body struct {
	budget    *Budget
	dir       string
	max       int64 // octets
	normalize bool

	promise int64  // SIZE=
	mem     []byte // headroom, then the body
	taken   int64  // of the budget
	file    *os.File
	buf     *bufio.Writer // over file
	written int64         // to file

	size    int64 // octets that came
	eight   bool  // some of them have the high bit
	refusal *mail.Reply
	hostile bool // the refusal is for what could be smuggling: the connection is closed
	heldCR  bool // BDAT: a chunk ended in CR
}

func (s *Server) newBody(promise int64) *body {
	return &body{
		budget: s.memory, dir: s.cfg.SpoolDir, max: s.cfg.Limits.MessageSize,
		normalize: s.cfg.BareLF == BareLFNormalize, promise: promise,
	}
}

// add makes body a sink.
func (b *body) add(p []byte, crlf, bareLF int) {
	b.size += int64(len(p))
	if b.refusal != nil {
		return
	}
	if b.size > b.max {
		b.refuse(552, "5.3.4", "message too big") // RFC 1870, 6.3
		return
	}
	if bytes.IndexByte(p, 0) >= 0 {
		b.hostile = true
		b.refuse(550, "5.6.11", "the message holds a NUL")
		return
	}
	if bareLF > 0 || bytes.Count(p, []byte{'\r'}) != crlf {
		if !b.normalize {
			b.hostile = true
			b.refuse(550, "5.6.11", "the message holds a CR or LF that is not part of a CRLF (RFC 5321, 2.3.8)")
			return
		}
		p = normalized(p)
	}
	b.eight = b.eight || has8Bit(p)
	b.keep(p)
}

// addChunk adds a piece of a BDAT chunk. A CR at its end waits for what follows.
func (b *body) addChunk(p []byte) {
	if len(p) == 0 {
		return
	}
	if b.heldCR {
		b.heldCR = false
		if p[0] == '\n' {
			b.add([]byte("\r\n"), 1, 0)
			p = p[1:]
		} else {
			b.add([]byte("\r"), 0, 0)
		}
	}
	if n := len(p); n > 0 && p[n-1] == '\r' {
		b.heldCR = true
		p = p[:n-1]
	}
	if len(p) > 0 {
		crlf, bareLF := countLines(p)
		b.add(p, crlf, bareLF)
	}
}

// endChunks ends a body that came by BDAT. Its last line gets the CRLF that DATA would have asked for.
func (b *body) endChunks() {
	if b.heldCR {
		b.heldCR = false
		b.add([]byte("\r"), 0, 0)
	}
	if b.refusal == nil && !b.endsInCRLF() {
		b.keep([]byte("\r\n"))
	}
}

func (b *body) endsInCRLF() bool {
	if b.file == nil {
		return len(b.mem) <= headroom || bytes.HasSuffix(b.mem, []byte("\r\n"))
	}
	var tail [2]byte
	if err := b.buf.Flush(); err != nil {
		return false
	}
	_, err := b.file.ReadAt(tail[:], b.written-2)
	return err == nil && string(tail[:]) == "\r\n"
}

func (b *body) refuse(code int, enhanced, text string) {
	r := mail.NewReply(code, enhanced, text)
	b.refusal = &r
	b.release()
}

// keep stores a piece of the body.
func (b *body) keep(p []byte) {
	if b.file == nil && b.grow(len(p)) {
		b.mem = append(b.mem, p...)
		return
	}
	if b.file == nil {
		if err := b.spill(); err != nil {
			b.refuse(452, "4.3.1", "no room for the message, try again later")
			return
		}
	}
	n, err := b.buf.Write(p)
	b.written += int64(n)
	if err != nil {
		b.refuse(452, "4.3.1", "no room for the message, try again later")
	}
}

// grow makes room for n more bytes in memory, or reports that they belong into a file.
func (b *body) grow(n int) bool {
	need := len(b.mem) + n
	if b.mem == nil {
		need += headroom
	}
	if need <= cap(b.mem) {
		return true
	}
	if need > maxMemory+headroom {
		return false
	}
	room := max(need, 4*cap(b.mem), firstRoom, int(min(b.promise+headroom+2, maxPromise)))
	room = min(room, maxMemory+headroom)
	if !b.budget.take(int64(room - cap(b.mem))) {
		return false
	}
	b.taken += int64(room - cap(b.mem))
	bigger := make([]byte, max(len(b.mem), headroom), room)
	copy(bigger, b.mem)
	b.mem = bigger
	return true
}

// spill moves the body to a file that has no name, so that nothing is left behind whatever happens.
func (b *body) spill() error {
	f, err := unnamed(b.dir)
	if err != nil {
		return err
	}
	b.file, b.buf = f, bufio.NewWriterSize(f, 32<<10)
	if len(b.mem) > headroom {
		n, err := f.Write(b.mem[headroom:])
		b.written = int64(n)
		if err != nil {
			return err
		}
	}
	b.mem = nil
	b.refund()
	return nil
}

func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "mta-body-*")
	if err != nil {
		return nil, fmt.Errorf("making a spool file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("taking the name off a spool file: %w", err)
	}
	return f, nil
}

// refund gives the memory back to the budget.
func (b *body) refund() {
	b.budget.give(b.taken)
	b.taken = 0
}

// release drops what the body stands on.
func (b *body) release() {
	b.mem = nil
	b.refund()
	if b.file != nil {
		b.file.Close()
		b.file, b.buf = nil, nil
	}
}

// plain is the body as it is, for reading its header.
func (b *body) plain() (mail.Content, error) {
	if b.file == nil {
		return mail.Bytes(b.mem[min(headroom, len(b.mem)):]), nil
	}
	if err := b.buf.Flush(); err != nil {
		return nil, err
	}
	return io.NewSectionReader(b.file, 0, b.written), nil
}

// under is the body with the given fields on top. In memory they go into the headroom, and nothing is copied.
func (b *body) under(top []byte) (mail.Content, error) {
	c, err := b.plain()
	switch {
	case err != nil:
		return nil, err
	case b.file != nil:
		return mail.Splice(top, c, 0), nil
	case len(b.mem) == 0:
		return mail.Bytes(top), nil
	case len(top) > headroom:
		return mail.Bytes(append(top, b.mem[headroom:]...)), nil
	}
	at := headroom - len(top)
	copy(b.mem[at:], top)
	return mail.Bytes(b.mem[at:]), nil
}

// has8Bit reports an octet above 127.
func has8Bit(p []byte) bool {
	const high = 0x8080808080808080
	for ; len(p) >= 32; p = p[32:] {
		if (binary.NativeEndian.Uint64(p)|binary.NativeEndian.Uint64(p[8:])|binary.NativeEndian.Uint64(p[16:])|binary.NativeEndian.Uint64(p[24:]))&high != 0 {
			return true
		}
	}
	for _, c := range p {
		if c&0x80 != 0 {
			return true
		}
	}
	return false
}
