package badgerfiles

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

// Retraction is what Badger has done, noted in its manifest, and taken back without a note: when the sync of the manifest
// fails it deletes the tables that the note is about, goes on with what they were made of, and the note may stand. At the
// next start it would refuse the store, or go on without what the tables should hold.
type Retraction struct {
	Gone  []uint64 // tables that the manifest names and that are not there
	again []*pb.ManifestChange
}

// Retracted returns the tables that the manifest in dir names though Badger took them back, where it is proved that
// nothing is missing without them: what they were made of is there, or something was made of it later. Of all others it
// says nothing; they are damage.
func Retracted(dir string) (*Retraction, error) {
	none := &Retraction{}
	ids, err := Tables(dir)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(ids, func(id uint64) bool { return !there(dir, id) }) {
		return none, nil
	}
	h, err := readHistory(dir)
	if err != nil {
		return nil, err
	}
	r := &Retraction{}
	for i, id := range h.made {
		if !slices.Contains(ids, id) || there(dir, id) {
			continue
		}
		notes := h.notes[i]
		if len(notes.deleted) == 0 {
			proved, err := h.flushedAgain(notes)
			if err != nil || !proved {
				return none, err
			}
		} else if !h.inputsAreThere(notes) {
			return none, nil
		}
		r.Gone = append(r.Gone, id)
	}
	again := map[uint64]bool{}
	for _, notes := range h.changes {
		if len(notes.created) == 0 || !slices.Contains(r.Gone, notes.created[0].GetId()) {
			continue
		}
		for _, id := range notes.deleted {
			if !h.deletedAfter(notes, id) && !again[id] {
				again[id] = true
				r.again = append(r.again, h.births[id])
			}
		}
	}
	return r, nil
}

// Write notes in the manifest in dir what was taken back.
func (r *Retraction) Write(dir string) error {
	if len(r.Gone) == 0 {
		return nil
	}
	set := &pb.ManifestChangeSet{}
	for _, id := range r.Gone {
		set.Changes = append(set.Changes, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_DELETE})
	}
	set.Changes = append(set.Changes, r.again...)
	f, err := os.OpenFile(filepath.Join(dir, badger.ManifestFilename), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, end, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return err
	}
	b, err := frame(set)
	if err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil { // half a note, which Badger would cut off
		return err
	}
	if _, err := f.WriteAt(b, end); err != nil {
		return err
	}
	return f.Sync()
}

// frame returns a set of changes as it stands in a manifest: its length, its sum, and itself.
func frame(set *pb.ManifestChangeSet) ([]byte, error) {
	changes, err := proto.Marshal(set)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(changes)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(changes, castagnoli))
	return append(b, changes...), nil
}

func there(dir string, id uint64) bool {
	_, err := os.Lstat(filepath.Join(dir, TableName(id)))
	return err == nil
}

// change is one note in a manifest: what a flush or a compaction has made, and of what.
type change struct {
	at      int // which one it is
	created []*pb.ManifestChange
	deleted []uint64
}

// history is what a manifest tells.
type history struct {
	dir     string
	changes []*change
	made    []uint64                      // tables in the order of their creation
	notes   []*change                     // and by which note
	births  map[uint64]*pb.ManifestChange // the note of each table's creation
}

// readHistory reads a manifest that is known to be sound.
func readHistory(dir string) (*history, error) {
	b, err := os.ReadFile(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return nil, err
	}
	h := &history{dir: dir, births: map[uint64]*pb.ManifestChange{}}
	const head = 8
	for b = b[min(len(manifestHead), len(b)):]; len(b) >= head; {
		n := int(binary.BigEndian.Uint32(b))
		if n > len(b)-head {
			break // half a note
		}
		set := &pb.ManifestChangeSet{}
		if err := proto.Unmarshal(b[head:head+n], set); err != nil {
			return nil, err
		}
		h.add(set)
		b = b[head+n:]
	}
	return h, nil
}

func (h *history) add(set *pb.ManifestChangeSet) {
	c := &change{at: len(h.changes)}
	h.changes = append(h.changes, c)
	for _, one := range set.GetChanges() {
		id := one.GetId()
		if one.GetOp() == pb.ManifestChange_DELETE {
			c.deleted = append(c.deleted, id)
			continue
		}
		c.created = append(c.created, one)
		h.made, h.notes = append(h.made, id), append(h.notes, c)
		h.births[id] = one
	}
}

// deletedAfter reports that a table was used up by a later change.
func (h *history) deletedAfter(c *change, id uint64) bool {
	for _, later := range h.changes[c.at+1:] {
		if slices.Contains(later.deleted, id) {
			return true
		}
	}
	return false
}

// inputsAreThere reports that a compaction was taken back as a whole, and everything that it was made of is there, or was
// used up later.
func (h *history) inputsAreThere(c *change) bool {
	for _, made := range c.created {
		if there(h.dir, made.GetId()) || h.deletedAfter(c, made.GetId()) {
			return false
		}
	}
	for _, id := range c.deleted {
		if h.deletedAfter(c, id) {
			continue
		}
		if h.births[id] == nil || CheckTable(filepath.Join(h.dir, TableName(id))) != nil {
			return false
		}
	}
	return true
}

// flushedAgain reports that what a flush has put into a table is in the next table that a flush has made, or still in the
// logs of the memory tables. Each transaction has a version of its own, one more than the one before, and a memory table
// holds whole transactions: so where the one behind the last of the older tables is there, with all that follow it, the
// table held nothing else. Entries that a clean-up has moved bear old versions, but never all of a table's. Where an older flush
// is not of that kind, as after a repair that has brought back entries in another order, nothing is proved.
func (h *history) flushedAgain(c *change) (bool, error) {
	if len(c.created) != 1 || c.created[0].GetLevel() != 0 {
		return false, nil
	}
	var last uint64 // the newest version in the tables that were there before
	for _, older := range h.changes[:c.at] {
		before := last
		for _, one := range older.created {
			versions, err := h.versions(one.GetId())
			if err != nil {
				return false, err
			}
			if len(older.deleted) == 0 && len(versions) > 0 && !follows(before, versions) {
				return false, nil
			}
			for v := range versions {
				last = max(last, v)
			}
		}
	}
	for _, later := range h.changes[c.at+1:] {
		if len(later.deleted) > 0 || len(later.created) != 1 || !there(h.dir, later.created[0].GetId()) {
			continue
		}
		versions, err := h.versions(later.created[0].GetId())
		return err == nil && follows(last, versions), err
	}
	versions := map[uint64]bool{}
	list, err := List(h.dir, MemSuffix)
	if err != nil {
		return false, err
	}
	for _, n := range list {
		m, err := ReadMem(filepath.Join(h.dir, MemName(n)))
		if err != nil {
			continue // it is told of elsewhere
		}
		for i := range m.Sound {
			versions[m.Sound[i].Version] = true
		}
	}
	return follows(last, versions), nil
}

// follows reports that versions has everything from the one behind last to its newest.
func follows(last uint64, versions map[uint64]bool) bool {
	newest := slices.Max(append(slices.Collect(maps.Keys(versions)), 0))
	for v := last + 1; v <= newest; v++ {
		if !versions[v] {
			return false
		}
	}
	return newest > last
}

// versions returns the versions in a table; none when it is not there.
func (h *history) versions(id uint64) (map[uint64]bool, error) {
	entries, _, err := Salvage(filepath.Join(h.dir, TableName(id)))
	versions := map[uint64]bool{}
	for i := range entries {
		versions[entries[i].Version] = true
	}
	return versions, err
}
