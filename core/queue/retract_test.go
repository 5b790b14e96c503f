package queue

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"

	"github.com/pabal-mta/mta/core/journal"
)

// TestFlushThatWasTakenBack is a server whose disk failed at the sync of the manifest, which names a table then that Badger
// has deleted. Its messages are in the log of a memory table still, so it starts, and a check finds nothing wrong.
func TestFlushThatWasTakenBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openQueue(t, dir)
	ids := []ID{add(t, q, message(pattern(1, 200), "bob@example.net")).ID}
	closeQueue(t, q) // an older table
	q = openQueue(t, dir)
	for i := range 20 {
		ids = append(ids, add(t, q, message(pattern(i, 200), "bob@example.net")).ID)
		flushed(t, q)
	}
	files := readQuiet(t, dir)
	for _, name := range journal.Names() { // so that the store alone has them
		delete(files, name)
	}
	note, err := proto.Marshal(&pb.ManifestChangeSet{Changes: []*pb.ManifestChange{{Id: 1 << 20, Op: pb.ManifestChange_CREATE, EncryptionAlgo: pb.EncryptionAlgo_aes}}})
	if err != nil {
		t.Fatal(err)
	}
	b := slices.Clone(files[badger.ManifestFilename].used)
	b = binary.BigEndian.AppendUint32(b, uint32(len(note)))
	b = append(binary.BigEndian.AppendUint32(b, crc32.Checksum(note, crc32.MakeTable(crc32.Castagnoli))), note...)
	files[badger.ManifestFilename] = storedFile{b, int64(len(b))}
	for name, open := range map[string]func(dir string) (*Queue, error){
		"Open":         func(dir string) (*Queue, error) { return Open(dir, Options{MinFree: -1}) },
		"OpenReadOnly": OpenReadOnly,
	} {
		q, err := open(writeStore(t, files))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, id := range ids {
			if _, err := readAll(q, id); err != nil {
				t.Errorf("%s: %s: %v", name, id, err)
			}
		}
		closeQueue(t, q)
	}
	for _, repair := range []bool{false, true} {
		dir := writeStore(t, files)
		r, err := CheckStore(t.Context(), dir, CheckOptions{Repair: repair})
		if err != nil || !r.Sound() || r.Messages != int64(len(ids)) || len(r.Repaired) != 1 {
			t.Errorf("repair %v: %+v, %v", repair, r, err)
		}
	}
}
