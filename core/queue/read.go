package queue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime/debug"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Load returns a message. A content of one chunk is read and checked at once; a larger one is read chunk by chunk when
// it is asked for, and a chunk that is damaged is ErrDamaged then.
func (q *Queue) Load(id ID) (*Record, mail.Content, error) {
	rec, err := q.record(id)
	if err != nil {
		return nil, nil, err
	}
	c := &content{q: q, rec: rec, n: -1}
	if rec.Size > chunkSize {
		return rec, c, nil
	}
	if rec.Size == 0 {
		return rec, mail.Bytes(nil), nil
	}
	b, err := c.chunk(0)
	if err != nil {
		return nil, nil, err
	}
	return rec, mail.Bytes(b), nil
}

// Record returns what the queue keeps of a message beside its content.
func (q *Queue) Record(id ID) (*Record, error) { return q.record(id) }

// record reads the record of a message.
func (q *Queue) record(id ID) (*Record, error) {
	b, err := q.get(idKey(keyRecord, id))
	if err != nil {
		return nil, err
	}
	return parseRecord(id, b)
}

// parseRecord decodes a record. What it returns is a Record or ErrDamaged.
func parseRecord(id ID, b []byte) (*Record, error) {
	rec, err := decodeRecord(id, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, id, err)
	}
	return rec, nil
}

// readRecord decodes the record under an item, as parseRecord does.
func readRecord(item *badger.Item) (rec *Record, err error) {
	id := keyID(item.Key())
	failed := item.Value(func(b []byte) error {
		rec, err = parseRecord(id, b)
		return nil
	})
	if failed != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, id, failed)
	}
	return rec, err
}

// view runs fn on a snapshot. Badger reads its files through memory maps and trusts what it reads, so damage can show
// as a panic or a fault; both become ErrDamaged here.
func (q *Queue) view(fn func(*badger.Txn) error) (err error) {
	if !q.enter() {
		return ErrStopped
	}
	defer q.readers.Done()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	txn := q.db.NewTransaction(false)
	defer txn.Discard()
	err = fn(txn)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return ErrNotFound
	}
	return err
}

// forgetAfter is how much may be read from the store's files before their maps are forgotten, in bytes.
const forgetAfter = 32 << 20

// page is what a read from a map takes at the least, in bytes.
const page = 4 << 10

// hasRead counts what is read from the store's files: Badger maps them, and what was read once would stay in our memory.
func (q *Queue) hasRead(bytes int64) {
	if q.touched.Add(bytes) >= forgetAfter && q.touched.Swap(0) >= forgetAfter && q.files != nil {
		_ = forgetMaps(q.files.dir) // it is only for room
	}
}

// enter counts a reader in, unless the queue is being closed: its files must stay mapped while somebody reads them.
func (q *Queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopping {
		return false
	}
	q.readers.Add(1)
	return true
}

// closing reports whether Close was called.
func (q *Queue) closing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stopping
}

// content is the content of a stored message, read on demand.
type content struct {
	q   *Queue
	rec *Record

	mu  sync.Mutex
	n   int64  // the chunk in buf, -1 for none
	buf []byte // so that small reads one after another read each chunk once
}

// Size returns the size of the content.
func (c *content) Size() int64 { return c.rec.Size }

// ReadAt reads from the chunks that hold the bytes from off on.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading message %s at the negative offset %d", c.rec.ID, off)
	}
	done := 0
	for done < len(p) {
		if off >= c.rec.Size {
			return done, io.EOF
		}
		n, err := c.read(p[done:], off)
		if err != nil {
			return done, err
		}
		done += n
		off += int64(n)
	}
	return done, nil
}

// read copies from the one chunk that holds off.
func (c *content) read(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := off / chunkSize; n != c.n {
		b, err := c.chunk(n)
		if err != nil {
			return 0, err
		}
		c.n, c.buf = n, b
	}
	return copy(p, c.buf[off%chunkSize:]), nil
}

// chunk reads and checks one chunk. The bytes are the caller's.
func (c *content) chunk(n int64) ([]byte, error) {
	b, err := c.q.get(contentKey(c.rec.ID, c.rec.Size, n))
	if errors.Is(err, ErrNotFound) {
		return nil, c.missing()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the queue: %w", err)
	}
	want := min(c.rec.Size-n*chunkSize, chunkSize)
	if int64(len(b)) != want || crc32.Checksum(b, castagnoli) != c.rec.sums[n] {
		return nil, fmt.Errorf("%w: %s: its content is not what was stored", ErrDamaged, c.rec.ID)
	}
	return b, nil
}

// missing tells a message that was removed while it was being read from one that lost a chunk.
func (c *content) missing() error {
	if _, err := c.q.get(idKey(keyRecord, c.rec.ID)); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s: a part of its content is gone", ErrDamaged, c.rec.ID)
}

// each calls fn for every item under a prefix, in the order of the keys.
func each(txn *badger.Txn, prefix byte, fn func(*badger.Item) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefix}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if err := fn(it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// getID reads a key whose value holds an ID; 0 when there is no such key.
func getID(txn *badger.Txn, key byte) (id ID, err error) {
	item, err := txn.Get([]byte{key})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the queue: %w", err)
	}
	err = item.Value(func(b []byte) error {
		id = keyID(b)
		return nil
	})
	return id, err
}
