package queue

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestBallast opens a queue on a disk that others fill: the ballast is given up when without it there is room to open, and to write
// down what was delivered, and it is taken again when there is plenty.
func TestBallast(t *testing.T) {
	dir := t.TempDir()
	ballast := filepath.Join(dir, ballastName)
	const minFree = 1 << 20
	for i, step := range []struct {
		disk  int64 // free, with what the ballast takes
		opens bool
		holds bool // the ballast, afterwards
	}{
		{minFree + 2*ballastSize, true, false}, // not enough to spare
		{minFree + 3*ballastSize, true, true},
		{ballastSize + needed, true, true},
		{ballastSize + needed - 1, true, false},
		{needed - 1, false, false},
		{minFree + 3*ballastSize, true, true},
		{needed - 1, false, false}, // it does not help, and is given up all the same
	} {
		free := func(string) int64 {
			if exists(ballast) {
				return step.disk - ballastSize
			}
			return step.disk
		}
		err := makeRoom(dir, Options{MinFree: minFree}, free)
		if (err == nil) != step.opens || err != nil && !errors.Is(err, ErrFull) || exists(ballast) != step.holds {
			t.Errorf("step %d: %v, ballast %v", i, err, exists(ballast))
		}
	}
}
