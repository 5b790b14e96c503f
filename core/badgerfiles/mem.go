package badgerfiles

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// Mem is what the log of a memory table holds.
type Mem struct {
	Path   string
	Sound  []Entry // what Badger reads of it, the ends of transactions left out
	End    int64   // where Badger cuts the file off
	Behind []Entry // good entries behind that, the ends of transactions among them
	file   []byte
}

var errShortLog = errors.New("it is cut off before its first entry")

// ReadMem reads the log of a memory table. Its error is a Damage, or that the file can't be read.
func ReadMem(path string) (*Mem, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &Mem{Path: path, End: HeaderLength, file: b}
	if len(b) < HeaderLength {
		return nil, &Damage{path, int64(len(b)), errShortLog}
	}
	m.replay()
	for at := m.End; ; {
		e, ok := search(b, at)
		if !ok {
			return m, nil
		}
		m.Behind = append(m.Behind, e)
		at = e.Offset + e.Length
	}
}

// replay reads the file as Badger does: whole transactions, and entries that belong to none, until one is not good.
func (m *Mem) replay() {
	var open []Entry
	for at := m.End; ; {
		e, ok := parse(m.file[at:])
		if !ok {
			return
		}
		e.Offset = at
		at += e.Length
		switch {
		case e.Meta&bitTxn != 0:
			if len(open) > 0 && open[0].Version != e.Version {
				return
			}
			open = append(open, e)
		case e.Meta&bitFinTxn != 0:
			if len(open) == 0 || string(e.Value) != strconv.FormatUint(open[0].Version, 10) {
				return
			}
			m.Sound, open, m.End = append(m.Sound, open...), nil, at
		case len(open) > 0:
			return
		default:
			m.Sound, m.End = append(m.Sound, e), at
		}
	}
}

// Damaged returns what is wrong with the file, or nil. The tail that a crash leaves is of one transaction: the next one
// begins when it is on stable storage. So where good entries of two transactions stand behind the first bad one, at least
// one of them was committed, and Badger would throw it away.
func (m *Mem) Damaged() *Damage {
	first := uint64(0)
	for i := range m.Behind {
		e := &m.Behind[i]
		if e.Meta&(bitTxn|bitFinTxn) == 0 {
			continue // moved by a clean-up, and not lost: the value log has it
		}
		if first != 0 && e.Version != first {
			return &Damage{m.Path, m.badOffset(), errBadEntry}
		}
		first = e.Version
	}
	return nil
}

var errBadEntry = errors.New("an entry is damaged, and good ones stand behind it")

// badOffset is where the first bad entry is: behind what may be the good start of its transaction.
func (m *Mem) badOffset() int64 {
	at := m.End
	for i := range m.Behind {
		if m.Behind[i].Offset != at {
			break
		}
		at += m.Behind[i].Length
	}
	return at
}

// Used returns how many bytes of the file are used: what follows are zeros.
func (m *Mem) Used() int64 { return int64(len(bytes.TrimRight(m.file, "\x00"))) }

// Entries returns every good entry of the file, without the ends of transactions.
func (m *Mem) Entries() []Entry {
	list := m.Sound
	for i := range m.Behind {
		if m.Behind[i].Meta&bitFinTxn == 0 {
			list = append(list, m.Behind[i])
		}
	}
	return list
}

// memRoom is how many bytes of entries are written into one memory table's log: less than Badger would.
const memRoom = 1 << 20

// WriteMems writes entries, each on its own and in no transaction, into new logs of memory tables in dir, where Badger
// finds them when it opens the store. They are on stable storage when it returns.
func WriteMems(dir string, entries []Entry) error {
	list, err := List(dir, MemSuffix)
	if err != nil {
		return err
	}
	next := 1
	if len(list) > 0 {
		next = list[len(list)-1] + 1
	}
	for len(entries) > 0 {
		b := make([]byte, HeaderLength, memRoom+maxValue)
		n := 0
		for ; n < len(entries) && len(b) < memRoom; n++ {
			b = entries[n].appendTo(b)
		}
		if err := writeSynced(filepath.Join(dir, MemName(next)), b); err != nil {
			return err
		}
		entries = entries[n:]
		next++
	}
	return nil
}

// writeSynced writes a file, beside the name and then under it, so that it is whole or not there.
func writeSynced(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
