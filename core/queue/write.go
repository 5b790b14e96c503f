package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// NewID makes the ID of a message that will be added, so that its Received field can tell it.
func (q *Queue) NewID() ID { return q.ids.next(time.Now()) }

// Add stores a message and returns when it is on stable storage. It returns ErrFull when the disk is nearly full,
// ErrStopped after a storage error or Close, and the context's error when ctx ended before the message was taken for a
// commit; after that Add waits for the commit, so that an error means that the message is not in the queue, but for one
// with ErrStopped, which may turn up at the next start.
//
// The content is not copied when it is mail.Bytes or has a Bytes method; it must not change before Add has returned.
func (q *Queue) Add(ctx context.Context, m *Message) (*Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q.disk.full() {
		return nil, ErrFull
	}
	d, err := q.draft(m)
	if err != nil {
		return nil, err
	}
	o, err := q.finish(ctx, d)
	if err == nil {
		err = q.do(ctx, o, false)
	}
	if err != nil {
		q.forget(d)
		return nil, err
	}
	return d.rec, nil
}

// Settle stores rec, whose recipients, times and hold the caller has changed, and adds the reports in the same
// transaction. When no recipient is pending any more, the message is removed instead. It returns at once; done is called
// exactly once when the group is durable or failed: from the committer goroutine, so it must be quick and must not wait
// for the queue. A message that is not in the queue any more is ErrNotFound, and then no report is added either.
//
// A record has one owner, who settles it once at a time.
func (q *Queue) Settle(rec *Record, reports []*Message, done func(added []*Record, err error)) {
	o, err := q.settlement(rec)
	if err != nil {
		done(nil, err)
		return
	}
	drafts := make([]*draft, len(reports))
	large := false
	for i, m := range reports {
		if drafts[i], err = q.draft(m); err != nil {
			done(nil, fmt.Errorf("report %d: %w", i+1, err))
			return
		}
		large = large || drafts[i].rec.Size > pieceSize
	}
	rec.remember()
	if large {
		go q.settle(o, drafts, done) // its first pieces need commits of their own
		return
	}
	q.settle(o, drafts, done)
}

// settle joins the reports to the op and submits it.
func (q *Queue) settle(o *op, drafts []*draft, done func([]*Record, error)) {
	var added []*Record
	for _, d := range drafts {
		report, err := q.finish(context.Background(), d)
		if err != nil {
			q.forget(drafts...)
			done(nil, err)
			return
		}
		o.join(report)
		added = append(added, d.rec)
	}
	o.done = func(err error) {
		if err != nil {
			q.forget(drafts...)
			added = nil
		}
		done(added, err)
	}
	q.submitChecked(o)
}

// submitChecked submits an urgent op unless no transaction can hold it.
func (q *Queue) submitChecked(o *op) {
	if !q.fits(q.weigh(o)) {
		o.done(errTooLarge)
		return
	}
	q.submit(o, true)
}

// settlement makes the op that stores or removes rec.
func (q *Queue) settlement(rec *Record) (*op, error) {
	if err := rec.checkMoves(); err != nil {
		if testing.Testing() {
			panic(err)
		}
		return nil, err
	}
	o := &op{need: rec.ID}
	if !rec.open() {
		o.remove(rec)
		return o, nil
	}
	b, err := encode(rec)
	if err != nil {
		return nil, err
	}
	o.put(idKey(keyRecord, rec.ID), b)
	o.change.held = one(rec.Held != "") - one(rec.wasHeld)
	return o, nil
}

// Delete removes a message and leaves nothing of it but a done mark. It returns at once; done is called as by Settle.
func (q *Queue) Delete(id ID, done func(error)) {
	o := &op{need: id, done: done}
	rec, err := q.record(id)
	switch {
	case err == nil:
		o.remove(rec)
	case errors.Is(err, ErrDamaged): // how many chunks it has is lost with it; Recover finds them
		o.drops = [][]byte{idKey(keyRecord, id), idKey(keyContent, id)}
		o.removed, o.change.removed, o.change.set = id, 1, token(id)
	case errors.Is(err, ErrNotFound): // as the committer will say, in its turn
	default:
		done(err)
		return
	}
	q.submitChecked(o)
}

// remove makes the op one that removes the message.
func (o *op) remove(rec *Record) {
	o.drops = append(contentKeys(rec.ID, rec.Size), idKey(keyRecord, rec.ID))
	o.removed = rec.ID
	o.change = figures{messages: -1, held: -one(rec.wasHeld), bytes: -rec.Size, removed: 1, set: token(rec.ID)}
}

// join adds what another op does to this one.
func (o *op) join(other *op) {
	o.puts = append(o.puts, other.puts...)
	o.highest = max(o.highest, other.highest)
	o.change.messages += other.change.messages
	o.change.held += other.change.held
	o.change.bytes += other.change.bytes
	o.change.added += other.change.added
	o.change.set ^= other.change.set
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// do submits an op and waits for its commit. It waits no longer than ctx unless the committer has taken the op.
func (q *Queue) do(ctx context.Context, o *op, urgent bool) error {
	result := make(chan error, 1)
	o.done = func(err error) { result <- err }
	q.submit(o, urgent)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if o.take() {
			return ctx.Err()
		}
		return <-result
	}
}

// draft is a message on its way into the store.
type draft struct {
	rec     *Record
	content mail.Content
	bytes   []byte // the content, when it is in memory
	written int64  // bytes of content that are in the store already, as chunks
}

// draft checks a message and gives it an ID.
func (q *Queue) draft(m *Message) (*draft, error) {
	if len(m.Envelope.To) == 0 {
		return nil, errors.New("a message without recipients can't be queued")
	}
	d := &draft{content: m.Content}
	var size int64
	if m.Content != nil {
		size = m.Content.Size()
		d.bytes = inMemory(m.Content)
	}
	now := time.Now()
	received := m.Received
	if received.IsZero() {
		received = now
	}
	id := m.ID
	if id == 0 {
		id = q.ids.next(now)
	}
	d.rec = &Record{
		ID: id, Envelope: m.Envelope, Size: size, Held: m.Held, Meta: maps.Clone(m.Meta),
		Received: received.Round(0), Next: received.Round(0),
		Recipients: make([]Recipient, len(m.Envelope.To)),
		sums:       make([]uint32, 0, chunks(size)),
	}
	d.rec.Envelope.To = nil
	for i, to := range m.Envelope.To {
		d.rec.Recipients[i].Recipient = to
	}
	d.rec.remember()
	return d, nil
}

// finish writes all but the last piece of the content and returns the op that makes the message exist.
func (q *Queue) finish(ctx context.Context, d *draft) (*op, error) {
	var buf []byte
	for d.rec.Size-d.written > pieceSize {
		o := &op{highest: d.rec.ID}
		var err error
		if buf, err = d.piece(o, buf); err != nil {
			return nil, err
		}
		if err := q.do(ctx, o, false); err != nil {
			return nil, err
		}
	}
	o := &op{highest: d.rec.ID}
	if _, err := d.piece(o, buf); err != nil {
		return nil, err
	}
	b, err := encode(d.rec)
	if err != nil {
		return nil, err
	}
	o.put(idKey(keyRecord, d.rec.ID), b)
	if !q.fits(q.weigh(o)) {
		return nil, errTooLarge
	}
	o.change = figures{messages: 1, held: one(d.rec.Held != ""), bytes: d.rec.Size, added: 1, set: token(d.rec.ID)}
	return o, nil
}

// piece puts the next piece of the content into the op, in chunks. A content that is not in memory is read into buf,
// which is used again for the next piece.
func (d *draft) piece(o *op, buf []byte) ([]byte, error) {
	n := min(d.rec.Size-d.written, pieceSize)
	var part []byte
	if d.bytes != nil {
		part = d.bytes[d.written : d.written+n]
	} else if n > 0 {
		if buf == nil {
			buf = make([]byte, n)
		}
		part = buf[:n]
		if m, err := d.content.ReadAt(part, d.written); int64(m) != n {
			return buf, fmt.Errorf("reading the message: %w", orUnexpectedEOF(err))
		}
	}
	for len(part) > 0 {
		chunk := part[:min(len(part), chunkSize)]
		part = part[len(chunk):]
		o.put(contentKey(d.rec.ID, d.rec.Size, int64(len(d.rec.sums))), chunk)
		d.rec.sums = append(d.rec.sums, crc32.Checksum(chunk, castagnoli))
	}
	d.written += n
	return buf, nil
}

func orUnexpectedEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// forget drops the chunks of drafts that came to nothing. What it can't drop, Recover will.
func (q *Queue) forget(drafts ...*draft) {
	o := &op{done: func(error) {}}
	for _, d := range drafts {
		if d.written > 0 && d.rec.Size > pieceSize {
			o.drops = append(o.drops, contentKeys(d.rec.ID, d.written)...)
		}
	}
	if len(o.drops) > 0 && q.fits(q.weigh(o)) {
		q.submit(o, true)
	}
}

var errTooLarge = errors.New("the message has more recipients or chunks than one transaction of the queue holds")

func encode(rec *Record) ([]byte, error) {
	b := appendRecord(make([]byte, 0, 256), rec)
	if len(b) > maxRecord {
		return nil, errTooLarge
	}
	return b, nil
}

// inMemory returns the bytes of a content that is in memory, without copying them, or nil.
func inMemory(c mail.Content) []byte {
	switch c := c.(type) {
	case interface{ Bytes() []byte }:
		return c.Bytes()
	case *bytes.Reader:
		// A copy of the reader writes the very slice that it reads from; the reader itself stays as it is.
		r := *c
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil
		}
		var s slice
		if _, err := r.WriteTo(&s); err != nil {
			return nil
		}
		return s.b
	}
	return nil
}

// slice is a writer that keeps the slice it is given. A bytes.Reader writes all of its bytes at once.
type slice struct{ b []byte }

func (s *slice) Write(b []byte) (int, error) {
	s.b = b
	return len(b), nil
}
