package badgerfiles

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

func testOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(true).WithCompression(options.None).WithBlockCacheSize(0).
		WithMemTableSize(1 << 20).WithNumCompactors(2).WithValueLogFileSize(1 << 20).WithValueThreshold(1 << 10)
}

func value(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 100+i%7) }

// fill puts n values into a store and deletes each tenth, each in its own transaction.
func fill(t *testing.T, db *badger.DB, n int) {
	t.Helper()
	for i := range n {
		err := db.Update(func(txn *badger.Txn) error {
			if i%10 == 9 {
				if err := txn.Delete(fmt.Appendf(nil, "key%06d", i-1)); err != nil {
					return err
				}
			}
			return txn.Set(fmt.Appendf(nil, "key%06d", i), value(i))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// values reads what is in a store.
func values(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	db, err := badger.Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string][]byte{}
	err = db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			v, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			all[string(it.Item().Key())] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// newest returns, of entries, the newest of each key that is not deleted.
func newest(entries []Entry) map[string][]byte {
	latest := map[string]Entry{}
	for _, e := range entries {
		if old, ok := latest[string(e.Key)]; !ok || e.Version > old.Version {
			latest[string(e.Key)] = e
		}
	}
	all := map[string][]byte{}
	for k, e := range latest {
		if !e.Deletes() {
			all[k] = e.Value
		}
	}
	return all
}

func same(t *testing.T, what string, got, want map[string][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
	}
	for k, v := range want {
		if !bytes.Equal(got[k], v) {
			t.Errorf("%s: %s is %q, want %q", what, k, got[k], v)
			return
		}
	}
}

// closedTable makes a store of one table and returns its directory and what is in it.
func closedTable(t *testing.T, n int) (dir string, want map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	db, err := badger.Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, n)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, values(t, dir)
}

func tables(t *testing.T, dir string) []string {
	t.Helper()
	ids, err := Tables(dir)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, id := range ids {
		paths = append(paths, filepath.Join(dir, TableName(id)))
	}
	return paths
}

func TestTableIsReadAsBadgerWritesIt(t *testing.T) {
	dir, want := closedTable(t, 500)
	var all []Entry
	for _, path := range tables(t, dir) {
		entries, damage, err := Salvage(path)
		if err != nil || len(damage) > 0 {
			t.Fatal(damage, err)
		}
		all = append(all, entries...)
	}
	same(t, "salvaged", newest(all), want)
}

// TestSalvageTakesGoodBlocks damages one block, and then the index.
func TestSalvageTakesGoodBlocks(t *testing.T) {
	dir, want := closedTable(t, 500)
	path := tables(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int{"a block": len(whole) / 3, "the index": len(whole) - 20} {
		b := bytes.Clone(whole)
		b[at] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CheckTable(path); !errors.As(err, new(*Damage)) {
			t.Errorf("%s: %v", name, err)
		}
		entries, damage, err := Salvage(path)
		if err != nil || len(damage) != 1 {
			t.Errorf("%s: %v, %v", name, damage, err)
		}
		got := newest(entries)
		if n := len(got); n < len(want)/2 || name == "the index" && n != len(want) {
			t.Errorf("%s: %d of %d values", name, n, len(want))
		}
		for k, v := range got {
			if w, ok := want[k]; ok && !bytes.Equal(v, w) {
				t.Errorf("%s: another value of %s", name, k)
			}
		}
	}
}

// TestWrittenAnew makes a store of nothing but what was salvaged of another one.
func TestWrittenAnew(t *testing.T) {
	dir, want := closedTable(t, 3000)
	var all []Entry
	for _, path := range tables(t, dir) {
		entries, _, err := Salvage(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entries...)
	}
	fresh := t.TempDir()
	if err := errors.Join(WriteManifest(fresh, nil), WriteMems(fresh, all)); err != nil {
		t.Fatal(err)
	}
	same(t, "written anew", values(t, fresh), want)

	if err := os.Remove(filepath.Join(dir, badger.ManifestFilename)); err != nil {
		t.Fatal(err)
	}
	if _, err := Tables(dir); !errors.As(err, new(*Damage)) {
		t.Errorf("without a manifest: %v", err)
	}
	list, err := List(dir, TableSuffix)
	if err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for _, n := range list {
		ids = append(ids, uint64(n))
	}
	if err := WriteManifest(dir, ids); err != nil {
		t.Fatal(err)
	}
	same(t, "with a manifest written anew", values(t, dir), want)
}

// TestMemIsReadAsBadgerWritesIt copies the log of a memory table while the store is open.
func TestMemIsReadAsBadgerWritesIt(t *testing.T) {
	dir := t.TempDir()
	db, err := badger.Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const n = 100
	fill(t, db, n)
	list, err := List(dir, MemSuffix)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, MemName(list[0])))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), MemName(1))
	read := func(b []byte) *Mem {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := ReadMem(path)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := read(whole)
	if m.Damaged() != nil || len(m.Behind) != 0 || len(m.Sound) != n+n/10 || m.End != m.Used() {
		t.Fatalf("%v, %d entries, %d behind, end %d of %d", m.Damaged(), len(m.Sound), len(m.Behind), m.End, m.Used())
	}
	for i, e := range m.Sound { // each byte of one entry in the middle, and of the last one
		last := i == len(m.Sound)-1
		if i != n/2 && !last {
			continue
		}
		for at := e.Offset; at < e.Offset+e.Length; at++ {
			b := bytes.Clone(whole)
			b[at] ^= 0x55
			m := read(b)
			if d := m.Damaged(); (d == nil) != last || d != nil && d.Offset > at {
				t.Errorf("byte %d of %d in entry %d: %v", at-e.Offset, e.Length, i, d)
			}
			if got := len(m.Entries()); got < n+n/10-1 {
				t.Errorf("byte %d of entry %d: only %d entries", at-e.Offset, i, got)
			}
		}
	}
}

func FuzzEntry(f *testing.F) {
	e := Entry{Key: []byte("key"), Value: []byte("value"), Version: 7, Expiry: 9, Meta: bitDelete}
	f.Add(e.appendTo(nil))
	f.Add([]byte{0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := parse(b); ok {
			again, ok := parse(e.appendTo(nil))
			if !ok || !bytes.Equal(again.Key, e.Key) || !bytes.Equal(again.Value, e.Value) || again.Version != e.Version || again.Expiry != e.Expiry {
				t.Errorf("%+v, %+v", e, again)
			}
		}
		_, _ = blockEntries(b)
		_, _ = readIndex(b)
		guessBlocks(b)
	})
}
