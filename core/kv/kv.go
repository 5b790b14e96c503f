// Package kv keeps small values for plugins: durable, each plugin's own, with a time to live.
//
// It is a Badger store of its own beside the queue's, opened by the first call, so that who uses no such plugin pays
// nothing. A change that returned nil is on stable storage; changes that wait together share one sync. It refuses what
// exceeds a plugin's share, and every change while the disk is nearly full. When the store can't be opened or written, the
// call fails and mail goes on: what the plugin's step does then is for its on_error to say. A store that is damaged is set
// aside under another name, named in the log, and a new one is begun: it holds nothing that mail depends on. What Close
// leaves behind is the directory.
package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

// Errors of the store. Test for them with errors.Is.
var (
	ErrFull      = errors.New("the store has no room")
	ErrNotNumber = errors.New("the value there is not a number, or the sum is too big for one")
	ErrClosed    = errors.New("the store is closed")
)

// DefaultQuota is how many bytes of keys and values one plugin may keep.
const DefaultQuota = 128 << 20

// tryAgain is how long a store that could not be opened is left alone.
const tryAgain = 10 * time.Second

// patience is how long Close waits for changes under way, and for Badger.
const patience = 5 * time.Second

// stripes is how many changes may be under way at once; two of the same key never are.
const stripes = 64

// Options are what a Store is made of.
type Options struct {
	Dir    string
	Quota  int64        // bytes of one plugin; 0: DefaultQuota
	Full   func() bool  // reports that the disk is nearly full; nil: never
	Logger *slog.Logger // nil: silent
}

// Store keeps values. Its methods may be called by many goroutines at once.
type Store struct {
	o     Options
	seed  maphash.Seed
	locks [stripes]sync.Mutex
	share *shares
	group group

	mu     sync.RWMutex // held for reading while db is used
	db     *badger.DB   // nil until the first call
	failed error        // why it could not be opened
	tried  time.Time
	closed bool
}

// New makes a store. Nothing is opened yet.
func New(o Options) *Store {
	if o.Quota <= 0 {
		o.Quota = DefaultQuota
	}
	if o.Full == nil {
		o.Full = func() bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{o: o, seed: maphash.MakeSeed(), share: newShares(o.Quota)}
}

// Close closes the store. Calls after it return ErrClosed. A disk that does not answer is not waited for.
func (s *Store) Close() error {
	closed := make(chan error, 1)
	go func() { closed <- s.close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(patience):
		return errors.New("the disk does not answer")
	}
}

func (s *Store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db = nil
	return db.Close()
}

// use calls f with the open store.
func (s *Store) use(f func(*badger.DB) error) error {
	s.mu.RLock()
	if s.db == nil {
		s.mu.RUnlock()
		if err := s.open(); err != nil {
			return err
		}
		s.mu.RLock()
	}
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return guarded(s.db, f)
}

// guarded calls f. Badger reads its files through memory maps and trusts what it reads, so that damage can show as a panic
// or a fault: it becomes an error of this call.
func guarded(db *badger.DB, f func(*badger.DB) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f(db)
}

func (s *Store) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.db != nil:
		return nil
	case s.failed != nil && time.Since(s.tried) < tryAgain:
		return s.failed
	case s.o.Full(): // opening makes files
		return fmt.Errorf("%w: the disk is nearly full", ErrFull)
	}
	s.tried = time.Now()
	db, err := s.openCounted()
	if errors.Is(err, errDamaged) {
		if err = s.setAside(err); err == nil {
			db, err = s.openCounted()
		}
	}
	if err != nil {
		s.failed = fmt.Errorf("the store of the plugins in %s can't be opened: %w", s.o.Dir, err)
		return s.failed
	}
	s.db, s.failed = db, nil
	return nil
}

// errDamaged says that what is on disk is no store.
var errDamaged = errors.New("it is damaged on disk")

// openCounted opens the store and counts what is in it. Its files are read first: Badger ends the process over some
// damage, and goes on without what is behind other.
func (s *Store) openCounted() (*badger.DB, error) {
	if err := s.prove(); err != nil {
		return nil, err
	}
	db, err := openBadger(s.o)
	if err != nil {
		return nil, err
	}
	if err := guarded(db, s.share.count); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

func (s *Store) prove() error {
	err := badgerfiles.DropEmpty(s.o.Dir)
	if err == nil {
		err = badgerfiles.Prove(s.o.Dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new one
	}
	if errors.As(err, new(*badgerfiles.Damage)) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// setAside gives a damaged store another name, with the time in it.
func (s *Store) setAside(damage error) error {
	aside := s.o.Dir + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(s.o.Dir, aside); err != nil {
		return fmt.Errorf("%w, and it can't be set aside: %w", damage, err)
	}
	s.share.forget()
	s.o.Logger.Error("the store of the plugins is damaged and was set aside; a new one is begun, and what the plugins kept there is forgotten",
		"aside", aside, "error", damage)
	return nil
}

// openBadger opens the store with as little memory as Badger will do with. Values stay in the tree: there is no value log
// to clean. Badger trusts what it finds on disk, so that damage may show as a panic.
func openBadger(o Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	db, err = badger.Open(badger.DefaultOptions(o.Dir).
		WithLogger(quiet{o.Logger}).
		WithSyncWrites(true).
		WithDetectConflicts(false). // the stripes order what belongs together
		WithNumVersionsToKeep(1).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithMetricsEnabled(false).
		WithMemTableSize(2 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(8).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(4 << 20).
		WithNumCompactors(2).
		WithValueLogFileSize(1 << 20).
		WithValueThreshold(128 << 10))
	if err != nil && !ours(err) {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return db, err
}

// ours reports an error that is not about what stands in the files.
func ours(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) ||
		strings.Contains(err.Error(), "acquire directory lock") || strings.Contains(err.Error(), "permission denied")
}

// A key on disk is the length of the plugin's label, the label and the plugin's key: no key of one plugin can be another's.
func diskKey(plugin, key string) []byte {
	k := make([]byte, 0, 1+len(plugin)+len(key))
	k = append(k, byte(len(plugin)))
	k = append(k, plugin...)
	return append(k, key...)
}

// A value on disk is when it expires, in nanoseconds since 1970 or 0, and the plugin's value. Badger's own time to live
// counts whole seconds; it is set too, so that what nobody asks for any more goes away.
func diskValue(data []byte, expires int64) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(data)), uint64(expires)), data...)
}

// entry is a value that is there.
type entry struct {
	data    []byte
	expires int64 // 0: never
}

// read returns a value, or nil.
func read(txn *badger.Txn, key []byte) (*entry, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := item.ValueCopy(nil)
	if err != nil {
		return nil, err
	}
	if len(raw) < 8 {
		return nil, errors.New("a value is damaged on disk")
	}
	e := &entry{data: raw[8:], expires: int64(binary.BigEndian.Uint64(raw))}
	if e.expires != 0 && time.Now().UnixNano() >= e.expires {
		return nil, nil
	}
	return e, nil
}

// Get returns a plugin's value, and whether there is one.
func (s *Store) Get(ctx context.Context, plugin, key string) (value []byte, found bool, err error) {
	err = s.use(func(db *badger.DB) error {
		return db.View(func(txn *badger.Txn) error {
			e, err := read(txn, diskKey(plugin, key))
			if e != nil {
				value, found = e.data, true
			}
			return err
		})
	})
	return value, found, errors.Join(err, ctx.Err())
}

// keep is a change that leaves everything as it is.
var keep = &entry{}

// change replaces a value by what f makes of it, as one step: nil deletes it, keep leaves it.
func (s *Store) change(ctx context.Context, plugin, key string, f func(now *entry) (*entry, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k := diskKey(plugin, key)
	return s.use(func(db *badger.DB) error {
		lock := &s.locks[maphash.Bytes(s.seed, k)%stripes]
		lock.Lock()
		defer lock.Unlock()
		var now *entry
		err := db.View(func(txn *badger.Txn) (err error) {
			now, err = read(txn, k)
			return err
		})
		if err != nil {
			return err
		}
		next, err := f(now)
		switch {
		case err != nil || next == keep || next == nil && now == nil:
			return err
		case next == nil:
			s.share.add(plugin, -size(k, now))
			return s.group.commit(db, &write{key: k, delete: true})
		}
		return s.put(db, plugin, k, now, next)
	})
}

func size(key []byte, e *entry) int64 {
	if e == nil {
		return 0
	}
	return int64(len(key) + 8 + len(e.data))
}

func (s *Store) put(db *badger.DB, plugin string, k []byte, now, next *entry) error {
	if s.o.Full() {
		return fmt.Errorf("%w: the disk is nearly full", ErrFull)
	}
	if err := s.share.take(db, plugin, size(k, next)-size(k, now)); err != nil {
		return err
	}
	e := badger.NewEntry(k, diskValue(next.data, next.expires))
	if next.expires != 0 {
		e.ExpiresAt = uint64(next.expires/int64(time.Second)) + 1
	}
	return s.group.commit(db, &write{key: k, entry: e})
}

// expiry is when a value that is set now expires.
func expiry(ttl time.Duration) int64 {
	if ttl <= 0 {
		return 0
	}
	return time.Now().Add(ttl).UnixNano()
}

// Set sets a plugin's value; with a ttl of 0 for ever.
func (s *Store) Set(ctx context.Context, plugin, key string, value []byte, ttl time.Duration) error {
	return s.change(ctx, plugin, key, func(*entry) (*entry, error) { return &entry{value, expiry(ttl)}, nil })
}

// Delete removes a plugin's value, which need not be there.
func (s *Store) Delete(ctx context.Context, plugin, key string) error {
	return s.change(ctx, plugin, key, func(*entry) (*entry, error) { return nil, nil })
}

// Incr adds to a number, which is 0 where there is none. The ttl goes for a number that begins; others keep theirs.
func (s *Store) Incr(ctx context.Context, plugin, key string, by int64, ttl time.Duration) (sum int64, err error) {
	err = s.change(ctx, plugin, key, func(now *entry) (*entry, error) {
		next := &entry{expires: expiry(ttl)}
		if now != nil {
			next.expires = now.expires
			n, err := strconv.ParseInt(string(now.data), 10, 64)
			if err != nil || by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
				return nil, ErrNotNumber
			}
			sum = n
		}
		sum += by
		next.data = strconv.AppendInt(nil, sum, 10)
		return next, nil
	})
	return sum, err
}

// CompareAndSet sets a plugin's value where it is the old one. Nil is no value, as the old one and as the new.
func (s *Store) CompareAndSet(ctx context.Context, plugin, key string, old, new []byte, ttl time.Duration) (swapped bool, err error) {
	err = s.change(ctx, plugin, key, func(now *entry) (*entry, error) {
		if (now == nil) != (old == nil) || now != nil && string(now.data) != string(old) {
			return keep, nil
		}
		swapped = true
		if new == nil {
			return nil, nil
		}
		return &entry{new, expiry(ttl)}, nil
	})
	return swapped && err == nil, err
}

// quiet carries Badger's log to ours, at debug.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(format string, args ...any) { q.log.Warn("kv: " + fmt.Sprintf(format, args...)) }
func (q quiet) Warningf(format string, args ...any) {
	q.log.Debug("kv: " + fmt.Sprintf(format, args...))
}
func (q quiet) Infof(string, ...any)  {}
func (q quiet) Debugf(string, ...any) {}
