package box

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// ErrQuota says that an account has no room for a message.
var ErrQuota = errors.New("the mailbox is full")

// How long a count is believed: while there is room, and before somebody is told that there is none. Other programs
// deliver and remove too.
const (
	countHolds = 15 * time.Minute
	fullHolds  = 2 * time.Second
)

// maxCounted bounds the accounts whose use is remembered; it is counted again when it is not.
const maxCounted = 10_000

// Quota bounds how many bytes the files of an account's messages have, in all its folders. Who delivers and who serves
// IMAP share one. Nil is no bound.
type Quota struct {
	limit int64

	mu   sync.Mutex
	used map[string]*usage
}

// usage is what one account has.
type usage struct {
	mu      sync.Mutex
	bytes   int64
	counted time.Time // zero: never
}

// NewQuota bounds accounts to limit bytes; 0 is no bound.
func NewQuota(limit int64) *Quota {
	if limit <= 0 {
		return nil
	}
	return &Quota{limit: limit, used: make(map[string]*usage)}
}

// Fits says whether a message of n bytes could ever be kept.
func (q *Quota) Fits(n int64) bool { return q == nil || n <= q.limit }

// Take takes n bytes for an account whose folder is root, or returns ErrQuota.
func (q *Quota) Take(key string, root *os.Root, n int64) error {
	if q == nil {
		return nil
	}
	u := q.usage(key)
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, holds := range []time.Duration{countHolds, fullHolds} {
		if u.counted.IsZero() || time.Since(u.counted) > holds {
			bytes, err := count(root)
			if err != nil {
				return err
			}
			u.bytes, u.counted = bytes, time.Now()
		}
		if u.bytes+n <= q.limit {
			u.bytes += n
			return nil
		}
	}
	return ErrQuota
}

// Add notes n bytes more, or fewer, that nobody asks about: they are there.
func (q *Quota) Add(key string, n int64) {
	if q == nil {
		return
	}
	u := q.usage(key)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes = max(u.bytes+n, 0)
}

func (q *Quota) usage(key string) *usage {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.used[key]
	if u == nil {
		if len(q.used) >= maxCounted {
			clear(q.used)
		}
		u = &usage{}
		q.used[key] = u
	}
	return u
}

// count adds up the messages of all folders: what their names tell (Maildir++), or what they have.
func count(root *os.Root) (sum int64, err error) {
	top, err := readDir(root, ".")
	if err != nil {
		return 0, err
	}
	dirs := []string{"."}
	for _, e := range top {
		if e.IsDir() && strings.HasPrefix(e.Name(), ".") {
			dirs = append(dirs, e.Name())
		}
	}
	for _, dir := range dirs {
		for _, sub := range []string{"new", "cur"} {
			entries, err := readDir(root, path.Join(dir, sub))
			// What can't be read counts for nothing: one such folder must not keep mail out of the others.
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return 0, err
			}
			for _, e := range entries {
				sum += sizeOnDisk(root, path.Join(dir, sub), e)
			}
		}
	}
	return sum, nil
}

func sizeOnDisk(root *os.Root, dir string, e fs.DirEntry) int64 {
	if !e.Type().IsRegular() {
		return 0
	}
	if n := field(e.Name(), ",S="); n > 0 {
		return n
	}
	info, err := root.Lstat(path.Join(dir, e.Name()))
	if err != nil {
		return 0 // it has gone meanwhile
	}
	return info.Size()
}

func readDir(root *os.Root, name string) ([]fs.DirEntry, error) {
	d, err := openDir(root, name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

// Limit makes the store keep to a quota. It is called before the store is used.
func (s *Store) Limit(q *Quota) { s.quota = q }

// take takes room for n bytes; what is moved within the account is only noted, because it has room already.
func (a *Account) take(n int64, moving bool) error {
	if moving {
		a.store.quota.Add(a.key, n)
		return nil
	}
	return a.store.quota.Take(a.key, a.root, n)
}

func (a *Account) give(n int64) { a.store.quota.Add(a.key, -n) }

// bytesOf returns the size of a message's file, as far as it is known without asking the disk.
func (m *Mailbox) bytesOf(msg *Message) int64 {
	if n := field(msg.name, ",S="); n > 0 {
		return n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return msg.size
}
