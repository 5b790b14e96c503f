package queue

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
	"github.com/pabal-mta/mta/core/journal"
)

// killedStore returns the files of a store that was killed after it had taken n messages, one a group, and their IDs.
func killedStore(t *testing.T, n int) (map[string]storedFile, []ID) {
	t.Helper()
	dir := t.TempDir()
	q := openQueue(t, dir)
	var ids []ID
	for i := range n {
		ids = append(ids, add(t, q, message(pattern(i, 200), "bob@example.net")).ID)
		flushed(t, q)
	}
	files := readQuiet(t, dir)
	for _, name := range journal.Names() { // so that the store alone has them
		delete(files, name)
	}
	return files, ids
}

// theMem returns the name and the entries of the only memory table's log.
func theMem(t *testing.T, dir string) (string, *badgerfiles.Mem) {
	t.Helper()
	list, err := badgerfiles.List(dir, badgerfiles.MemSuffix)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	name := badgerfiles.MemName(list[0])
	m, err := badgerfiles.ReadMem(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return name, m
}

// refusedWith opens a store that must be refused, for writing and for reading, with these words.
func refusedWith(t *testing.T, dir string, words ...string) {
	t.Helper()
	for name, open := range map[string]func() (*Queue, error){
		"Open":         func() (*Queue, error) { return Open(dir, Options{MinFree: -1}) },
		"OpenReadOnly": func() (*Queue, error) { return OpenReadOnly(dir) },
	} {
		q, err := open()
		if err == nil {
			q.Close()
			t.Errorf("%s: not refused", name)
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: not ErrDamaged: %v", name, err)
		}
		for _, w := range append(words, "mta queue check") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %v", name, w, err)
			}
		}
	}
}

// TestDamageInAMemoryTableIsRefused holds what Badger by itself gets wrong: it opens the store without a word and without
// what follows the damage.
func TestDamageInAMemoryTableIsRefused(t *testing.T) {
	t.Parallel()
	files, _ := killedStore(t, 20)
	dir := writeStore(t, files)
	name, m := theMem(t, dir)
	hit := m.Sound[len(m.Sound)/2]
	f := files[name]
	f.used[hit.Offset+hit.Length-1] ^= 1
	writeStored(t, dir, name, f)
	refusedWith(t, dir, name, "at offset", "groups of changes would be thrown away, with")
	if after, err := os.ReadFile(filepath.Join(dir, name)); err != nil || int64(len(after)) != f.size {
		t.Errorf("the file was changed: %d bytes, %v", len(after), err)
	}
}

func TestMemoryTableThatIsGoneOrCutIsRefused(t *testing.T) {
	t.Parallel()
	files, ids := killedStore(t, 20)
	last := "up to message " + ids[19].String()
	dir := writeStore(t, files)
	name, m := theMem(t, dir)
	// Between two groups the log ends as if nothing had come after it.
	end, groups := int64(0), 0
	for i := range m.Sound {
		if t, ok := tallyOf(&m.Sound[i]); ok && t.groups == 5 {
			end = m.Sound[i].Offset
		}
	}
	for i := range m.Sound {
		if e := &m.Sound[i]; e.Offset >= end && len(e.Key) == 1 && e.Key[0] == keyTally {
			groups++
		}
	}
	cut := files[name]
	cut.used, cut.size = cut.used[:end], end
	writeStored(t, dir, name, cut)
	refusedWith(t, dir, last, "messages added and 0 removed")

	dir = writeStore(t, files)
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, dir, last, "with 20 messages added and 0 removed")

	short := files[name]
	short.size = 7
	short.used = short.used[:7]
	writeStored(t, dir, name, short)
	refusedWith(t, dir, name, "it is cut off before its first entry")
}

// TestTailOfAPowerCutIsNoDamage has of the last group, which was not synced yet, some sectors on disk and others not.
func TestTailOfAPowerCutIsNoDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	add(t, q, message(pattern(1, 200), "bob@example.net"))
	flushed(t, q)
	before := readQuiet(t, dir)
	lost := add(t, q, message(pattern(2, 900), "carol@example.net"))
	flushed(t, q)
	files := readQuiet(t, dir)
	for _, name := range journal.Names() {
		delete(files, name)
	}
	name, m := theMem(t, dir)
	f := files[name]
	torn := 0
	// The mark is that of before: it was written, but not synced.
	files[markName] = before[markName]
	for i := range m.Sound {
		e := &m.Sound[i]
		if tally, ok := tallyOf(e); ok && tally.highest < lost.ID || e.Version < m.Sound[len(m.Sound)-1].Version {
			continue
		}
		torn++
		hole := storedFile{append([]byte(nil), f.used...), f.size}
		clear(hole.used[e.Offset : e.Offset+e.Length])
		files[name] = hole
		dir := writeStore(t, files)
		q := openQueue(t, dir)
		if got := recovered(t, q); len(got) != 1 || len(q.Problems()) > 0 {
			t.Errorf("%d messages, %q", len(got), q.Problems())
		}
		closeQueue(t, q)
	}
	if torn < 2 {
		t.Errorf("only %d entries were torn", torn)
	}
}

// TestMarkLagsAndNeverLies opens every state of a store with every older state of the mark, and then with a newer one.
func TestMarkLagsAndNeverLies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	var marks []storedFile
	const n = 4
	for i := range n {
		add(t, q, message(pattern(i, 200), "bob@example.net"))
		marks = append(marks, readQuiet(t, dir)[markName])
	}
	files := readQuiet(t, dir)
	add(t, q, message(pattern(9, 200), "bob@example.net"))
	newer := readQuiet(t, dir)[markName]
	marks = append(marks, storedFile{})
	if testing.Short() {
		marks = marks[n-1:]
	}
	for i, m := range marks {
		files[markName] = m
		q := openQueue(t, writeStore(t, files))
		if got := recovered(t, q); len(got) != n || q.Stats().Missing != 0 {
			t.Errorf("mark %d: %d messages, %+v", i, len(got), q.Stats())
		}
		closeQueue(t, q)
	}
	files[markName] = newer
	refusedWith(t, writeStore(t, files), "the last 1 groups of changes are gone, with 1 messages added")
}

// TestMarkSurvivesATornWrite damages each slot in turn: the other one is believed.
func TestMarkSurvivesATornWrite(t *testing.T) {
	dir := t.TempDir()
	m, err := openMark(dir, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.create(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := m.note(waterline{tally: tally{groups: uint64(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	m.close()
	for slot, want := range []uint64{4, 3} {
		b, err := os.ReadFile(filepath.Join(dir, markName))
		if err != nil {
			t.Fatal(err)
		}
		b[slot*slotSize+20] ^= 1
		again := &mark{none: true, logs: map[int]logNote{}}
		again.read(b)
		if again.none || again.last.groups != want {
			t.Errorf("slot %d damaged: %+v", slot, again.last)
		}
	}
}

// TestManifestThatWasCutIsRefused cuts it where a change ends: there it looks like a sound older one, and Badger deletes
// the tables that it does not name.
func TestManifestThatWasCutIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 3 {
		q := openQueue(t, dir)
		add(t, q, message(pattern(i, 200), "bob@example.net"))
		closeQueue(t, q)
	}
	files := readStore(t, dir)
	whole := files[badger.ManifestFilename]
	for end := int64(8); end < whole.size; {
		cut := storedFile{whole.used[:end], end}
		end += 8 + int64(binary.BigEndian.Uint32(whole.used[end:]))
		cutFiles := files
		cutFiles[badger.ManifestFilename] = cut
		dir := writeStore(t, cutFiles)
		refusedWith(t, dir, badger.ManifestFilename, "it is cut off")
		if len(readStore(t, dir)) < len(files) {
			t.Error("a table was deleted")
		}
	}
	delete(files, badger.ManifestFilename)
	refusedWith(t, writeStore(t, files), badger.ManifestFilename, "it is gone")
}

// TestManifestThatWasCutAfterAKillLosesNoTable has no note of the manifest's length: its tables are set aside, and what is
// missing is counted.
func TestManifestThatWasCutAfterAKillLosesNoTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	add(t, q, message(pattern(1, 200), "bob@example.net"))
	closeQueue(t, q)
	q = openQueue(t, dir)
	add(t, q, message(pattern(2, 200), "bob@example.net"))
	files := readQuiet(t, dir)
	whole := files[badger.ManifestFilename]
	end := int64(8) + 8 + int64(binary.BigEndian.Uint32(whole.used[8:]))
	files[badger.ManifestFilename] = storedFile{whole.used[:end], end}
	dir = writeStore(t, files)
	for range 2 { // it is told at each start
		q = openQueue(t, dir)
		if got := recovered(t, q); len(got) != 1 || q.Stats().Missing != 1 {
			t.Errorf("%d messages, %+v", len(got), q.Stats())
		}
		if p := strings.Join(q.Problems(), "\n"); !strings.Contains(p, "1 messages are there of the 2 that should be") {
			t.Errorf("%q", p)
		}
		closeQueue(t, q)
	}
	if aside, err := badgerfiles.List(filepath.Join(dir, asideName), badgerfiles.TableSuffix); err != nil || len(aside) == 0 {
		t.Errorf("%v, %v", aside, err)
	}
}

// TestKillWhileOpening dies after Badger has changed the manifest, and before the queue is open.
func TestKillWhileOpening(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	add(t, q, message(pattern(1, 200), "bob@example.net"))
	closeQueue(t, q)
	in, err := mend(dir)
	if err != nil {
		t.Fatal(err)
	}
	in.mark.close()
	db, err := badger.Open(storeOptions(dir, nil))
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(txn *badger.Txn) error { return txn.Set([]byte{keyPadding}, nil) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	q = openQueue(t, dir)
	if got := recovered(t, q); len(got) != 1 || len(q.Problems()) > 0 {
		t.Errorf("%d messages, %q", len(got), q.Problems())
	}
}

// TestMissingValueLogIsNamed lets what is readable go on.
func TestMissingValueLogIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var ids []ID
	for i := range 3 {
		q := openQueue(t, dir)
		ids = append(ids, add(t, q, message(pattern(i, 5000), "bob@example.net")).ID)
		closeQueue(t, q)
	}
	logs := logFiles(t, dir)
	if len(logs) != 3 {
		t.Fatal(logs)
	}
	if err := os.Remove(logs[2]); err != nil { // the newest, whose number Badger would use again
		t.Fatal(err)
	}
	if err := os.Truncate(logs[1], 100); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		q := openQueue(t, dir)
		if got := recovered(t, q); len(got) != 3 {
			t.Errorf("%d messages", len(got))
		}
		c, err := q.Check(t.Context(), func(rec *Record, _ error) error {
			if rec.ID == ids[0] {
				t.Error("a sound one is damaged")
			}
			return nil
		})
		if err != nil || c.Messages != 1 || c.Damaged != 2 {
			t.Errorf("%+v, %v", c, err)
		}
		p := strings.Join(q.Problems(), "\n")
		for _, path := range logs[1:] {
			if !strings.Contains(p, path) {
				t.Errorf("%s is not named in %q", path, p)
			}
		}
		closeQueue(t, q)
	}
}

// TestStoreWithoutATallyIsBelieved opens a store that an earlier version wrote.
func TestStoreWithoutATallyIsBelieved(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	for i := range 5 {
		add(t, q, message(pattern(i, 200), "bob@example.net"))
	}
	closeQueue(t, q)
	db, err := badger.Open(storeOptions(dir, nil))
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(txn *badger.Txn) error { return txn.Delete([]byte{keyTally}) })
	if err := errors.Join(err, db.Close(), os.Remove(filepath.Join(dir, markName))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		q = openQueue(t, dir)
		if got := recovered(t, q); len(got) != 5 || q.Stats().Missing != 0 || len(q.Problems()) > 0 {
			t.Errorf("%d messages, %+v, %q", len(got), q.Stats(), q.Problems())
		}
		closeQueue(t, q)
		if q.tally.live() != 5 {
			t.Errorf("%+v", q.tally)
		}
	}
}
