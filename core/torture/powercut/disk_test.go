package powercut

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// image is a new file in memory.
type image []byte

func (m image) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

// past makes a disk of four parts with two sectors written and synced, and two more written.
func past(t *testing.T) *Disk {
	t.Helper()
	d := NewDisk(make([]byte, 4*part))
	write := func(b byte, at int64, n int) {
		if _, err := d.WriteAt(bytes.Repeat([]byte{b}, n), at); err != nil {
			t.Fatal(err)
		}
	}
	write('a', 0, Sector)
	write('b', part, Sector)
	d.Sync()
	write('c', 0, Sector)
	write('d', 3*part, 64*Sector)
	return d
}

func TestWhatWasSyncedIsInEveryImage(t *testing.T) {
	for loss := range Losses {
		for at := 3; at <= 5; at++ {
			m := make(image, 4*part)
			unsafe, err := NewReplay(past(t)).Image(m, at, loss, rand.New(rand.NewPCG(1, uint64(loss))))
			if err != nil || unsafe != at-3 {
				t.Errorf("%d unsafe at %d, %v", unsafe, at, err)
			}
			if m[part] != 'b' || m[0] != 'a' && m[0] != 'c' || at == 3 && m[0] != 'a' {
				t.Errorf("%v at %d: what was synced is gone: %q %q", loss, at, m[0], m[part])
			}
		}
	}
}

func TestWhatWasNotSyncedIsLostAsTold(t *testing.T) {
	count := func(loss Loss, seed uint64) (c, d int) {
		m := make(image, 4*part)
		if _, err := NewReplay(past(t)).Image(m, 5, loss, rand.New(rand.NewPCG(seed, 0))); err != nil {
			t.Fatal(err)
		}
		return bytes.Count(m, []byte{'c'}), bytes.Count(m, []byte{'d'})
	}
	if c, d := count(KeepsAll, 1); c != Sector || d != 64*Sector {
		t.Errorf("all: %d, %d", c, d)
	}
	if c, d := count(KeepsNone, 1); c+d != 0 {
		t.Errorf("none: %d, %d", c, d)
	}
	seen := map[int]bool{}
	for seed := range uint64(40) {
		c, d := count(KeepsSome, seed)
		if d != 0 && d != 64*Sector {
			t.Errorf("some: a write of which %d bytes are there", d)
		}
		seen[c+d] = true
	}
	if len(seen) != 4 {
		t.Errorf("some: only %v", seen)
	}
	torn := map[int]bool{}
	for seed := range uint64(10) {
		_, d := count(Tears, seed)
		if d%Sector != 0 {
			t.Errorf("torn: %d bytes are not whole sectors", d)
		}
		torn[d] = true
	}
	if len(torn) < 5 {
		t.Errorf("torn: only %v", torn)
	}
}

func TestOneSeedMakesOneImage(t *testing.T) {
	var first image
	for range 3 {
		m := make(image, 4*part)
		if _, err := NewReplay(past(t)).Image(m, 5, Tears, rand.New(rand.NewPCG(7, 7))); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = m
		}
		if !bytes.Equal(first, m) {
			t.Error("another image")
		}
	}
}

func TestImagesInTheOrderOfTime(t *testing.T) {
	d := past(t)
	d.Sync()
	r := NewReplay(d)
	for at, want := range []byte{0, 0, 0, 'a', 'a', 'a', 'c'} {
		m := make(image, 4*part)
		if _, err := r.Image(m, at, KeepsNone, nil); err != nil || m[0] != want {
			t.Errorf("at %d: %q, want %q, %v", at, m[0], want, err)
		}
	}
}

func TestBeyondTheEnd(t *testing.T) {
	d := NewDisk(make([]byte, 10))
	if _, err := d.WriteAt([]byte("12345"), 6); err == nil {
		t.Error("a write beyond the end was taken")
	}
	p := make([]byte, 20)
	if n, err := d.ReadAt(p, 4); n != 6 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}
