package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
	"github.com/pabal-mta/mta/core/journal"
)

// inspection is what the files of a store look like before Badger opens them.
type inspection struct {
	dir       string
	mark      *mark
	retracted *badgerfiles.Retraction
	unnamed   []uint64       // tables that no manifest names
	lost      map[int]string // files of the value log that are missing or too short, and why
	accepting bool           // it is opened to be repaired
	problems  []string       // what an operator has to know, but what keeps nobody from starting
}

// inspect looks at the files in dir, and writes nothing. Its error says why the store must not be opened as it is: a
// repair could still bring messages back, and Badger would make that impossible, or deliver again what was delivered.
func inspect(dir string, flag int) (*inspection, error) {
	mark, err := openMark(dir, flag)
	if err != nil {
		return nil, err
	}
	in := &inspection{dir: dir, mark: mark, lost: map[int]string{}}
	if err := in.look(); err != nil {
		mark.close()
		return nil, err
	}
	return in, nil
}

func (in *inspection) look() error {
	var err error
	if in.retracted, err = badgerfiles.Retracted(in.dir); err != nil {
		return damaged(err)
	}
	if err := badgerfiles.Check(in.dir, in.retracted); err != nil {
		return damaged(err)
	}
	if err := in.checkManifest(); err != nil {
		return err
	}
	if err := in.checkMems(); err != nil {
		return err
	}
	if err := in.checkLogs(); err != nil {
		return err
	}
	in.unnamed, err = badgerfiles.Unnamed(in.dir)
	return err
}

// checkManifest compares the manifest with the one that was there when the queue was closed. One that was cut off where a
// change of it ends looks like an older one, and Badger deletes what an older one does not name.
func (in *inspection) checkManifest() error {
	w := in.mark.last
	if !w.clean {
		return nil
	}
	path := filepath.Join(in.dir, badger.ManifestFilename)
	size, sum, err := manifestSum(in.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return damaged(&badgerfiles.Damage{Path: path, Offset: -1, Err: fmt.Errorf("it is gone, with the %d messages of the queue", w.live())})
	case err != nil:
		return err
	case size < w.manifest:
		return damaged(&badgerfiles.Damage{Path: path, Offset: size, Err: fmt.Errorf("it is cut off; it had %d bytes", w.manifest)})
	case size != w.manifest || sum != w.sum:
		return damaged(&badgerfiles.Damage{Path: path, Offset: -1, Err: errors.New("it is not the one that was there when the queue was closed")})
	}
	return nil
}

// checkMems reads the logs of the memory tables.
func (in *inspection) checkMems() error {
	list, err := badgerfiles.List(in.dir, badgerfiles.MemSuffix)
	if err != nil {
		return err
	}
	for _, n := range list {
		m, err := badgerfiles.ReadMem(filepath.Join(in.dir, badgerfiles.MemName(n)))
		if empty, _ := isEmpty(m, err); empty {
			continue
		}
		if err != nil {
			return damagedOr(err)
		}
		if d := m.Damaged(); d != nil {
			d.Err = fmt.Errorf("%w: %s", d.Err, behind(m))
			return damaged(d)
		}
	}
	return nil
}

// isEmpty reports that a log of a memory table holds not a byte: it was made a moment before the server died.
func isEmpty(m *badgerfiles.Mem, err error) (bool, error) {
	var d *badgerfiles.Damage
	if m == nil && errors.As(err, &d) && d.Offset == 0 {
		return true, nil
	}
	return false, err
}

// behind says what Badger would throw away of a log.
func behind(m *badgerfiles.Mem) string {
	before, known := tally{}, false
	for i := range m.Sound {
		if t, ok := tallyOf(&m.Sound[i]); ok && t.groups >= before.groups {
			before, known = t, true
		}
	}
	var last tally
	n := uint64(0)
	for i := range m.Behind {
		if t, ok := tallyOf(&m.Behind[i]); ok {
			n++
			last = t
		}
	}
	if n == 0 {
		return "how many messages it is about can't be told"
	}
	if !known {
		return fmt.Sprintf("%d groups of changes would be thrown away", n)
	}
	return fmt.Sprintf("%d groups of changes would be thrown away, with %d messages added and %d removed in them; of %d groups nothing sure is left",
		n, last.added-before.added, last.removed-before.removed, last.groups-before.groups-n)
}

// tallyOf returns the tally that an entry of a log holds.
func tallyOf(e *badgerfiles.Entry) (tally, bool) {
	if len(e.Key) != 1 || e.Key[0] != keyTally || e.Deletes() || e.Points() {
		return tally{}, false
	}
	return decodeTally(e.Value)
}

// checkLogs compares the files of the value log with what is known of them. Whatever is missing there, each message is
// proved when it is read, so that the others can go on.
func (in *inspection) checkLogs() error {
	for n, note := range in.mark.logs {
		path := filepath.Join(in.dir, badgerfiles.LogName(n))
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			in.lost[n] = fmt.Sprintf("%s: it is gone, and with it the contents of messages", path)
		case err != nil:
			return err
		case info.Size() < note.size:
			in.lost[n] = fmt.Sprintf("%s at offset %d: it is cut off; it had %d bytes or more", path, info.Size(), note.size)
		case note.lost:
			in.lost[n] = fmt.Sprintf("%s: it was found damaged at an earlier start", path)
		}
	}
	return nil
}

// behindMark returns an error when the store is older than its mark says: an end of its log is gone without a trace.
func (in *inspection) behindMark(is tally) error {
	w := in.mark.last
	if in.mark.none || w.groups <= is.groups {
		return nil
	}
	return damaged(fmt.Errorf("it is older than it was: the last %d groups of changes are gone, with %d messages added and %d removed in them, "+
		"up to message %s; a file of its journal, or a %s, was cut off or deleted, or an older copy was put there",
		w.groups-is.groups, w.added-is.added, w.removed-is.removed, w.highest, badgerfiles.MemSuffix))
}

// journalDamage makes an error of one of the journal.
func journalDamage(err error) error {
	if errors.Is(err, journal.ErrDamaged) {
		return damaged(err)
	}
	return err
}

// damaged makes an error of what keeps the queue from starting, with what can be done.
func damaged(err error) error { return storeDamage{err} }

func damagedOr(err error) error {
	if d := new(badgerfiles.Damage); errors.As(err, &d) {
		return damaged(err)
	}
	return err
}

type storeDamage struct{ err error }

func (d storeDamage) Error() string {
	return fmt.Sprintf("its files are damaged: %v\n"+
		"Put the file back if there is a copy. Otherwise `mta queue check` tells what is there and changes nothing, and\n"+
		"`mta queue check -repair` brings back what can be, names what can't, and lets the server start", d.err)
}

func (d storeDamage) Unwrap() error { return d.err }

// Is makes it ErrDamaged.
func (d storeDamage) Is(target error) bool { return target == ErrDamaged }
