package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

const (
	cleanAfter = valueLogSize / 2 // bytes written after which files of the value log may be worth a look
	cleanPause = time.Second      // at least, between two looks
	cleanLater = 2 * time.Minute  // after the last write: what compactions since then have found
	cleanRatio = 0.5              // a file is rewritten when so much of it is garbage
)

// cleaner gives the space of removed messages back. It looks after so many bytes were written, and once more when the
// writing has stopped; an idle queue is left alone.
type cleaner struct {
	db      *badger.DB
	log     *slog.Logger
	failed  func(error)
	warned  string // the last damage that was logged
	written atomic.Int64
	kick    chan struct{}
	quit    chan struct{}
	ended   sync.WaitGroup
}

func newCleaner(db *badger.DB, log *slog.Logger, failed func(error)) *cleaner {
	return &cleaner{db: db, log: log, failed: failed, kick: make(chan struct{}, 1), quit: make(chan struct{})}
}

func (c *cleaner) start() { c.ended.Go(c.run) }

func (c *cleaner) stop() {
	close(c.quit)
	c.ended.Wait()
}

// wrote notes that so many bytes were written.
func (c *cleaner) wrote(n int64) {
	if c.written.Add(n) < cleanAfter {
		return
	}
	c.written.Store(0)
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *cleaner) run() {
	later := time.NewTimer(cleanLater)
	later.Stop()
	defer later.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-c.kick:
			later.Reset(cleanLater)
		case <-later.C:
		}
		if err := c.clean(); err != nil {
			c.failed(err)
			return
		}
		select {
		case <-c.quit:
			return
		case <-time.After(cleanPause):
		}
	}
}

// clean rewrites files of the value log until none is worth it.
func (c *cleaner) clean() error {
	for {
		err := c.cleanOne()
		switch {
		case errors.As(err, new(*badgerfiles.Damage)):
			c.warn(err)
			return nil
		case errors.Is(err, badger.ErrNoRewrite), errors.Is(err, badger.ErrRejected), errors.Is(err, badger.ErrDBClosed),
			errors.Is(err, badger.ErrBlockedWrites):
			return nil
		case err != nil:
			return fmt.Errorf("cleaning up the queue: %w", err)
		}
		select {
		case <-c.quit:
			return nil
		default:
		}
	}
}

// cleanOne rewrites one file, unless badgerLog finds it damaged.
func (c *cleaner) cleanOne() (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case unsound:
			err = r.err
		default:
			panic(r)
		}
	}()
	return c.db.RunValueLogGC(cleanRatio)
}

// warn tells of a damaged file, once.
func (c *cleaner) warn(err error) {
	if c.warned == err.Error() {
		return
	}
	c.warned = err.Error()
	c.log.Error("the queue is damaged on disk; what is readable stays, and its space is not given back", "error", err)
}
