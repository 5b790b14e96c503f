package queue

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func openQueue(t testing.TB, dir string) *Queue {
	t.Helper()
	q, err := Open(dir, Options{MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func closeQueue(t testing.TB, q *Queue) {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

// pattern makes n bytes that differ from place to place and from seed to seed.
func pattern(seed, n int) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "line %d of message %d\r\n", i, seed)
	}
	return b[:n]
}

func message(content []byte, to ...string) *Message {
	m := &Message{Envelope: mail.Envelope{From: mail.MustParseAddress("ann@example.com")}, Content: mail.Bytes(content)}
	for _, a := range to {
		m.Envelope.To = append(m.Envelope.To, mail.Recipient{Address: mail.MustParseAddress(a)})
	}
	return m
}

func add(t testing.TB, q *Queue, m *Message) *Record {
	t.Helper()
	rec, err := q.Add(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// settle waits for a Settle.
func settle(q *Queue, rec *Record, reports ...*Message) ([]*Record, error) {
	type result struct {
		added []*Record
		err   error
	}
	c := make(chan result, 1)
	q.Settle(rec, reports, func(added []*Record, err error) { c <- result{added, err} })
	r := <-c
	return r.added, r.err
}

func remove(q *Queue, id ID) error {
	c := make(chan error, 1)
	q.Delete(id, func(err error) { c <- err })
	return <-c
}

func listed(t testing.TB, q *Queue, f Filter) []ID {
	t.Helper()
	var ids []ID
	if err := q.List(t.Context(), f, func(r *Record) error {
		ids = append(ids, r.ID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}

func recovered(t testing.TB, q *Queue) []*Record {
	t.Helper()
	var recs []*Record
	if err := q.Recover(t.Context(), func(r *Record) error {
		recs = append(recs, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return recs
}

func contentOf(t testing.TB, q *Queue, id ID) []byte {
	t.Helper()
	_, c, err := q.Load(id)
	if err != nil {
		t.Fatalf("loading %v: %v", id, err)
	}
	b, err := io.ReadAll(mail.Reader(c))
	if err != nil {
		t.Fatalf("reading %v: %v", id, err)
	}
	return b
}

func TestAddLoadReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	sizes := []int{0, 1, 900, 1 << 10, 4 << 10, chunkSize, chunkSize + 1, pieceSize, pieceSize + 1, 3*pieceSize + 5}
	var recs []*Record
	for i, n := range sizes {
		m := message(pattern(i, n), "bob@example.net", "cid@example.org")
		m.Meta = map[string]string{"user": "ann"}
		m.Held = strings.Repeat("x", i%2)
		recs = append(recs, add(t, q, m))
	}
	check := func(q *Queue) {
		t.Helper()
		for i, rec := range recs {
			if got := contentOf(t, q, rec.ID); !bytes.Equal(got, pattern(i, sizes[i])) {
				t.Errorf("size %d: %d other bytes came back", sizes[i], len(got))
			}
			got, _, _ := q.Load(rec.ID)
			if a, b := appendRecord(nil, got), appendRecord(nil, rec); !bytes.Equal(a, b) {
				t.Errorf("size %d: the record is\n%+v, was\n%+v", sizes[i], got, rec)
			}
		}
	}
	check(q)
	if s := q.Stats(); s.Messages != int64(len(sizes)) || s.Held != 5 || s.Added != s.Messages {
		t.Errorf("%+v", s)
	}
	before := q.Stats()
	closeQueue(t, q)
	q = openQueue(t, dir)
	if got := recovered(t, q); len(got) != len(recs) {
		t.Errorf("%d messages recovered, want %d", len(got), len(recs))
	}
	check(q)
	if s := q.Stats(); s.Messages != before.Messages || s.Held != before.Held || s.Bytes != before.Bytes {
		t.Errorf("%+v, before %+v", s, before)
	}
	if rec := add(t, q, message(nil, "x@y")); rec.ID <= recs[len(recs)-1].ID {
		t.Errorf("%v is not above %v", rec.ID, recs[len(recs)-1].ID)
	}
}

// file is a content that is not in memory.
type file struct{ *io.SectionReader }

func TestAddReadsContentFromElsewhere(t *testing.T) {
	q := openQueue(t, t.TempDir())
	for _, n := range []int{100, chunkSize * 2, 2*pieceSize + 77} {
		m := message(nil, "bob@example.net")
		m.Content = file{io.NewSectionReader(bytes.NewReader(pattern(n, n)), 0, int64(n))}
		if got := contentOf(t, q, add(t, q, m).ID); !bytes.Equal(got, pattern(n, n)) {
			t.Errorf("%d bytes: another content came back", n)
		}
	}
	m := message(nil, "bob@example.net")
	m.Content = file{io.NewSectionReader(bytes.NewReader(pattern(1, 2*pieceSize)), 0, 3*pieceSize)}
	if _, err := q.Add(t.Context(), m); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a content that ends early: %v", err)
	}
	if got := listed(t, q, Filter{}); len(got) != 3 {
		t.Errorf("%d messages", len(got))
	}
}

func TestContentIsNotCopied(t *testing.T) {
	b := pattern(1, 1000)
	c := bytes.NewReader(b)
	got := inMemory(c)
	if &got[0] != &b[0] || len(got) != len(b) || c.Len() != len(b) {
		t.Error("the slice is another, or the reader was read")
	}
}

func TestContentReadAt(t *testing.T) {
	q := openQueue(t, t.TempDir())
	want := pattern(1, 2*chunkSize+1000)
	_, c, err := q.Load(add(t, q, message(want, "x@y")).ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(mail.Reader(c), want); err != nil {
		t.Error(err)
	}
	p := make([]byte, 10)
	if n, err := c.ReadAt(p, chunkSize-5); n != 10 || err != nil || !bytes.Equal(p, want[chunkSize-5:chunkSize+5]) {
		t.Errorf("across a border: %d %v %q", n, err, p)
	}
	if n, err := c.ReadAt(p, c.Size()-3); n != 3 || err != io.EOF {
		t.Errorf("at the end: %d %v", n, err)
	}
	if n, err := c.ReadAt(p, c.Size()+1); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d %v", n, err)
	}
	if _, err := c.ReadAt(p, -1); err == nil || err == io.EOF {
		t.Errorf("before the start: %v", err)
	}
}

func TestSettleKeepsWhatIsPendingAndRemovesWhatIsDone(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	rec := add(t, q, message(pattern(1, 5000), "bob@example.net", "cid@example.org"))
	rec.Recipients[0].State, rec.Recipients[0].Reply = Delivered, mail.NewReply(250, "2.0.0", "ok")
	rec.Recipients[1].Attempts, rec.Recipients[1].Host = 1, "mx.example.org"
	rec.Attempts, rec.Next, rec.Held = 1, rec.Next.Add(time.Minute), "wait"
	if _, err := settle(q, rec); err != nil {
		t.Fatal(err)
	}
	closeQueue(t, q)
	q = openQueue(t, dir)
	got := recovered(t, q)
	if len(got) != 1 || !bytes.Equal(appendRecord(nil, got[0]), appendRecord(nil, rec)) {
		t.Fatalf("after a restart: %+v", got)
	}
	if s := q.Stats(); s.Held != 1 || s.Messages != 1 {
		t.Errorf("%+v", s)
	}
	rec = got[0]
	rec.Recipients[1].State = Failed
	if added, err := settle(q, rec, message(pattern(9, 300), "ann@example.com")); err != nil || len(added) != 1 {
		t.Fatalf("%v %v", added, err)
	} else if !bytes.Equal(contentOf(t, q, added[0].ID), pattern(9, 300)) {
		t.Error("the report has another content")
	}
	if _, _, err := q.Load(rec.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the settled message: %v", err)
	}
	if s := q.Stats(); s.Held != 0 || s.Messages != 1 || s.Bytes != 300 || s.Removed != 1 {
		t.Errorf("%+v", s)
	}
	if n := keys(t, q, keyContent); n != 1 {
		t.Errorf("%d contents are left", n)
	}
}

// keys counts the keys under a prefix.
// flushed puts everything into the store.
func flushed(t testing.TB, q *Queue) {
	t.Helper()
	if err := q.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// keys returns how many keys with a prefix there are in the store.
func keys(t testing.TB, q *Queue, prefix byte) int {
	t.Helper()
	flushed(t, q)
	n := 0
	if err := q.view(countKeys(prefix, &n)); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSettleWithLargeReport(t *testing.T) {
	q := openQueue(t, t.TempDir())
	rec := add(t, q, message(pattern(1, 2*pieceSize), "bob@example.net"))
	rec.Recipients[0].State = Expired
	report := pattern(2, 2*pieceSize+1)
	added, err := settle(q, rec, message(report, "ann@example.com"), message(nil, "postmaster@example.com"))
	if err != nil || len(added) != 2 {
		t.Fatal(added, err)
	}
	if !bytes.Equal(contentOf(t, q, added[0].ID), report) {
		t.Error("the report has another content")
	}
	if n := keys(t, q, keyChunk); n != 9 {
		t.Errorf("%d chunks, want 9", n)
	}
	added[0].Recipients[0].State = Delivered
	if _, err := settle(q, added[0]); err != nil {
		t.Fatal(err)
	}
	if n := keys(t, q, keyChunk); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
}

func TestDelete(t *testing.T) {
	q := openQueue(t, t.TempDir())
	rec := add(t, q, message(pattern(1, 3*chunkSize), "bob@example.net"))
	if err := remove(q, rec.ID); err != nil {
		t.Fatal(err)
	}
	if err := remove(q, rec.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	// A delivery that ends after the operator deleted the message: nothing comes back, no report goes out.
	rec.Recipients[0].Attempts = 1
	if _, err := settle(q, rec, message(pattern(2, 2*pieceSize), "ann@example.com")); !errors.Is(err, ErrNotFound) {
		t.Errorf("settled after it was deleted: %v", err)
	}
	if s := q.Stats(); s.Messages != 0 || s.Bytes != 0 || s.Removed != 1 {
		t.Errorf("%+v", s)
	}
	add(t, q, message(nil, "x@y")) // so that what Settle left was dropped before
	if n := keys(t, q, keyChunk); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
}

func TestIllegalMovesPanicInTests(t *testing.T) {
	q := openQueue(t, t.TempDir())
	rec := add(t, q, message(nil, "bob@example.net", "cid@example.net"))
	rec.Recipients[0].State = Delivered
	if _, err := settle(q, rec); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Record){
		"delivered again":  func(r *Record) { r.Recipients[0].State = Pending },
		"delivered failed": func(r *Record) { r.Recipients[0].State = Failed },
		"no such state":    func(r *Record) { r.Recipients[1].State = Dropped + 1 },
		"one less":         func(r *Record) { r.Recipients = r.Recipients[:1] },
		"made up":          func(r *Record) { *r = Record{ID: r.ID, Recipients: r.Recipients} },
	} {
		r, _, err := q.Load(rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			q.Settle(r, nil, func([]*Record, error) { t.Errorf("%s: done was called", name) })
		}()
	}
}

func TestAddRefuses(t *testing.T) {
	q := openQueue(t, t.TempDir())
	if _, err := q.Add(t.Context(), message(nil)); err == nil {
		t.Error("no recipients: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Add(ctx, message(nil, "x@y")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	m := message(nil, "x@y")
	m.Held = strings.Repeat("x", maxRecord)
	if _, err := q.Add(t.Context(), m); !errors.Is(err, errTooLarge) {
		t.Errorf("a huge record: %v", err)
	}
	if n := len(listed(t, q, Filter{})); n != 0 {
		t.Errorf("%d messages", n)
	}
	if rec := add(t, q, message(nil, "x@y")); rec == nil {
		t.Error("it has stopped")
	}
}

func TestManyRecipients(t *testing.T) {
	q := openQueue(t, t.TempDir())
	m := message(pattern(1, 100))
	for i := range 20_000 {
		m.Envelope.To = append(m.Envelope.To, mail.Recipient{Address: mail.MustParseAddress(fmt.Sprintf("user%d@host%d.example", i, i))})
	}
	rec, _, err := q.Load(add(t, q, m).ID)
	if err != nil || len(rec.Recipients) != 20_000 || len(rec.Pending()) != 20_000 {
		t.Fatal(err)
	}
}

func TestListOnASnapshot(t *testing.T) {
	q := openQueue(t, t.TempDir())
	var ids []ID
	for i := range 10 {
		ids = append(ids, add(t, q, message(pattern(i, 10), fmt.Sprintf("u%d@example.net", i))).ID)
	}
	n := 0
	err := q.List(t.Context(), Filter{}, func(r *Record) error {
		if r.ID != ids[n] {
			t.Errorf("message %d is %v, want %v", n, r.ID, ids[n])
		}
		n++
		add(t, q, message(nil, "late@example.net")) // commits go on under a list
		return remove(q, r.ID)
	})
	if err != nil || n != 10 {
		t.Errorf("%d messages, %v", n, err)
	}
	if got := listed(t, q, Filter{Limit: 3}); len(got) != 3 {
		t.Errorf("with a limit of 3: %d", len(got))
	}
	late := listed(t, q, Filter{To: "late@*"})
	if got := listed(t, q, Filter{IDs: []ID{late[4], ids[0], late[2]}}); len(got) != 2 {
		t.Errorf("by ID: %v", got)
	}
	stop := errors.New("stop")
	if err := q.List(t.Context(), Filter{}, func(*Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of fn: %v", err)
	}
}

// TestGhosts puts records of removed messages back into the store, as a bug of Badger would.
// TestFiveVirtualDays runs a real queue within a bubble, as the tests of the schedule do.
func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b))[:16] }
