package kv

import (
	"fmt"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// countEvery is how often a plugin whose share is used up has its values counted again: some have expired meanwhile.
const countEvery = time.Minute

// shares counts what each plugin keeps. Values that expire are still counted until the share is used up and the plugin's
// values are counted again.
type shares struct {
	quota int64

	mu      sync.Mutex
	bytes   map[string]int64
	counted map[string]time.Time
}

func newShares(quota int64) *shares {
	return &shares{quota: quota, bytes: map[string]int64{}, counted: map[string]time.Time{}}
}

func (s *shares) add(plugin string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes[plugin] += n
}

// forget forgets what was counted.
func (s *shares) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.bytes)
	clear(s.counted)
}

// take reserves n bytes for a plugin.
func (s *shares) take(db *badger.DB, plugin string, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes[plugin]+n > s.quota && n > 0 && time.Since(s.counted[plugin]) >= countEvery {
		total, err := countPlugin(db, plugin)
		if err != nil {
			return err
		}
		s.bytes[plugin], s.counted[plugin] = total, time.Now()
	}
	if s.bytes[plugin]+n > s.quota && n > 0 {
		return fmt.Errorf("%w: the plugin keeps %d MiB already", ErrFull, s.quota>>20)
	}
	s.bytes[plugin] += n
	return nil
}

// count counts what all plugins keep.
func (s *shares) count(db *badger.DB) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return eachKey(db, nil, func(key []byte, n int64) {
		if len(key) > int(key[0]) {
			s.bytes[string(key[1:1+int(key[0])])] += n
		}
	})
}

func countPlugin(db *badger.DB, plugin string) (total int64, err error) {
	err = eachKey(db, diskKey(plugin, ""), func(_ []byte, n int64) { total += n })
	return total, err
}

// eachKey calls f with the keys under a prefix and the bytes that each and its value take.
func eachKey(db *badger.DB, prefix []byte, f func(key []byte, n int64)) error {
	return db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			f(item.Key(), item.KeySize()+item.ValueSize())
		}
		return nil
	})
}
