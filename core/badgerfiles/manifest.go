package badgerfiles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
)

var (
	errNoManifest = errors.New("it is gone, and without it Badger would delete every table")
	errGone       = errors.New("it is gone")
)

// Tables returns the numbers of the tables that the manifest in dir names; none for a directory without a store.
func Tables(dir string) ([]uint64, error) {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, orphaned(dir, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	manifest, end, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return nil, &Damage{path, end, err}
	}
	ids := make([]uint64, 0, len(manifest.Tables))
	for id := range manifest.Tables {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// orphaned returns a Damage when a directory without a manifest has other files of a store: Badger makes the manifest
// first.
func orphaned(dir, path string) error {
	for _, suffix := range []string{TableSuffix, LogSuffix, MemSuffix} {
		list, err := List(dir, suffix)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			return &Damage{path, -1, errNoManifest}
		}
	}
	return nil
}

// Check reads the manifest and every table that it names, but those that Badger took back, and returns the first Damage.
func Check(dir string, r *Retraction) error {
	ids, err := Tables(dir)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if slices.Contains(r.Gone, id) {
			continue
		}
		if err := CheckTable(filepath.Join(dir, TableName(id))); err != nil {
			return err
		}
	}
	return nil
}

// Unnamed returns the tables in dir that the manifest does not name. Badger deletes them when it opens the store: mostly
// they are what a crash left of a compaction.
func Unnamed(dir string) ([]uint64, error) {
	named, err := Tables(dir)
	if err != nil {
		return nil, err
	}
	list, err := List(dir, TableSuffix)
	var rest []uint64
	for _, n := range list {
		if _, found := slices.BinarySearch(named, uint64(n)); !found {
			rest = append(rest, uint64(n))
		}
	}
	return rest, err
}

// The first bytes of a manifest: Badger's mark, a version of ours, which is 0, and Badger's.
var manifestHead = []byte{'B', 'd', 'g', 'r', 0, 0, 0, 8}

// WriteManifest writes a manifest that names these tables, all on level 0, where Badger takes of each key the newest
// version, whichever table it is in.
func WriteManifest(dir string, ids []uint64) error {
	set := &pb.ManifestChangeSet{}
	for _, id := range ids {
		set.Changes = append(set.Changes, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_CREATE, EncryptionAlgo: pb.EncryptionAlgo_aes})
	}
	b, err := frame(set)
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(dir, badger.ManifestFilename), append(slices.Clone(manifestHead), b...))
}

// Prove reads every file of a store whose values stand in its tables, and returns the first Damage. It notes first what
// Badger took back.
func Prove(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	r, err := Retracted(dir)
	if err == nil {
		err = r.Write(dir)
	}
	if err != nil {
		return err
	}
	if err := Check(dir, r); err != nil {
		return err
	}
	list, err := List(dir, MemSuffix)
	if err != nil {
		return err
	}
	for _, n := range list {
		m, err := ReadMem(filepath.Join(dir, MemName(n)))
		if err != nil {
			return err
		}
		if d := m.Damaged(); d != nil {
			return d
		}
	}
	return nil
}
