package queue

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
	"github.com/pabal-mta/mta/sdk/mail"
)

// flip changes one byte in the file under dir that holds what, at so many bytes from its start.
func flip(t *testing.T, dir, suffix string, what []byte, at int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(b, what)
		if i < 0 {
			continue
		}
		b[i+at] ^= 0x20
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no *%s file holds it", suffix)
}

// readAll loads and reads a message.
func readAll(q *Queue, id ID) ([]byte, error) {
	_, c, err := q.Load(id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(mail.Reader(c))
}

func TestDamageInOneContentIsOfThatMessageAlone(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"one chunk": 4 << 10, "three chunks": 2*chunkSize + 10} {
		for where, at := range map[string]int{"in the content": 3000, "in its key": -10, "in its length": -20} {
			t.Run(name+", "+where, func(t *testing.T) {
				dir := t.TempDir()
				q := openQueue(t, dir)
				var recs []*Record
				for i := range 5 {
					recs = append(recs, add(t, q, message(pattern(i, size), "x@y")))
				}
				closeQueue(t, q)
				flip(t, dir, badgerfiles.LogSuffix, pattern(2, 100), at)
				for range 2 { // what is readable stays so over restarts
					q = openQueue(t, dir)
					if got := recovered(t, q); len(got) != 5 {
						t.Errorf("%d messages recovered", len(got))
					}
					for i, rec := range recs {
						b, err := readAll(q, rec.ID)
						if i == 2 && !errors.Is(err, ErrDamaged) {
							t.Errorf("the damaged one: %d bytes, %v", len(b), err)
						}
						if i != 2 && (err != nil || !bytes.Equal(b, pattern(i, size))) {
							t.Errorf("message %d: %v", i, err)
						}
					}
					closeQueue(t, q)
				}
			})
		}
	}
}

func TestDamagedRecordIsNamedAndCanBeDeleted(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	var recs []*Record
	for range 3 {
		recs = append(recs, add(t, q, message(pattern(1, 5000), "someone@damaged.example")))
	}
	o := &op{} // a record that was changed on disk
	b := appendRecord(nil, recs[1])
	b[bytes.Index(b, []byte("damaged"))] = 'x'
	o.put(idKey(keyRecord, recs[1].ID), b)
	if err := q.do(t.Context(), o, true); err != nil {
		t.Fatal(err)
	}
	closeQueue(t, q)

	var log bytes.Buffer
	q, err := Open(dir, Options{MinFree: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if got := recovered(t, q); len(got) != 2 {
		t.Errorf("%d recovered", len(got))
	}
	if s := q.Stats(); s.Damaged != 1 || s.Messages != 3 {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(log.String(), recs[1].ID.String()) {
		t.Errorf("the log does not name it: %s", log.String())
	}
	if _, _, err := q.Load(recs[1].ID); !errors.Is(err, ErrDamaged) {
		t.Errorf("Load: %v", err)
	}
	if got := listed(t, q, Filter{State: "held"}); !slices.Equal(got, []ID{recs[1].ID}) {
		t.Errorf("listed as held: %v", got)
	}
	if err := remove(q, recs[1].ID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if n := keys(t, q, keyContent); n != 2 {
		t.Errorf("%d contents", n)
	}
}

func TestMissingChunk(t *testing.T) {
	q := openQueue(t, t.TempDir())
	rec := add(t, q, message(pattern(1, 2*chunkSize), "x@y"))
	if err := q.do(t.Context(), &op{drops: [][]byte{chunkKey(rec.ID, 1)}}, true); err != nil {
		t.Fatal(err)
	}
	if b, err := readAll(q, rec.ID); len(b) != chunkSize || !errors.Is(err, ErrDamaged) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	_, c, err := q.Load(rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(q, rec.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed while it was read: %v", err)
	}
}

// fill writes and removes messages until the first file of the value log is mostly garbage, and returns what was kept.
func fill(t *testing.T, q *Queue) map[ID][]byte {
	t.Helper()
	q.garbage.limit = 8 << 20 // so that Badger hears of it soon
	kept := map[ID][]byte{}
	for round := range 5 {
		var rest []ID
		for i := range 50 {
			b := pattern(50*round+i, 200<<10)
			rec := add(t, q, message(b, "bob@example.net"))
			if i%20 == 0 {
				kept[rec.ID] = b
				continue
			}
			rest = append(rest, rec.ID)
		}
		flushed(t, q)
		for _, id := range rest {
			if err := remove(q, id); err != nil {
				t.Fatal(err)
			}
		}
		flushed(t, q)
	}
	return kept
}

func logFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+badgerfiles.LogSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCleanGivesSpaceBackAndKeepsTheLiving(t *testing.T) {
	if raceDetector {
		t.Skip("the clean-up is off under the race detector: see race_on.go")
	}
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	kept := fill(t, q)
	first := filepath.Join(dir, badgerfiles.LogName(1))
	// Badger's own flushes and compactions, and the cleaner that runs by itself, may be in the way of ours for a while.
	for end := time.Now().Add(time.Minute); exists(first); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first file of the value log is still there")
		}
		if err := q.db.Flatten(2); err != nil { // so that Badger counts the garbage now
			t.Log(err)
		}
		if err := q.cleaner.clean(); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range kept {
		if got, err := readAll(q, id); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %v", id, err)
		}
	}
}

// TestCleanLeavesDamagedFilesAlone holds what Badger by itself gets wrong: it rewrites the part before the damage and
// deletes the file with all that is behind.
func TestCleanLeavesDamagedFilesAlone(t *testing.T) {
	if raceDetector {
		t.Skip("the clean-up is off under the race detector: see race_on.go")
	}
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	q.cleaner.stop() // not yet
	q.cleaner.quit = make(chan struct{})
	kept := fill(t, q)
	closeQueue(t, q)
	flip(t, dir, badgerfiles.LogSuffix, pattern(0, 100), 4000)
	var log bytes.Buffer
	q, err := Open(dir, Options{MinFree: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.db.Flatten(2); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := q.cleaner.clean(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "the queue is damaged on disk"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}
	damaged := 0
	for id, want := range kept {
		got, err := readAll(q, id)
		if errors.Is(err, ErrDamaged) {
			damaged++
		} else if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %v", id, err)
		}
	}
	if damaged != 1 {
		t.Errorf("%d of %d are damaged", damaged, len(kept))
	}
}

func TestFailureDuringACommitIsNotAcknowledged(t *testing.T) {
	q := openQueue(t, t.TempDir())
	q.fail(badger.ErrBlockedWrites)
	o := &op{}
	o.put(idKey(keyRecord, 1), nil)
	if err := q.commit([]*op{o}); !errors.Is(err, badger.ErrBlockedWrites) {
		t.Errorf("%v", err)
	}
}

func TestValueLogIsReadAsBadgerWritesIt(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	for i := range 20 {
		add(t, q, message(pattern(i, 3000*i), "x@y"))
	}
	closeQueue(t, q)
	path := logFiles(t, dir)[0]
	if err := badgerfiles.CheckLog(path); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"cut":     whole[:len(whole)-1],
		"empty":   {},
		"longer":  append(bytes.Clone(whole), 0),
		"a zero":  append(bytes.Clone(whole), make([]byte, 1000)...),
		"flipped": append(append(bytes.Clone(whole[:5000]), whole[5000]^1), whole[5001:]...),
	} {
		bad := filepath.Join(t.TempDir(), "000001.vlog")
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := badgerfiles.CheckLog(bad); !errors.As(err, new(*badgerfiles.Damage)) {
			t.Errorf("%s: %v", name, err)
		}
		damage, err := badgerfiles.KeepNewestLog(filepath.Dir(bad))
		if err != nil || (damage != nil) != (name == "flipped") {
			t.Errorf("%s: %v, %v", name, damage, err)
		}
		if got, want := len(logFiles(t, filepath.Dir(bad))), 1+int(one(name == "flipped")); got != want {
			t.Errorf("%s: %d files, want %d", name, got, want)
		}
	}
}
