package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

func TestDiskGuard(t *testing.T) {
	var free atomic.Int64
	free.Store(100 << 20)
	g := newGuard(80<<20, func() (int64, error) {
		if free.Load() < 0 {
			return 0, errors.New("no disk")
		}
		return free.Load(), nil
	})
	dir := t.TempDir()
	q, err := open(dir, Options{}, g)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for _, step := range []struct {
		free int64
		full bool
	}{{100, false}, {80, false}, {79, true}, {80, true}, {89, true}, {-1, true}, {90, false}, {-1, false}, {80, false}, {70, true}} {
		free.Store(step.free << 20)
		g.next.Store(0)
		_, err := q.Add(t.Context(), message(nil, "x@y"))
		if errors.Is(err, ErrFull) != step.full {
			t.Errorf("%d MiB free: %v, want full %v", step.free, err, step.full)
		}
		if q.Stats().Full != step.full {
			t.Errorf("%d MiB free: %+v", step.free, q.Stats())
		}
	}
	for _, id := range listed(t, q, Filter{})[:2] { // with a full disk, what is in the queue can still be settled
		rec, _, err := q.Load(id)
		if err != nil {
			t.Fatal(err)
		}
		rec.Recipients[0].State = Failed
		if _, err := settle(q, rec, message(nil, "ann@example.com")); err != nil {
			t.Errorf("settling on a full disk: %v", err)
		}
	}
}

func TestDiskGuardLooksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		g := newGuard(1, func() (int64, error) { looks++; return 10, nil })
		for range 1000 {
			g.full()
		}
		if looks != 1 {
			t.Errorf("%d looks at once", looks)
		}
		time.Sleep(freshness)
		g.full()
		g.wrote(freshFor + 1)
		g.full()
		if looks != 3 {
			t.Errorf("%d looks, want 3", looks)
		}
	})
}

func TestStorageErrorStopsTheQueue(t *testing.T) {
	for name, breakIt := range map[string]func(*Queue){
		"journal": func(q *Queue) { q.fresh.journal.Close() },
		"checkpoint": func(q *Queue) {
			q.db.Close()
			if err := q.flush(context.Background()); err == nil {
				panic("no error")
			}
		},
		"vlog sync": func(q *Queue) { q.db.Opts().Logger.Errorf("Error while curlf sync: %v\n", io.ErrShortWrite) },
		"table flushed": func(q *Queue) {
			q.db.Opts().Logger.Errorf("error flushing memtable to disk: %v, retrying", io.ErrShortWrite)
		},
	} {
		t.Run(name, func(t *testing.T) {
			calls := make(chan error, 10)
			q, err := Open(t.TempDir(), Options{MinFree: -1, Fatal: func(err error) { calls <- err }})
			if err != nil {
				t.Fatal(err)
			}
			rec := add(t, q, message(nil, "x@y"))
			breakIt(q)
			for range 2 {
				if _, err := q.Add(t.Context(), message(nil, "x@y")); !errors.Is(err, ErrStopped) {
					t.Errorf("Add: %v", err)
				}
			}
			rec.Recipients[0].State = Delivered
			if _, err := settle(q, rec); !errors.Is(err, ErrStopped) {
				t.Errorf("Settle: %v", err)
			}
			if err := <-calls; err == nil || errors.Is(err, ErrStopped) {
				t.Errorf("Fatal was told %v", err)
			}
			q.Close()
			if len(calls) > 0 {
				t.Error("Fatal was called twice")
			}
		})
	}
}

func TestClosedQueue(t *testing.T) {
	q := openQueue(t, t.TempDir())
	rec := add(t, q, message(nil, "x@y"))
	closeQueue(t, q)
	closeQueue(t, q)
	if _, err := q.Add(t.Context(), message(nil, "x@y")); !errors.Is(err, ErrStopped) {
		t.Errorf("Add: %v", err)
	}
	if _, _, err := q.Load(rec.ID); !errors.Is(err, ErrStopped) {
		t.Errorf("Load: %v", err)
	}
	if err := remove(q, rec.ID); !errors.Is(err, ErrStopped) {
		t.Errorf("Delete: %v", err)
	}
	if err := q.List(t.Context(), Filter{}, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("List: %v", err)
	}
}

func TestCloseCommitsWhatWaits(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	rec := add(t, q, message(nil, "x@y"))
	var calls atomic.Int64
	for range 100 {
		r := *rec
		r.Recipients = []Recipient{rec.Recipients[0]}
		r.Attempts++
		q.Settle(&r, []*Message{message(nil, "ann@example.com")}, func(added []*Record, err error) {
			if err == nil && len(added) == 1 {
				calls.Add(1)
			}
		})
	}
	closeQueue(t, q)
	if calls.Load() != 100 {
		t.Errorf("%d of 100 were called", calls.Load())
	}
	if n := len(recovered(t, openQueue(t, dir))); n != 101 {
		t.Errorf("%d messages", n)
	}
}

func TestOpenInWords(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(dir, "deep", "queue")
	q := openQueue(t, taken)
	if info, err := os.Stat(taken); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	open := func(dir string) error { _, err := Open(dir, Options{MinFree: -1}); return err }
	readOnly := func(dir string) error { _, err := OpenReadOnly(dir); return err }
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"a file", open(plain), "is not a directory"},
		{"under a file", open(filepath.Join(plain, "x")), "directory"},
		{"taken", open(taken), fmt.Sprintf("another mta is running on %s (pid %d)", taken, os.Getpid())},
		{"taken, to read", readOnly(taken), fmt.Sprintf("another mta is running on %s (pid %d)", taken, os.Getpid())},
		{"nothing to read", readOnly(filepath.Join(dir, "none")), "there is no queue in"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, tt.err, tt.want)
		}
	}
	if err := open(taken); !errors.Is(err, ErrLocked) {
		t.Errorf("%v is not ErrLocked", err)
	}
	closeQueue(t, q)
	openQueue(t, taken)
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	rec := add(t, q, message(pattern(1, 2*chunkSize), "bob@example.net"))
	closeQueue(t, q)
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	r2, err := OpenReadOnly(dir) // any number may read
	if err != nil {
		t.Fatal(err)
	}
	closeQueue(t, r2)
	if got := listed(t, r, Filter{}); len(got) != 1 || got[0] != rec.ID {
		t.Errorf("%v", got)
	}
	if !bytes.Equal(contentOf(t, r, rec.ID), pattern(1, 2*chunkSize)) {
		t.Error("another content")
	}
	if _, err := r.Add(t.Context(), message(nil, "x@y")); !errors.Is(err, ErrStopped) {
		t.Errorf("Add: %v", err)
	}
	if _, err := Open(dir, Options{MinFree: -1}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "somebody is reading") {
		t.Errorf("a writer beside a reader: %v", err)
	}
	closeQueue(t, r)
	openQueue(t, dir)
}

func TestGhosts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	var raw [][2][]byte
	removed := map[ID]bool{}
	addAndRemove := func(n int) {
		var recs []*Record
		for range n {
			recs = append(recs, add(t, q, message(nil, "x@y")))
		}
		flushed(t, q) // what the store never had can't come back
		for _, rec := range recs {
			raw = append(raw, [2][]byte{idKey(keyRecord, rec.ID), appendRecord(nil, rec)})
			removed[rec.ID] = true
			if err := remove(q, rec.ID); err != nil {
				t.Fatal(err)
			}
		}
		flushed(t, q)
	}
	addAndRemove(marksInBlock + 3)
	live := add(t, q, message(nil, "live@example.net"))
	addAndRemove(3)
	putBack := func() {
		for _, kv := range raw {
			o := &op{}
			o.put(kv[0], kv[1])
			if err := q.do(t.Context(), o, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range 2 {
		putBack()
		if round == 1 { // without its mark, the older ones are known by the oldest message that was left
			if err := q.do(t.Context(), &op{drops: [][]byte{markKey(0)}}, true); err != nil {
				t.Fatal(err)
			}
		}
		closeQueue(t, q)
		q = openQueue(t, dir)
		if got := recovered(t, q); len(got) != 1 || got[0].ID != live.ID {
			t.Fatalf("round %d: %d messages", round, len(got))
		}
		if s := q.Stats(); s.Ghosts != int64(len(removed)) {
			t.Errorf("round %d: %+v", round, s)
		}
		if n := keys(t, q, keyRecord); n != 1 {
			t.Errorf("round %d: %d records are left", round, n)
		}
	}
}

func TestOldMarksAreDropped(t *testing.T) {
	t.Parallel()
	q := openQueue(t, t.TempDir())
	blocks := func(n int) {
		t.Helper()
		var recs []*Record
		for range n * marksInBlock {
			recs = append(recs, add(t, q, message(nil, "x@y")))
		}
		flushed(t, q)
		for _, rec := range recs {
			if err := remove(q, rec.ID); err != nil {
				t.Fatal(err)
			}
		}
		flushed(t, q)
	}
	q.marks.next = markBlocks - 1
	blocks(3)
	if n := keys(t, q, keyDone); n != 3 {
		t.Errorf("%d blocks", n)
	}
	q.marks.next = 2*markBlocks - 1 // now the blocks above are too old, one by one
	blocks(2)
	if n := keys(t, q, keyDone); n != 3 {
		t.Errorf("%d blocks", n)
	}
}

func TestFiveVirtualDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := Open("", Options{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		rec := add(t, q, message(pattern(1, pieceSize+1), "bob@example.net"))
		for range 5 * 24 * 2 {
			time.Sleep(30 * time.Minute)
			rec.Attempts++
			if _, err := settle(q, rec); err != nil {
				t.Fatal(err)
			}
		}
		rec.Recipients[0].State = Expired
		if _, err := settle(q, rec, message(nil, "ann@example.com")); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, q, Filter{}); len(got) != 1 || got[0].Time().Sub(rec.ID.Time()) != 5*24*time.Hour {
			t.Errorf("%v", got)
		}
		closeQueue(t, q)
	})
}

// TestFilesThatAKillLeftEmpty holds the moment between the making of a log file and its first byte.
func TestFilesThatAKillLeftEmpty(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	rec := add(t, q, message(pattern(1, 5000), "bob@example.net"))
	closeQueue(t, q)
	leaveEmpty := func() {
		for _, name := range []string{badgerfiles.MemName(90), badgerfiles.LogName(90)} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	leaveEmpty()
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(listed(t, r, Filter{})); n != 1 {
		t.Errorf("%d messages", n)
	}
	closeQueue(t, r)
	leaveEmpty()
	q = openQueue(t, dir)
	if !bytes.Equal(contentOf(t, q, rec.ID), pattern(1, 5000)) {
		t.Error("another content")
	}
}

// TestIDsGrowOverARestartWithTheClockBehind has a store whose last message is of a later hour than the clock shows.
func TestIDsGrowOverARestartWithTheClockBehind(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	q.ids.skip(ID(time.Now().Add(time.Hour).UnixMilli()) << counterBits)
	last := add(t, q, message(nil, "x@y")).ID
	if err := remove(q, last); err != nil { // the ID is used, also when its message is gone
		t.Fatal(err)
	}
	closeQueue(t, q)
	if id := add(t, openQueue(t, dir), message(nil, "x@y")).ID; id <= last {
		t.Errorf("%v is not above %v", id, last)
	}
}
