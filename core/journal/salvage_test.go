package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func (s Saved) String() string { return fmt.Sprintf("%v %s %x", s.Remove, s.Key, s.Value) }

// TestSalvage damages one group after another, in both files: everything but that group comes back, in the order in which
// it was written, and nothing of the turn before the last two, whose rest is still in a file.
func TestSalvage(t *testing.T) {
	dir := t.TempDir()
	j := begun(t, dir)
	random := rand.New(rand.NewPCG(6, 6))
	var groups [][]string // of each turn but the first, group by group
	const turns, perTurn = 4, 9
	for turn := range turns {
		j.Turn()
		n := perTurn
		if turn == 0 {
			n = 2 * perTurn // so that a rest of it stays behind the third one
		}
		for range n {
			var g []string
			for range 1 + random.IntN(3) {
				s := Saved{Key: fmt.Append(nil, "key ", random.IntN(5)), Remove: random.IntN(3) == 0}
				if s.Remove {
					j.Remove(s.Key)
				} else {
					s.Value = bytes.Repeat([]byte{byte(random.Int())}, random.IntN(1200))
					j.Set(s.Key, s.Value)
				}
				g = append(g, s.String())
			}
			commit(t, j)
			if turn >= turns-2 {
				groups = append(groups, g)
			}
		}
	}
	check := func(what string, want [][]string) {
		t.Helper()
		saved, err := Salvage(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range saved {
			got = append(got, s.String())
		}
		if !slices.Equal(got, slices.Concat(want...)) {
			t.Errorf("%s: %d changes, want %d", what, len(got), len(slices.Concat(want...)))
		}
	}
	check("whole", groups)
	for n := range groups {
		file := j.active
		if n < perTurn {
			file = 1 - j.active
		}
		path := filepath.Join(dir, Names()[file])
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		off := int64(0)
		for range n % perTurn {
			g, _ := groupAt(whole, off)
			off = aligned(g.off + int64(len(g.payload)))
		}
		g, _ := groupAt(whole, off)
		for _, at := range []int64{off, off + 5, off + 9, off + 17, off + 25, off + 29, g.off, g.off + int64(len(g.payload)) - 1} {
			b := bytes.Clone(whole)
			b[at] ^= 1 << random.IntN(8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			check(fmt.Sprintf("group %d, byte %d", n, at-off), slices.Concat(groups[:n], groups[n+1:]))
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, Names()[1-j.active])); err != nil {
		t.Fatal(err)
	}
	check("a file is gone", groups[perTurn:])
}
