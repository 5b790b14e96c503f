package queue

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
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
		err := makeRoom(dir, newBallast(dir, minFree), free)
		if (err == nil) != step.opens || err != nil && !errors.Is(err, ErrFull) || exists(ballast) != step.holds {
			t.Errorf("step %d: %v, ballast %v", i, err, exists(ballast))
		}
	}
}

// TestBallastWhileRunning: it is given up when a look finds too little room, or a checkpoint has too little; new mail does not get what
// that has freed; and it is taken again when there is plenty.
func TestBallastWhileRunning(t *testing.T) {
	const minFree = 1 << 20
	disk := int64(1 << 40)
	b := newBallast(t.TempDir(), minFree)
	free := func() (int64, error) {
		if exists(b.path) {
			return disk - ballastSize, nil
		}
		return disk, nil
	}
	g := newGuard(minFree, free)
	g.ballast = b
	for i, step := range []struct {
		disk  int64 // free, with what the ballast takes
		wants int64 // a checkpoint; 0 for a look
		full  bool  // for new mail
		holds bool
	}{
		{minFree + 3*ballastSize, 0, false, true},
		{ballastSize + needed, 0, false, true},
		{ballastSize + needed - 1, 0, false, false},
		{ballastSize + minFree - 1, 0, true, false}, // what there is, is the ballast's
		{minFree + 2*ballastSize, 0, false, false},
		{minFree + 2*ballastSize + 1, 0, false, true},
		{ballastSize + needed + 10, 11, false, false},
	} {
		disk = step.disk
		if step.wants > 0 {
			if err := g.room(step.wants); err != nil {
				t.Errorf("step %d: %v", i, err)
			}
		}
		g.next.Store(0)
		if full := g.full(); full != step.full || exists(b.path) != step.holds {
			t.Errorf("step %d: full %t, ballast %t", i, full, exists(b.path))
		}
	}
}

// TestOutcomesOnFullDisk fills the disk of a queue to its last block: what was delivered is recorded all the same, for so long as
// the ballast lasts, and no mail is taken; with room again all is as before. Root is needed for a disk.
func TestOutcomesOnFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("no disk of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	failed := make(chan error, 1)
	q, err := Open(filepath.Join(disk, "queue"), Options{MinFree: 1 << 20, Fatal: func(err error) { failed <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var recs []*Record
	for range 50 {
		recs = append(recs, add(t, q, message([]byte("hello"), "bob@example.net")))
	}
	ballast := filepath.Join(disk, "queue", ballastName)
	if !exists(ballast) {
		t.Fatal("there is no ballast")
	}
	filler := fillUp(t, disk)
	for _, rec := range recs {
		rec.Recipients[0].State = Failed
		if _, err := settle(q, rec, message(pattern(1, 4000), "ann@example.com")); err != nil {
			t.Fatalf("an outcome can't be recorded: %v", err)
		}
	}
	if exists(ballast) {
		t.Error("the ballast is still there, and the disk was not full")
	}
	q.disk.next.Store(0)
	if _, err := q.Add(t.Context(), message([]byte("more"), "bob@example.net")); !errors.Is(err, ErrFull) {
		t.Errorf("new mail on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	q.disk.next.Store(0)
	add(t, q, message([]byte("more"), "bob@example.net"))
	if !exists(ballast) {
		t.Error("the ballast was not taken again")
	}
	select {
	case err := <-failed:
		t.Errorf("the queue stopped: %v", err)
	default:
	}
}

// fillUp fills a disk to its last block and returns the file that does.
func fillUp(t *testing.T, disk string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for n := len(block); n >= 4096; {
		if _, err := f.Write(block[:n]); err != nil {
			n /= 2
		}
	}
	return f.Name()
}
