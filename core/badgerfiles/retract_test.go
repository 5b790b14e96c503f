package badgerfiles

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
)

// store is one of two tables, each of its own flush, with what is in it.
type store struct {
	dir  string
	a, b uint64
	want map[string][]byte
}

func twoTables(t *testing.T) *store {
	t.Helper()
	s := &store{dir: t.TempDir()}
	for _, prefix := range []string{"a", "b"} {
		db, err := badger.Open(testOptions(s.dir).WithSyncWrites(false))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			err := db.Update(func(txn *badger.Txn) error {
				return errors.Join(txn.Set([]byte("newest"), value(i)), txn.Set([]byte(prefix+string(rune('a'+i))), value(i)))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := Tables(s.dir)
	if err != nil || len(ids) != 2 {
		t.Fatal(ids, err)
	}
	s.a, s.b, s.want = ids[0], ids[1], values(t, s.copy(t))
	return s
}

func (s *store) copy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func creates(id uint64, level uint32) *pb.ManifestChange {
	return &pb.ManifestChange{Id: id, Level: level, Op: pb.ManifestChange_CREATE, EncryptionAlgo: pb.EncryptionAlgo_aes}
}

func deletes(id uint64) *pb.ManifestChange {
	return &pb.ManifestChange{Id: id, Op: pb.ManifestChange_DELETE}
}

// noted writes a manifest of these notes, and something behind them.
func noted(t *testing.T, dir string, tail string, notes ...[]*pb.ManifestChange) {
	t.Helper()
	b := slices.Clone(manifestHead)
	for _, changes := range notes {
		one, err := frame(&pb.ManifestChangeSet{Changes: changes})
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, one...)
	}
	if err := os.WriteFile(filepath.Join(dir, badger.ManifestFilename), append(b, tail...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func entriesOf(t *testing.T, dir string, id uint64) []Entry {
	t.Helper()
	entries, damage, err := Salvage(filepath.Join(dir, TableName(id)))
	if err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	return entries
}

func remove(t *testing.T, dir string, id uint64) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, TableName(id))); err != nil {
		t.Fatal(err)
	}
}

// TestRetracted makes what a failed sync of the manifest leaves, and what only looks like it.
func TestRetracted(t *testing.T) {
	whole := twoTables(t)
	type note = []*pb.ManifestChange
	without := func(entries []Entry, version uint64) []Entry {
		return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Version == version })
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string, a, b uint64)
		gone func(a, b uint64) []uint64
	}{
		"nothing": {make: func(*testing.T, string, uint64, uint64) {}},
		"a flush, and its log is there": {
			func(t *testing.T, dir string, _, b uint64) {
				entries := entriesOf(t, dir, b)
				remove(t, dir, b)
				if err := WriteMems(dir, entries); err != nil {
					t.Fatal(err)
				}
			},
			func(_, b uint64) []uint64 { return []uint64{b} },
		},
		"a flush, and half a note behind it": {
			func(t *testing.T, dir string, a, b uint64) {
				entries := entriesOf(t, dir, b)
				remove(t, dir, b)
				if err := WriteMems(dir, entries); err != nil {
					t.Fatal(err)
				}
				noted(t, dir, "\x00\x00\x00\x09half", note{creates(a, 0)}, note{creates(b, 0)})
			},
			func(_, b uint64) []uint64 { return []uint64{b} },
		},
		"flushes that were done again": {
			func(t *testing.T, dir string, a, b uint64) {
				noted(t, dir, "", note{creates(77, 0)}, note{creates(a, 0)}, note{creates(78, 0)}, note{creates(79, 0)}, note{creates(b, 0)})
			},
			func(uint64, uint64) []uint64 { return []uint64{77, 78, 79} },
		},
		"a compaction": {
			func(t *testing.T, dir string, a, b uint64) {
				noted(t, dir, "", note{creates(a, 0)}, note{creates(b, 0)}, note{creates(88, 6), creates(89, 6), deletes(a), deletes(b)})
			},
			func(uint64, uint64) []uint64 { return []uint64{88, 89} },
		},
		"a compaction that was done again": {
			func(t *testing.T, dir string, a, b uint64) {
				noted(t, dir, "", note{creates(7, 0)}, note{creates(8, 0)}, note{creates(88, 6), deletes(7), deletes(8)},
					note{creates(a, 6), creates(b, 0), deletes(7), deletes(8)})
			},
			func(uint64, uint64) []uint64 { return []uint64{88} },
		},
		"a compaction of which a later one took a part": {
			func(t *testing.T, dir string, a, b uint64) {
				noted(t, dir, "", note{creates(a, 0)}, note{creates(8, 0)}, note{creates(88, 6), deletes(a), deletes(8)}, note{creates(b, 6), deletes(8)})
			},
			func(uint64, uint64) []uint64 { return []uint64{88} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, a, b := whole.copy(t), whole.a, whole.b
			c.make(t, dir, a, b)
			r, err := Retracted(dir)
			if err != nil {
				t.Fatal(err)
			}
			var gone []uint64
			if c.gone != nil {
				gone = c.gone(a, b)
			}
			if !slices.Equal(r.Gone, gone) {
				t.Errorf("taken back: %v, want %v", r.Gone, gone)
			}
			if err := errors.Join(Check(dir, r), r.Write(dir), Check(dir, &Retraction{})); err != nil {
				t.Fatal(err)
			}
			same(t, name, values(t, dir), whole.want)
		})
	}
	for name, damage := range map[string]func(t *testing.T, dir string, a, b uint64){
		"a table and no log":      func(t *testing.T, dir string, _, b uint64) { remove(t, dir, b) },
		"the first table, no log": func(t *testing.T, dir string, a, _ uint64) { remove(t, dir, a) },
		"a table with a later log": func(t *testing.T, dir string, _, b uint64) {
			entries := entriesOf(t, dir, b)
			remove(t, dir, b)
			for i := range entries {
				entries[i].Version += 200
			}
			if err := WriteMems(dir, entries); err != nil {
				t.Fatal(err)
			}
		},
		"a table with a log that lacks a transaction": func(t *testing.T, dir string, _, b uint64) {
			entries := entriesOf(t, dir, b)
			remove(t, dir, b)
			if err := WriteMems(dir, without(entries, 300)); err != nil {
				t.Fatal(err)
			}
		},
		"a table with a log that lacks the first": func(t *testing.T, dir string, _, b uint64) {
			entries := entriesOf(t, dir, b)
			remove(t, dir, b)
			if err := WriteMems(dir, without(entries, 201)); err != nil {
				t.Fatal(err)
			}
		},
		"a compaction without one of its inputs": func(t *testing.T, dir string, a, b uint64) {
			noted(t, dir, "", note{creates(a, 0)}, note{creates(b, 0)}, note{creates(88, 6), deletes(a), deletes(b)})
			remove(t, dir, a)
		},
		"a compaction with a damaged input": func(t *testing.T, dir string, a, b uint64) {
			noted(t, dir, "", note{creates(a, 0)}, note{creates(b, 0)}, note{creates(88, 6), deletes(a), deletes(b)})
			if err := os.Truncate(filepath.Join(dir, TableName(a)), 100); err != nil {
				t.Fatal(err)
			}
		},
		"one of two outputs": func(t *testing.T, dir string, a, b uint64) {
			noted(t, dir, "", note{creates(a, 0)}, note{creates(88, 6), creates(b, 6), deletes(a)})
		},
		"a manifest that was written anew": func(t *testing.T, dir string, a, b uint64) {
			noted(t, dir, "", note{creates(77, 0), creates(a, 0), creates(b, 0)})
		},
		"one that is proved and one that is not": func(t *testing.T, dir string, a, b uint64) {
			noted(t, dir, "", note{creates(77, 0)}, note{creates(a, 0)}, note{creates(b, 0)}, note{creates(78, 0)})
		},
	} {
		t.Run("damage: "+name, func(t *testing.T) {
			dir, a, b := whole.copy(t), whole.a, whole.b
			damage(t, dir, a, b)
			r, err := Retracted(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Gone) > 0 {
				t.Errorf("taken back: %v", r.Gone)
			}
			if err := Check(dir, r); !errors.As(err, new(*Damage)) {
				t.Errorf("found: %v", err)
			}
		})
	}
}

// TestTableThatIsLostAfterARepair: a repair has brought entries back by their keys, in two tables, so that the versions in the
// first one say nothing of those in the second. That is lost, and what is in the log came later.
func TestTableThatIsLostAfterARepair(t *testing.T) {
	whole := twoTables(t)
	dir := t.TempDir()
	if err := WriteManifest(dir, nil); err != nil {
		t.Fatal(err)
	}
	entries := append(entriesOf(t, whole.dir, whole.a), entriesOf(t, whole.dir, whole.b)...)
	newest := func(e Entry) bool { return string(e.Key) == "newest" && e.Version%2 == 0 }
	for _, part := range [][]Entry{
		slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return !newest(e) }), // among them the newest of all
		slices.DeleteFunc(slices.Clone(entries), newest),
	} {
		if err := WriteMems(dir, part); err != nil {
			t.Fatal(err)
		}
		db, err := badger.Open(testOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := Tables(dir)
	if err != nil || len(ids) != 2 {
		t.Fatal(ids, err)
	}
	db, err := badger.Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(txn *badger.Txn) error { return txn.Set([]byte("later"), []byte("than all")) }); err != nil {
		t.Fatal(err)
	}
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	remove(t, killed, ids[1])
	r, err := Retracted(killed)
	if err != nil || len(r.Gone) > 0 {
		t.Errorf("taken back: %+v, %v", r, err)
	}
	if err := Check(killed, r); !errors.As(err, new(*Damage)) {
		t.Errorf("found: %v", err)
	}
}
