package queue

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pabal-mta/mta/core/journal"
)

func TestDeliveredAtOnceIsNotInTheStore(t *testing.T) {
	q := openQueue(t, t.TempDir())
	var kept []*Record
	for i := range 30 {
		rec := add(t, q, message(pattern(i, 3000), "bob@example.net"))
		if i%10 == 0 {
			kept = append(kept, rec)
			continue
		}
		rec.Recipients[0].State = Delivered
		if _, err := settle(q, rec); err != nil {
			t.Fatal(err)
		}
	}
	if n := keys(t, q, keyRecord); n != len(kept) {
		t.Errorf("%d records in the store, want %d", n, len(kept))
	}
	if n := keys(t, q, keyContent); n != len(kept) {
		t.Errorf("%d contents in the store, want %d", n, len(kept))
	}
	for i, rec := range kept { // and one that the store has is removed there
		if b, err := readAll(q, rec.ID); err != nil || !bytes.Equal(b, pattern(10*i, 3000)) {
			t.Errorf("%s: %v", rec.ID, err)
		}
		if err := remove(q, rec.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := q.Load(rec.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", rec.ID, err)
		}
		if err := remove(q, rec.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", rec.ID, err)
		}
	}
	if n := keys(t, q, keyRecord) + keys(t, q, keyContent); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// TestManyTurns writes more than both files of the journal hold, while messages are read, settled and removed in all
// places that they can be in, and opens the queue again as a kill would have left it.
func TestManyTurns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	const size = 200 << 10
	live := map[ID]int{}
	var order []ID
	halves := 5
	if testing.Short() {
		halves = 3 // one turn; the race detector is slow with so many bytes
	}
	for i := range halves * journal.FileSize / size / 2 {
		rec := add(t, q, message(pattern(i, size), "bob@example.net", "cid@example.org"))
		live[rec.ID] = i
		order = append(order, rec.ID)
		if i%3 == 0 {
			continue
		}
		old := order[i/2] // in the active layer, the frozen one or the store
		rec, _, err := q.Load(old)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		rec.Recipients[0].State = Delivered
		if i%3 == 2 {
			rec.Recipients[1].State = Failed
			delete(live, old)
		}
		if _, err := settle(q, rec); err != nil {
			t.Fatal(err)
		}
	}
	check := func(q *Queue) {
		t.Helper()
		for id, i := range live {
			if b, err := readAll(q, id); err != nil || !bytes.Equal(b, pattern(i, size)) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if got := listed(t, q, Filter{}); len(got) != len(live) || !slices.IsSorted(got) {
			t.Errorf("%d listed, want %d, sorted", len(got), len(live))
		}
	}
	check(q)
	copied := writeStore(t, readQuiet(t, dir)) // what a kill would leave: the files as they are
	killed := openQueue(t, copied)
	if got := recovered(t, killed); len(got) != len(live) {
		t.Errorf("%d recovered, want %d", len(got), len(live))
	}
	check(killed)
}

// TestManyRemovalsInOneCheckpoint removes so many messages that their removals, and the done marks of these, take more than
// one transaction of the store: when a journal is full, and when that of a server that was killed is replayed.
func TestManyRemovalsInOneCheckpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	lists := make([][]ID, 64)
	each := 300
	if testing.Short() {
		each = 60
	}
	var all sync.WaitGroup
	for i := range lists {
		all.Go(func() {
			for range each {
				if rec, err := q.Add(t.Context(), message([]byte("x"), "bob@example.net")); err != nil {
					t.Error(err)
				} else {
					lists[i] = append(lists[i], rec.ID)
				}
			}
		})
	}
	all.Wait()
	flushed(t, q)
	for _, id := range slices.Concat(lists...) {
		all.Add(1)
		q.Delete(id, func(err error) {
			if err != nil {
				t.Error(err)
			}
			all.Done()
		})
	}
	all.Wait()
	copied := writeStore(t, readQuiet(t, dir))
	if got := recovered(t, openQueue(t, copied)); len(got) != 0 {
		t.Errorf("%d messages are back", len(got))
	}
	flushed(t, q)
	if n := keys(t, q, keyRecord); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func TestDamagedJournalIsRefusedInWords(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	for i := range 10 {
		add(t, q, message(pattern(i, 1000), "bob@example.net"))
	}
	copied := writeStore(t, readQuiet(t, dir))
	flip(t, copied, ".journal", pattern(5, 100), 10)
	for name, open := range map[string]func() (*Queue, error){
		"Open":         func() (*Queue, error) { return Open(copied, Options{MinFree: -1}) },
		"OpenReadOnly": func() (*Queue, error) { return OpenReadOnly(copied) },
	} {
		q, err := open()
		if err == nil {
			q.Close()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckpointWithoutRoom has the disk filled by somebody else: the queue waits before it harms its store, goes on when
// there is room, and ends in order when it is closed before.
func TestCheckpointWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	var free atomic.Int64
	free.Store(1 << 40)
	failed := make(chan error, 1)
	q, err := open(dir, Options{Fatal: func(err error) { failed <- err }}, newGuard(1<<20, func() (int64, error) { return free.Load(), nil }))
	if err != nil {
		t.Fatal(err)
	}
	first := add(t, q, message(pattern(1, 5000), "bob@example.net"))
	for i := range 2 {
		free.Store(1 << 20)
		if err := q.flush(context.Background()); !errors.Is(err, ErrFull) {
			t.Errorf("a checkpoint without room: %v", err)
		}
		if got := listed(t, q, Filter{}); len(got) != 1+i || got[0] != first.ID {
			t.Errorf("without room %v are listed", got)
		}
		if b, err := readAll(q, first.ID); err != nil || !bytes.Equal(b, pattern(1, 5000)) {
			t.Errorf("reading without room: %v", err)
		}
		free.Store(1 << 40)
		if l := q.fresh.older(); l != nil {
			<-l.done
		}
		if err := q.flush(context.Background()); err != nil {
			t.Errorf("a checkpoint when there is room again: %v", err)
		}
		add(t, q, message(pattern(2, 10), "carol@example.net"))
	}
	free.Store(1 << 20)
	if err := q.flush(context.Background()); !errors.Is(err, ErrFull) {
		t.Errorf("a checkpoint without room: %v", err)
	}
	select {
	case err := <-failed:
		t.Errorf("the queue stopped: %v", err)
	default:
	}
	q.Close()
	q = openQueue(t, dir)
	if got := recovered(t, q); len(got) != 3 {
		t.Errorf("%d messages after the next start, want 3", len(got))
	}
	if _, err := os.Stat(filepath.Join(dir, journal.Names()[0])); err != nil {
		t.Error(err)
	}
}

// TestLayersStaySmall: removals take few bytes in the journal, so that a file of it could hold very many; their memory is bounded
// all the same while a long queue is drained.
func TestLayersStaySmall(t *testing.T) {
	q := openQueue(t, t.TempDir())
	var ids []ID
	for i := range 300 {
		ids = append(ids, add(t, q, message(pattern(i, 100), "bob@example.net")).ID)
	}
	keys(t, q, keyRecord) // a checkpoint: they are in the store
	q.fresh.mu.Lock()
	q.fresh.maxKeys = 50
	q.fresh.mu.Unlock()
	most := 0
	for _, id := range ids {
		if err := remove(q, id); err != nil {
			t.Fatal(err)
		}
		q.fresh.mu.RLock()
		most = max(most, len(q.fresh.active.keys))
		q.fresh.mu.RUnlock()
	}
	if most < 50 || most > 60 {
		t.Errorf("a layer has got %d keys", most)
	}
	if n := keys(t, q, keyRecord) + keys(t, q, keyContent); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}
