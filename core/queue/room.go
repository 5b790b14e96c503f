package queue

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/pabal-mta/mta/core/journal"
)

const (
	ballastName = "ballast"
	ballastSize = 64 << 20
	needed      = int64(32 << 20) // to open a store and to write down that something was delivered
)

// ballast is a file that takes room without use. It is given up where without that room Badger would be killed, or an outcome
// could not be written down, and taken again when there is plenty. A nil ballast is none.
type ballast struct {
	path    string
	minFree int64
	owed    atomic.Int64 // of the disk's room, what new mail may not have: it was given up for what was taken before
}

// newBallast is the ballast of a queue that guards its disk.
func newBallast(dir string, minFree int64) *ballast {
	if minFree < 0 {
		return nil
	}
	if minFree == 0 {
		minFree = defaultMinFree
	}
	return &ballast{path: filepath.Join(dir, ballastName), minFree: minFree}
}

// giveUp reports whether there is more room now.
func (b *ballast) giveUp() bool {
	if b == nil || os.Remove(b.path) != nil {
		return false
	}
	b.owed.Store(ballastSize)
	return true
}

// takeAgain makes the file where so much is free that it can be spared.
func (b *ballast) takeAgain(free int64) {
	if free > b.minFree+2*ballastSize && !exists(b.path) {
		takeRoom(b.path)
		b.owed.Store(0)
	}
}

// makeRoom keeps Badger off a full disk, on which it would be killed at each start.
func makeRoom(dir string, b *ballast, free func(dir string) int64) error {
	if b == nil {
		return nil
	}
	needed := needed + journal.SizeIn(dir) // all of the journal may have to be put into the store
	if free(dir) < needed {
		b.giveUp()
	}
	left := free(dir)
	if left < needed {
		return fmt.Errorf("%w: %d MiB are free on the disk of %s, and %d are needed to open the queue; no message is lost",
			ErrFull, left>>20, dir, needed>>20)
	}
	b.takeAgain(left)
	return nil
}

// freeOrPlenty returns how many bytes are free on the disk of dir; where that can't be known, it is not guarded.
func freeOrPlenty(dir string) int64 {
	free, err := diskFree(dir)
	if err != nil {
		return math.MaxInt64
	}
	return free
}

// takeRoom makes the file. A file system that can't reserve blocks has no ballast.
func takeRoom(path string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if err := reserve(f, ballastSize); err != nil {
		os.Remove(path)
	}
}
