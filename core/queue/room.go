package queue

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/pabal-mta/mta/core/journal"
)

const (
	ballastName = "ballast"
	ballastSize = 64 << 20
	needed      = int64(32 << 20) // to open a store and to write down that something was delivered
)

// makeRoom keeps Badger off a full disk, on which it would be killed at each start. A file that takes room without use
// is given up when there is too little, and taken again when there is enough.
func makeRoom(dir string, o Options, free func(dir string) int64) error {
	if o.MinFree < 0 {
		return nil
	}
	minFree := o.MinFree
	if minFree == 0 {
		minFree = defaultMinFree
	}
	ballast := filepath.Join(dir, ballastName)
	needed := needed + journal.SizeIn(dir) // all of the journal may have to be put into the store
	if free(dir) < needed {
		os.Remove(ballast)
	}
	left := free(dir)
	if left < needed {
		return fmt.Errorf("%w: %d MiB are free on the disk of %s, and %d are needed to open the queue; no message is lost",
			ErrFull, left>>20, dir, needed>>20)
	}
	if left > minFree+2*ballastSize && !exists(ballast) {
		takeRoom(ballast)
	}
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
