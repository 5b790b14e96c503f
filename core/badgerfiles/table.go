package badgerfiles

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

var errTableShort = errors.New("it is cut off, or its lengths are wrong")

// CheckTable reads a whole table and returns the first Damage.
func CheckTable(path string) error {
	_, damage, err := readTable(path, false)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return damage[0]
	}
	return nil
}

// Salvage returns the entries of all good blocks of a table, and what is wrong with the others.
func Salvage(path string) ([]Entry, []*Damage, error) { return readTable(path, true) }

// readTable reads a table. At its end stand the index, the index's length, the checksum of the index, and the checksum's
// length; the index tells where the blocks are, and each block ends in a checksum of its own.
func readTable(path string, salvage bool) (entries []Entry, damage []*Damage, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, []*Damage{{path, -1, errGone}}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	blocks, damage := findBlocks(path, b)
	if len(damage) > 0 && !salvage {
		return nil, damage, nil
	}
	if len(damage) > 0 {
		blocks = guessBlocks(b)
	}
	for _, at := range blocks {
		block, err := checkBlock(b, at)
		var list []Entry
		if err == nil && salvage {
			list, err = blockEntries(block)
		}
		if err != nil {
			damage = append(damage, &Damage{path, int64(at.from), err})
			if !salvage {
				break
			}
		}
		entries = append(entries, list...)
	}
	return entries, damage, nil
}

// guessBlocks finds the blocks of a table without its index: they follow one another from the start, and each ends where
// its checksum is right. After the first damaged one nothing can be found.
func guessBlocks(b []byte) (blocks []span) {
	const longest, sumLength = 2 * maxValue, 24
	from := 0
	for end := 8; end <= len(b) && end-from < longest; end++ {
		if n := binary.BigEndian.Uint32(b[end-4:]); n == 0 || n > sumLength || int(n)+8 > end-from {
			continue
		}
		at := span{uint64(from), uint64(end)}
		if _, err := checkBlock(b, at); err == nil {
			blocks = append(blocks, at)
			from = end
			end += 7
		}
	}
	return blocks
}

// span is where a block stands.
type span struct{ from, to uint64 }

func findBlocks(path string, b []byte) ([]span, []*Damage) {
	blocks, err := readIndex(b)
	if err != nil {
		return nil, []*Damage{{path, -1, err}}
	}
	return blocks, nil
}

func readIndex(b []byte) (blocks []span, err error) {
	rest, sum, err := cutSum(b)
	if err != nil {
		return nil, err
	}
	rest, index, err := cutTail(rest)
	if err != nil {
		return nil, err
	}
	if err := y.VerifyChecksum(index, sum); err != nil {
		return nil, fmt.Errorf("its index: %w", err)
	}
	if len(index) == 0 { // zeros alone have the right checksum, 0
		return nil, errTableShort
	}
	table := fb.GetRootAsTableIndex(index, 0)
	for i := range table.OffsetsLength() {
		var at fb.BlockOffset
		if !table.Offsets(&at, i) {
			return nil, errTableShort
		}
		s := span{uint64(at.Offset()), uint64(at.Offset()) + uint64(at.Len())}
		if s.to > uint64(len(rest)) {
			return nil, errTableShort
		}
		blocks = append(blocks, s)
	}
	return blocks, nil
}

func checkBlock(b []byte, at span) ([]byte, error) {
	block, sum, err := cutSum(b[at.from:at.to])
	if err != nil {
		return nil, err
	}
	return block, y.VerifyChecksum(block, sum)
}

var errBlock = errors.New("a block whose entries can't be read")

// blockEntries reads the entries of a block: each is the length that its key has in common with the first one of the
// block, the length of the rest, that rest, and the value; behind them stand their offsets, and how many there are.
func blockEntries(b []byte) ([]Entry, error) {
	if len(b) < 4 {
		return nil, errBlock
	}
	n := binary.BigEndian.Uint32(b[len(b)-4:])
	if uint64(n)*4 > uint64(len(b)-4) {
		return nil, errBlock
	}
	index := b[len(b)-4-4*int(n) : len(b)-4]
	b = b[:len(b)-4-4*int(n)]
	offsets := make([]uint32, 0, n+1)
	for i := range n {
		offsets = append(offsets, binary.NativeEndian.Uint32(index[4*i:]))
	}
	offsets = append(offsets, uint32(len(b)))
	var entries []Entry
	var base []byte
	for i := range n {
		if offsets[i] > offsets[i+1] || int(offsets[i+1]) > len(b) {
			return entries, errBlock
		}
		e, key, ok := blockEntry(b[offsets[i]:offsets[i+1]], base)
		if !ok {
			return entries, errBlock
		}
		if i == 0 {
			base = key
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func blockEntry(b, base []byte) (e Entry, key []byte, ok bool) {
	if len(b) < 4 {
		return e, nil, false
	}
	overlap, diff := int(binary.NativeEndian.Uint16(b)), int(binary.NativeEndian.Uint16(b[2:]))
	b = b[4:]
	if overlap > len(base) || diff > len(b) || overlap+diff <= versionLength {
		return e, nil, false
	}
	key = append(append(make([]byte, 0, overlap+diff), base[:overlap]...), b[:diff]...)
	b = b[diff:]
	if len(b) < 3 {
		return e, nil, false
	}
	expiry, n := binary.Uvarint(b[2:])
	if n <= 0 {
		return e, nil, false
	}
	e = Entry{Meta: b[0], User: b[1], Expiry: expiry, Value: b[2+n:]}
	e.setKey(key)
	return e, key, true
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
