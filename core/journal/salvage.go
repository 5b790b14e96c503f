package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Saved is a change that could be read of a damaged journal.
type Saved struct {
	Key, Value []byte
	Remove     bool
}

// Salvage returns, in order, the changes of all good groups of the last two turns in the files of a damaged journal, and
// changes nothing. Changes are absolute, so that those which the store has already do no harm.
func Salvage(dir string) ([]Saved, error) {
	var groups []group
	newest := uint64(0)
	for _, name := range Names() {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
		for off := int64(0); off < int64(len(b)); off += sector {
			if g, ok := groupAt(b, off); ok {
				groups = append(groups, g)
				newest = max(newest, g.epoch)
			}
		}
	}
	groups = slices.DeleteFunc(groups, func(g group) bool { return g.epoch+1 < newest })
	slices.SortFunc(groups, func(a, b group) int { return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq)) })
	var saved []Saved
	for _, g := range groups {
		at := 0
		for range g.count {
			c, n := change(g.payload[at:])
			if n == 0 {
				break
			}
			at += n
			saved = append(saved, Saved{bytes.Clone(c.Key), bytes.Clone(g.payload[at-int(c.Place.size) : at]), c.Remove})
		}
	}
	return saved, nil
}
