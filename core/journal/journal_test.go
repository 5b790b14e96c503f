package journal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// store is what a caller makes of a journal: keys and their values.
type store map[string]string

func (s store) replay(t *testing.T, j *Journal) error {
	t.Helper()
	return j.Replay(func(c Change) error {
		if c.Remove {
			delete(s, string(c.Key))
			return nil
		}
		v, err := j.Read(c.Place)
		if err != nil {
			t.Fatal(err)
		}
		s[string(c.Key)] = string(v)
		return nil
	})
}

func opened(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// begun opens a journal and makes it ready.
func begun(t *testing.T, dir string) *Journal {
	t.Helper()
	j := opened(t, dir)
	if err := (store{}).replay(t, j); err != nil {
		t.Fatal(err)
	}
	if err := j.Clear(); err != nil {
		t.Fatal(err)
	}
	return j
}

func commit(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
}

// write makes groups of changes and returns what the store is after each; states[0] is before the first.
func write(t *testing.T, j *Journal, groups int, random *rand.Rand) (states []store) {
	t.Helper()
	s := store{}
	states = append(states, maps.Clone(s))
	for i := range groups {
		for range 1 + random.IntN(4) {
			key := fmt.Sprint("key ", random.IntN(8))
			if random.IntN(3) == 0 {
				j.Remove([]byte(key))
				delete(s, key)
				continue
			}
			value := fmt.Sprint(i, " ", string(bytes.Repeat([]byte{'x'}, random.IntN(2000))))
			j.Set([]byte(key), []byte(value))
			s[key] = value
		}
		commit(t, j)
		states = append(states, maps.Clone(s))
	}
	return states
}

func TestWhatWasCommittedComesBack(t *testing.T) {
	dir := t.TempDir()
	j := begun(t, dir)
	states := write(t, j, 20, rand.New(rand.NewPCG(1, 1)))
	if empty, err := Empty(dir); empty || err != nil {
		t.Errorf("empty %v, %v", empty, err)
	}
	j.Set([]byte("never committed"), nil)
	got := store{}
	if err := got.replay(t, opened(t, dir)); err != nil || !maps.Equal(got, states[20]) {
		t.Fatalf("%v: %v", err, got)
	}
	j = begun(t, dir) // and now the store has it
	if empty, err := Empty(dir); !empty || err != nil {
		t.Errorf("empty %v, %v", empty, err)
	}
	got = store{}
	if err := got.replay(t, opened(t, dir)); err != nil || len(got) > 0 {
		t.Errorf("%v: %v", err, got)
	}
	p := j.Set([]byte("k"), []byte("value"))
	commit(t, j)
	if v, err := j.Read(p); err != nil || string(v) != "value" {
		t.Errorf("%q, %v", v, err)
	}
}

// TestTurns runs through many turns, with a crash after each of them. The store has what was in a file when it is
// overwritten; what is replayed on top of a store that is ahead must leave it as it is.
func TestTurns(t *testing.T) {
	dir := t.TempDir()
	j := begun(t, dir)
	random := rand.New(rand.NewPCG(2, 2))
	inStore, now := store{}, store{}
	for turn := range 7 {
		frozen := maps.Clone(now)
		j.Turn()
		for range 1 + random.IntN(5) {
			key, value := fmt.Sprint(random.IntN(6)), fmt.Sprint(turn, random.Int())
			if random.IntN(3) == 0 {
				j.Remove([]byte(key))
				delete(now, key)
			} else {
				j.Set([]byte(key), []byte(value))
				now[key] = value
			}
			commit(t, j)
			for name, s := range map[string]store{"behind": inStore, "ahead": frozen} {
				got := maps.Clone(s)
				if err := got.replay(t, opened(t, dir)); err != nil || !maps.Equal(got, now) {
					t.Fatalf("turn %d, the store is %s: %v: %v, want %v", turn, name, err, got, now)
				}
			}
		}
		inStore = frozen
	}
}

// TestClearCutShort holds the moment between the clearing of one file and of the other.
func TestClearCutShort(t *testing.T) {
	dir := t.TempDir()
	j := begun(t, dir)
	j.Turn()
	j.Set([]byte("k"), []byte("value"))
	commit(t, j)
	j.Turn()
	j.Remove([]byte("k"))
	commit(t, j)
	j.Turn() // the first half of Clear
	if err := j.commitEmpty(); err != nil {
		t.Fatal(err)
	}
	got := store{} // it has all
	if err := got.replay(t, opened(t, dir)); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", err, got)
	}
}

// TestClearThatFails: whichever file can't be written, what is left can be opened, also right after a Turn, when nothing
// is written to the active file.
func TestClearThatFails(t *testing.T) {
	for file := range 2 {
		for _, turned := range []bool{false, true} {
			dir := t.TempDir()
			j := begun(t, dir)
			j.Set([]byte("k"), []byte("value"))
			commit(t, j)
			if turned {
				j.Turn()
			}
			readOnly, err := os.Open(filepath.Join(dir, Names()[file]))
			if err != nil {
				t.Fatal(err)
			}
			j.files[file].Close()
			j.files[file] = readOnly
			if err := j.Clear(); err == nil {
				t.Errorf("file %d, turned %v: cleared", file, turned)
			}
			got := store{"k": "value"} // as the store has it
			if err := got.replay(t, opened(t, dir)); err != nil || got["k"] != "value" {
				t.Errorf("file %d, turned %v: %v, %v", file, turned, err, got)
			}
		}
	}
}

// TestACutInTheLastGroupIsItsEnd cuts the file off at every length: a crash may do that inside the last group.
func TestACutInTheLastGroupIsItsEnd(t *testing.T) {
	dir := t.TempDir()
	j := begun(t, dir)
	states := write(t, j, 5, rand.New(rand.NewPCG(3, 3)))
	before := j.end
	j.Set([]byte("last"), bytes.Repeat([]byte("v"), 1500))
	commit(t, j)
	path := filepath.Join(dir, Names()[j.active])
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, zeros := range []bool{false, true} { // what was not written may be there as zeros
		for n := before; n < int64(len(whole)); n += 97 {
			b := bytes.Clone(whole[:n])
			if zeros {
				b = append(b, make([]byte, int64(len(whole))-n)...)
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			got := store{}
			if err := got.replay(t, opened(t, dir)); err != nil || !maps.Equal(got, states[5]) {
				t.Fatalf("cut at %d: %v: %v", n, err, got)
			}
		}
	}
}

// TestDamageIsNamed flips bytes anywhere in two full turns: the journal says what was committed, up to a last group that
// may be torn, or it says that it is damaged.
func TestDamageIsNamed(t *testing.T) {
	dir := t.TempDir()
	j := begun(t, dir)
	random := rand.New(rand.NewPCG(4, 4))
	for range 2 {
		j.Turn()
		for i := range 12 {
			j.Set(fmt.Append(nil, i), bytes.Repeat([]byte{byte(i)}, random.IntN(1500)))
			commit(t, j)
		}
	}
	want := store{}
	if err := want.replay(t, opened(t, dir)); err != nil {
		t.Fatal(err)
	}
	named, ends := 0, 0
	for file, name := range Names() {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 41 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << random.IntN(8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			got := store{}
			err := got.replay(t, opened(t, dir))
			last := file == j.active && groupOf(whole, at) == 12
			switch {
			case errors.Is(err, ErrDamaged):
				named++
			case err == nil && maps.Equal(got, want): // between two groups
			case err == nil && last:
				ends++
			default:
				t.Fatalf("%s flipped at %d: %v, and %d of %d keys", name, at, err, len(got), len(want))
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if named == 0 || ends == 0 {
		t.Errorf("%d named, %d taken for the end", named, ends)
	}
	for _, name := range Names() { // a file is gone
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		_ = (store{}).replay(t, opened(t, dir)) // it can't know; but it must live
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// groupOf returns the number of the group that a byte is in, from 1.
func groupOf(b []byte, at int) int {
	n, off := 0, int64(0)
	for {
		g, ok := groupAt(b, off)
		if !ok || off > int64(at) {
			return n
		}
		n++
		off = aligned(g.off + int64(len(g.payload)))
	}
}

func TestAJournalThatCantBeWritten(t *testing.T) {
	j := begun(t, t.TempDir())
	j.Close()
	j.Set([]byte("k"), nil)
	if err := j.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// FuzzReplay reads anything: no panic, and no more memory than the file.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(bytes.Repeat([]byte("PBJ1"), 300), make([]byte, 2000))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		dir := t.TempDir()
		for i, content := range [][]byte{a, b} {
			if err := os.WriteFile(filepath.Join(dir, Names()[i]), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		j := opened(t, dir)
		if err := (store{}).replay(t, j); err == nil {
			if err := j.Clear(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
