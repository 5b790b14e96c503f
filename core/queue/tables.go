package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// A table that is damaged must be found before Badger sees it: Badger opens tables on goroutines of its own, where a
// panic or a failed assertion ends the process; it takes a wrong checksum for a reason to go on without the table; and a
// compaction that runs into a bad block drops all that follows it.

// checkTables reads every table that the store counts as its own and returns an error that names the first damaged one.
// Tables that no manifest names are what a crash left, and Badger removes them.
func checkTables(dir string) error {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new store
	}
	if err != nil {
		return err
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errUnsoundTable, f.Name(), err)
	}
	for id := range manifest.Tables {
		path := filepath.Join(dir, fmt.Sprintf("%06d.sst", id))
		if err := checkTable(path); err != nil {
			return fmt.Errorf("%w: %s: %w", errUnsoundTable, path, err)
		}
	}
	return nil
}

var (
	errUnsoundTable = fmt.Errorf("%w: a table of the store", ErrDamaged)
	errTableShort   = errors.New("it is cut off, or its lengths are wrong")
)

// checkTable reads a whole table. At its end stand the index, the index's length, the checksum of the index, and the
// checksum's length; the index tells where the blocks are, and each block ends in a checksum of its own.
func checkTable(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rest, sum, err := cutSum(b)
	if err != nil {
		return err
	}
	rest, index, err := cutTail(rest)
	if err != nil {
		return err
	}
	if err := y.VerifyChecksum(index, sum); err != nil {
		return fmt.Errorf("its index: %w", err)
	}
	table := fb.GetRootAsTableIndex(index, 0)
	for i := range table.OffsetsLength() {
		var at fb.BlockOffset
		if !table.Offsets(&at, i) {
			return errTableShort
		}
		from, to := uint64(at.Offset()), uint64(at.Offset())+uint64(at.Len())
		if to > uint64(len(rest)) {
			return errTableShort
		}
		block, sum, err := cutSum(rest[from:to])
		if err != nil {
			return fmt.Errorf("the block at offset %d: %w", from, err)
		}
		if err := y.VerifyChecksum(block, sum); err != nil {
			return fmt.Errorf("the block at offset %d: %w", from, err)
		}
	}
	return nil
}

// cutTail cuts off what stands at the end of b before its own length in four bytes.
func cutTail(b []byte) (rest, tail []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errTableShort
	}
	end := len(b) - 4
	n := binary.BigEndian.Uint32(b[end:])
	if uint64(n) > uint64(end) {
		return nil, nil, errTableShort
	}
	start := end - int(n)
	return b[:start], b[start:end], nil
}

// cutSum cuts off a checksum.
func cutSum(b []byte) (rest []byte, sum *pb.Checksum, err error) {
	rest, encoded, err := cutTail(b)
	if err != nil {
		return nil, nil, err
	}
	sum = &pb.Checksum{}
	if err := proto.Unmarshal(encoded, sum); err != nil {
		return nil, nil, fmt.Errorf("its checksum: %w", err)
	}
	if sum.GetAlgo() != pb.Checksum_CRC32C && sum.GetAlgo() != pb.Checksum_XXHash64 { // else y panics
		return nil, nil, fmt.Errorf("its checksum is of the unknown kind %d", sum.GetAlgo())
	}
	return rest, sum, nil
}
