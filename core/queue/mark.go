package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// The mark is a small file beside Badger's that says how far the store had come, so that a log that was cut off, deleted
// or put back from an older copy is named at the next start. It is written after the group that it tells of is on stable
// storage, with one write and no sync: after a kill it is exact, after a cut of the power it may lag behind, and it is
// never ahead. Two slots are written in turn, each within one sector, so that a torn write costs the newer one alone.
//
// Behind the slots stands a list of the value-log files and how long they must be at the least. A file is taken off it,
// and that is synced, before a clean-up may delete it.
const (
	markName   = "queue.mark"
	markMagic  = "mtaqmk01"
	slotSize   = 512 // a sector
	slots      = 2
	logsOffset = 4096
	slotLength = len(markMagic) + 8 + tallyLength + 1 + 8 + 4
)

// waterline is what a slot of the mark says.
type waterline struct {
	tally
	clean    bool  // the queue was closed in order, and nothing was written since
	manifest int64 // length of Badger's manifest when the queue was closed
	sum      uint32
}

// logNote is what the mark knows of a file of the value log.
type logNote struct {
	size int64 // at the least
	lost bool  // it was found missing or too short; told until it is repaired
}

type mark struct {
	mu   sync.Mutex
	f    *os.File
	dir  string
	seq  uint64
	last waterline
	none bool // there was no readable slot
	logs map[int]logNote
	buf  []byte
}

// openMark reads the mark, or makes one in memory that says nothing, when there is none.
func openMark(dir string, flag int) (*mark, error) {
	m := &mark{dir: dir, none: true, logs: map[int]logNote{}, buf: make([]byte, 0, slotSize)}
	f, err := os.OpenFile(filepath.Join(dir, markName), flag, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.f = f
	b, err := io.ReadAll(f)
	if err != nil {
		m.close()
		return nil, err
	}
	m.read(b)
	return m, nil
}

func (m *mark) read(b []byte) {
	for i := range slots {
		if at := i * slotSize; len(b) >= at+slotLength+4 {
			m.readSlot(b[at : at+slotLength+4])
		}
	}
	if len(b) > logsOffset {
		m.readLogs(b[logsOffset:])
	}
}

func (m *mark) readSlot(b []byte) {
	body := b[:slotLength]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[slotLength:]) || string(body[:len(markMagic)]) != markMagic {
		return
	}
	body = body[len(markMagic):]
	seq := binary.BigEndian.Uint64(body)
	if !m.none && seq <= m.seq {
		return
	}
	m.none, m.seq = false, seq
	m.last.tally, _ = decodeTally(body[8:])
	body = body[8+tallyLength:]
	m.last.clean = body[0] == 1
	m.last.manifest = int64(binary.BigEndian.Uint64(body[1:]))
	m.last.sum = binary.BigEndian.Uint32(body[9:])
}

// readLogs reads the list of value-log files. From a damaged list it takes none.
func (m *mark) readLogs(b []byte) {
	if len(b) < 8 {
		return
	}
	n := 13 * int64(binary.BigEndian.Uint32(b))
	if n+8 > int64(len(b)) || crc32.Checksum(b[:4+n], castagnoli) != binary.BigEndian.Uint32(b[4+n:]) {
		return
	}
	for b = b[4 : 4+n]; len(b) > 0; b = b[13:] {
		m.logs[int(binary.BigEndian.Uint32(b))] = logNote{int64(binary.BigEndian.Uint64(b[4:])), b[12] == 1}
	}
}

// create makes the file where there is none.
func (m *mark) create() error {
	if m.f != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(m.dir, markName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	m.f = f
	if err := f.Truncate(logsOffset); err != nil {
		return err
	}
	return syncDir(m.dir)
}

// note writes down how far the store has come.
func (m *mark) note(w waterline) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq++
	m.last = w
	b := append(m.buf[:0], markMagic...)
	b = binary.BigEndian.AppendUint64(b, m.seq)
	b = w.tally.appendTo(b)
	b = append(b, bitIf(w.clean, 1))
	b = binary.BigEndian.AppendUint64(b, uint64(w.manifest))
	b = binary.BigEndian.AppendUint32(b, w.sum)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := m.f.WriteAt(b, int64(m.seq%slots)*slotSize); err != nil {
		return fmt.Errorf("writing the queue's mark: %w", err)
	}
	return nil
}

// noteLogs changes the list of value-log files.
func (m *mark) noteLogs(change func(logs map[int]logNote)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.logs)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(m.logs)))
	for _, n := range slices.Sorted(maps.Keys(m.logs)) {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		b = binary.BigEndian.AppendUint64(b, uint64(m.logs[n].size))
		b = append(b, bitIf(m.logs[n].lost, 1))
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := m.f.WriteAt(b, logsOffset); err != nil {
		return fmt.Errorf("writing the queue's mark: %w", err)
	}
	return nil
}

// written notes that the value-log file with that number has something in it.
func (m *mark) written(n int) error {
	m.mu.Lock()
	_, known := m.logs[n]
	m.mu.Unlock()
	if known {
		return nil
	}
	return m.noteLogs(func(logs map[int]logNote) { logs[n] = logNote{size: 1} })
}

// finished notes the length of a value-log file that is not written to any more.
func (m *mark) finished(n int, size int64) error {
	return m.noteLogs(func(logs map[int]logNote) {
		if old, known := logs[n]; known && !old.lost {
			logs[n] = logNote{size: size}
		}
	})
}

// forget takes a value-log file off the list for good, before it is deleted.
func (m *mark) forget(n int) error {
	if err := m.noteLogs(func(logs map[int]logNote) { delete(logs, n) }); err != nil {
		return err
	}
	return m.sync()
}

func (m *mark) sync() error {
	if err := m.f.Sync(); err != nil {
		return fmt.Errorf("writing the queue's mark: %w", err)
	}
	return nil
}

// closed notes that the store was closed in order: from now on its files are known exactly.
func (m *mark) closed(logs map[int]int64) error {
	w := m.last
	var err error
	if w.manifest, w.sum, err = manifestSum(m.dir); err != nil {
		return err
	}
	w.clean = true
	err = m.noteLogs(func(notes map[int]logNote) { adopt(notes, logs) })
	if err == nil {
		err = m.sync() // what the slot says of the logs must be there first
	}
	if err == nil {
		err = m.note(w)
	}
	if err == nil {
		err = m.sync()
	}
	return err
}

// adopt makes the notes those of files of these lengths. What was lost stays told.
func adopt(notes map[int]logNote, sizes map[int]int64) {
	maps.DeleteFunc(notes, func(n int, l logNote) bool { _, there := sizes[n]; return !there && !l.lost })
	for n, size := range sizes {
		if !notes[n].lost {
			notes[n] = logNote{size: size}
		}
	}
}

func (m *mark) close() {
	if m != nil && m.f != nil {
		m.f.Close()
	}
}

func manifestSum(dir string) (size int64, sum uint32, err error) {
	b, err := os.ReadFile(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return 0, 0, err
	}
	return int64(len(b)), crc32.Checksum(b, castagnoli), nil
}
