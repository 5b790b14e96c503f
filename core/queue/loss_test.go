package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// damageTrials and damageSeed name the environment variables that make TestRandomDamage do more, or the same again.
const (
	damageTrials = "MTA_DAMAGE_TRIALS"
	damageSeed   = "MTA_DAMAGE_SEED"
)

// stored is a store, as its files, and what it must hold.
type stored struct {
	name    string
	files   map[string]storedFile
	want    map[ID][]byte
	removed map[ID]bool
}

// storedFile is a file without the zeros at its end.
type storedFile struct {
	used []byte
	size int64
}

func readStore(t *testing.T, dir string) map[string]storedFile {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]storedFile{}
	for _, e := range entries {
		if e.IsDir() || e.Name() == lockName || e.Name() == "LOCK" || e.Name() == ballastName {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a compaction ended
		}
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = storedFile{bytes.Clone(bytes.TrimRight(b, "\x00")), int64(len(b))}
	}
	return files
}

// readQuiet reads a store that is in use, at a moment in which neither Badger nor we change it: its files are not read all
// at once, and together they must be what a kill would leave.
func readQuiet(t *testing.T, dir string) map[string]storedFile {
	t.Helper()
	last := readStore(t, dir)
	for {
		files := readStore(t, dir)
		if maps.EqualFunc(files, last, func(a, b storedFile) bool { return a.size == b.size && bytes.Equal(a.used, b.used) }) {
			return files
		}
		last = files
	}
}

func writeStore(t *testing.T, files map[string]storedFile) string {
	t.Helper()
	dir := t.TempDir()
	for name, f := range files {
		writeStored(t, dir, name, f)
	}
	return dir
}

func writeStored(t *testing.T, dir, name string, f storedFile) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, f.used, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, f.size); err != nil {
		t.Fatal(err)
	}
}

// makeStores makes a store that was closed, one that was killed, and one that was killed soon after it was opened.
func makeStores(t *testing.T, random *rand.Rand) []*stored {
	dir := t.TempDir()
	s := &stored{want: map[ID][]byte{}, removed: map[ID]bool{}}
	var recs []*Record
	load := func(q *Queue, n int) {
		for range n {
			b := pattern(random.IntN(1e6), 1+random.IntN(9_000))
			switch random.IntN(25) {
			case 0:
				b = pattern(random.IntN(1e6), 2*chunkSize+7)
			case 1:
				b = pattern(random.IntN(1e6), pieceSize+7)
			}
			rec := add(t, q, message(b, "bob@example.net", "carol@example.org"))
			s.want[rec.ID], recs = b, append(recs, rec)
		}
		for range n / 3 {
			i := random.IntN(len(recs))
			if s.removed[recs[i].ID] {
				continue
			}
			if err := remove(q, recs[i].ID); err != nil {
				t.Fatal(err)
			}
			s.removed[recs[i].ID] = true
			delete(s.want, recs[i].ID)
		}
	}
	snapshot := func(name string) *stored {
		return &stored{name, readQuiet(t, dir), maps.Clone(s.want), maps.Clone(s.removed)}
	}
	for range 4 {
		q := openQueue(t, dir)
		load(q, 12)
		closeQueue(t, q)
	}
	closed := snapshot("closed")
	q := openQueue(t, dir)
	load(q, 25)
	killed := snapshot("killed")
	closeQueue(t, q)
	q = openQueue(t, dir)
	load(q, 2)
	young := snapshot("young")
	closeQueue(t, q)
	return []*stored{closed, killed, young}
}

// harm does something bad to one file of a store, and says what.
func harm(t *testing.T, random *rand.Rand, s *stored, dir string) string {
	t.Helper()
	names := slices.Sorted(maps.Keys(s.files))
	name := names[random.IntN(len(names))]
	f := s.files[name]
	used := len(f.used)
	if used == 0 {
		return name + " is empty"
	}
	f.used = bytes.Clone(f.used)
	var words string
	switch random.IntN(5) {
	case 0:
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return name + " deleted"
	case 1:
		f.size = int64(random.IntN(used))
		words = fmt.Sprintf("cut at %d", f.size)
	case 2:
		from := random.IntN(used)
		to := min(used, from+1+random.IntN(4096))
		clear(f.used[from:to])
		words = fmt.Sprintf("zeroed from %d to %d", from, to)
	default:
		words = "flipped at"
		for range 1 + random.IntN(3) {
			at := random.IntN(used)
			f.used[at] ^= byte(1 + random.IntN(255))
			words += fmt.Sprintf(" %d", at)
		}
	}
	writeStored(t, dir, name, f)
	return fmt.Sprintf("%s %s, of %d", name, words, used)
}

// judge opens a store to which something was done, and returns how it ended. Nothing may be lost without a word: every
// message is read as it was, or named as damaged, or counted as missing, or the store is refused.
func judge(t *testing.T, s *stored, dir, done string) string {
	t.Helper()
	q, err := Open(dir, Options{MinFree: -1})
	if err != nil {
		if !strings.Contains(err.Error(), "mta queue check") {
			t.Errorf("%s, %s: refused without advice: %v", s.name, done, err)
		}
		if testing.Verbose() {
			t.Log(err)
		}
		return "refused"
	}
	defer q.Close()
	if err := q.Recover(t.Context(), func(*Record) error { return nil }); err != nil {
		return "refused"
	}
	named := map[ID]bool{}
	if _, err := q.Check(t.Context(), func(rec *Record, _ error) error { named[rec.ID] = true; return nil }); err != nil {
		t.Errorf("%s, %s: Check: %v", s.name, done, err)
	}
	missing, back := 0, 0
	for id, want := range s.want {
		switch b, err := readAll(q, id); {
		case err == nil && !bytes.Equal(b, want):
			t.Errorf("%s, %s: another content was read", s.name, done)
		case err != nil && !named[id]:
			missing++
		}
	}
	for id := range s.removed {
		if _, err := readAll(q, id); err == nil {
			back++
		}
	}
	told := q.Stats().Missing
	if (missing > 0 || back > 0) && told == 0 || back == 0 && told != int64(missing) {
		t.Errorf("%s, %s: %d messages are missing and %d came back, and %d were told; problems: %q", s.name, done, missing, back, told, q.Problems())
	}
	switch {
	case told > 0:
		return "missing, by count"
	case len(named) > 0:
		return "damaged, by name"
	}
	return "whole"
}

// judgeRepair checks a damaged store, which must change nothing, and repairs it. Then it opens without a word, and every
// message is read as it was, or was named, or counted.
func judgeRepair(t *testing.T, s *stored, harmed map[string]storedFile, done string) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, %s: %s", s.name, done, fmt.Sprintf(format, args...))
	}
	dir := writeStore(t, harmed)
	defer os.RemoveAll(dir)
	dry, err := CheckStore(t.Context(), dir, CheckOptions{})
	if err != nil || dry.Sound() {
		fail("check: %+v, %v", dry, err)
	}
	after := readStore(t, dir)
	for name, f := range harmed {
		if g := after[name]; !bytes.Equal(f.used, g.used) || f.size != g.size || len(after) != len(harmed) {
			fail("the check changed %s", name)
		}
	}
	r, err := CheckStore(t.Context(), dir, CheckOptions{Repair: true})
	if err != nil {
		fail("repair: %v", err)
		return
	}
	if dry != nil && (len(dry.Lost) != len(r.Lost) || dry.Missing != r.Missing || dry.Checked != r.Checked) {
		fail("the check said %+v, and the repair %+v", dry, r)
	}
	named := map[ID]bool{}
	for _, m := range r.Lost {
		named[m.Record.ID] = true
	}
	q, err := Open(dir, Options{MinFree: -1})
	if err != nil {
		fail("after the repair: %v", err)
		return
	}
	defer q.Close()
	recovered(t, q)
	if q.Stats().Missing != 0 || len(q.Problems()) != 0 {
		fail("after the repair: %+v, %q", q.Stats(), q.Problems())
	}
	gone, back := 0, 0
	for id, want := range s.want {
		if b, err := readAll(q, id); err == nil && !bytes.Equal(b, want) {
			fail("another content was read after the repair")
		} else if err != nil && !named[id] {
			gone++
		}
	}
	for id := range s.removed {
		if _, err := readAll(q, id); err == nil {
			back++
		}
	}
	if int64(gone) > r.Missing && (back == 0 || r.Missing == 0) {
		fail("%d messages are gone after the repair and %d came back, and %d were told; %q, %q", gone, back, r.Missing, r.Files, r.Repaired)
	}
	if testing.Verbose() {
		t.Logf("repair: %d sound, %d damaged, %d missing, %d back; %q; %q", r.Messages, len(r.Lost), r.Missing, back, r.Files, r.Repaired)
	}
}

// TestRandomDamage flips, zeroes, cuts off and deletes.
func TestRandomDamage(t *testing.T) {
	t.Parallel()
	seed, trials := rand.Uint64(), 40
	if testing.Short() {
		trials = 8 // a few seconds each with the race detector
	}
	if s := os.Getenv(damageSeed); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	if s := os.Getenv(damageTrials); s != "" {
		trials, _ = strconv.Atoi(s)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	stores := makeStores(t, random)
	ends := map[string]int{}
	for _, s := range stores {
		if end := judge(t, s, writeStore(t, s.files), "not harmed"); end != "whole" {
			t.Fatalf("%s, not harmed: %s", s.name, end)
		}
	}
	for range trials {
		s := stores[random.IntN(len(stores))]
		dir := writeStore(t, s.files)
		done := harm(t, random, s, dir)
		harmed := readStore(t, dir)
		end := judge(t, s, dir, done)
		if end != "whole" && ends[end]%3 == 0 { // it takes its time
			judgeRepair(t, s, harmed, done)
		}
		ends[end]++
		if testing.Verbose() {
			t.Logf("%s, %s: %s", s.name, done, end)
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d trials: %v", trials, ends)
}
