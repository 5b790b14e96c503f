package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
	"github.com/pabal-mta/mta/sdk/mail"
)

// CheckOptions say what CheckStore may do.
type CheckOptions struct {
	Repair bool // change the store; without it nothing is written but in a temporary directory
	// Quarantine keeps a damaged message where a person can look at it, before a repair takes it from the queue. The
	// record holds the ID alone when it can't be read; the content is what can be read of it.
	Quarantine func(rec *Record, content mail.Content, damage error) error
}

// CheckReport is what CheckStore found.
type CheckReport struct {
	Checked
	Files    []string         // what is damaged of the store's files
	Repaired []string         // what was done about it, or would be
	Lost     []DamagedMessage // that are damaged, and were put in quarantine if there was a repair
	Missing  int64            // messages, at the least, that were added and never removed and are not there
}

// DamagedMessage is a message of which something can't be read.
type DamagedMessage struct {
	Record *Record // the ID alone when the rest can't be read
	Damage error
}

// Sound reports that nothing is wrong.
func (r *CheckReport) Sound() bool {
	return len(r.Files) == 0 && len(r.Lost) == 0 && r.Missing == 0 && r.Damaged == 0
}

// CheckStore proves every file, every record and every content of the queue in dir, while no server runs. With a repair it
// makes of what is good a store that opens: good entries of damaged files are kept, damaged files moved away, damaged
// messages put in quarantine, and what is missing is accepted, so that the next start does not tell it again. Without a
// repair it does the same to a copy, so that its report says what a repair would do.
func CheckStore(ctx context.Context, dir string, o CheckOptions) (*CheckReport, error) {
	dir, err := existing(dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir, !o.Repair)
	if err != nil {
		return nil, err
	}
	defer lock.release()
	work := dir
	if !o.Repair {
		if work, err = os.MkdirTemp("", "mta-queue-check-"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(work)
		if err := imitate(dir, work); err != nil {
			return nil, err
		}
		o.Quarantine = nil
	}
	r, err := checkStore(ctx, work, o)
	if o.Repair {
		err = errors.Join(err, giveToOwner(dir))
	}
	if r != nil && work != dir {
		r.rename(work, dir)
	}
	return r, err
}

// rename puts the name of the queue's directory in the place of the copy's.
func (r *CheckReport) rename(from, to string) {
	for _, list := range [][]string{r.Files, r.Repaired} {
		for i := range list {
			list[i] = string(bytes.ReplaceAll([]byte(list[i]), []byte(from), []byte(to)))
		}
	}
}

// imitate makes a directory that looks like that of the queue. Badger writes to and deletes all but the older files of the
// value log, so these alone are links: they may be large.
func imitate(from, to string) error {
	logs, err := badgerfiles.List(from, badgerfiles.LogSuffix)
	if err != nil {
		return err
	}
	newest := ""
	if len(logs) > 0 {
		newest = badgerfiles.LogName(logs[len(logs)-1])
	}
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		at, name := filepath.Join(to, rel), e.Name()
		switch {
		case rel == ".", name == lockName, name == "LOCK", name == ballastName:
			return nil
		case e.IsDir() && rel == brokenName:
			return fs.SkipDir
		case e.IsDir():
			return os.Mkdir(at, 0o700)
		case filepath.Ext(name) == badgerfiles.LogSuffix && name != newest && info.Size() > badgerfiles.HeaderLength && !badgerfiles.HasKeyID(path):
			return os.Symlink(path, at)
		}
		return copySparse(path, at)
	})
}

// copySparse copies a file but for the zeros at its end.
func copySparse(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, bytes.TrimRight(b, "\x00"), 0o600); err != nil {
		return err
	}
	return os.Truncate(to, int64(len(b)))
}

func checkStore(ctx context.Context, dir string, o CheckOptions) (*CheckReport, error) {
	s := &salvage{dir: dir, broken: filepath.Join(dir, brokenName)}
	var err error
	if s.mark, err = openMark(dir, os.O_RDWR); err != nil {
		return nil, err
	}
	r := &CheckReport{}
	err = s.files()
	if err == nil && s.mark.f != nil {
		err = errors.Join(s.mark.note(waterline{tally: s.mark.last.tally}), s.mark.sync()) // the manifest may be another now
	}
	marked := s.mark.last.tally
	s.mark.close()
	if err == nil {
		err = s.applySaved()
	}
	if err == nil {
		err = r.messages(ctx, s, marked, o)
	}
	r.Files, r.Repaired = append(s.damage, r.Files...), append(s.done, r.Repaired...)
	return r, err
}

// messages opens the store and reads all messages in it.
func (r *CheckReport) messages(ctx context.Context, s *salvage, marked tally, o CheckOptions) error {
	q, is, err := openRepaired(ctx, s.dir)
	if err != nil {
		return err
	}
	if q.lacks(is, marked).differs() && len(s.spare) > 0 {
		err = s.bringBack(ctx, q)
		if err = errors.Join(err, q.Close()); err != nil {
			return err
		}
		if q, is, err = openRepaired(ctx, s.dir); err != nil {
			return err
		}
	}
	r.Missing = q.lacks(is, marked).missing()
	err = r.damaged(ctx, q, o)
	if err == nil {
		err = q.acceptAll(ctx, marked)
	}
	if aside := filepath.Join(s.dir, asideName); err == nil && exists(aside) {
		if r.Missing == 0 {
			err = os.RemoveAll(aside)
		} else {
			err = s.putAway(aside)
		}
	}
	return errors.Join(err, q.Close())
}

// openRepaired opens the store for the repair, and counts the messages in it. What the mark says of it keeps it from
// nothing.
func openRepaired(ctx context.Context, dir string) (*Queue, tally, error) {
	in, err := mend(dir)
	if err != nil {
		return nil, tally{}, err
	}
	in.accepting = true
	q, err := start(Options{MinFree: -1}, newGuard(-1, nil), in)
	if err != nil {
		return nil, tally{}, err
	}
	err = q.Recover(ctx, func(*Record) error { return nil })
	var is tally
	if err == nil {
		is, err = q.present(ctx, nil)
	}
	if err != nil {
		return nil, tally{}, errors.Join(err, q.Close())
	}
	return q, is, nil
}

// present counts the messages that are there, and notes their IDs.
func (q *Queue) present(ctx context.Context, ids map[ID]bool) (tally, error) {
	var is tally
	err := q.each(ctx, func(rec *Record, _ error) error {
		is.added++
		is.set ^= token(rec.ID)
		if ids != nil {
			ids[rec.ID] = true
		}
		return nil
	})
	return is, err
}

// lacks is by how much the messages that are there differ from those that should be: as the store says, or the mark when
// that knows of more.
func (q *Queue) lacks(is, marked tally) found {
	should := q.was
	if marked.groups > should.groups {
		should = marked
	}
	if q.adopted {
		return found{}
	}
	return found{count: is.live() - should.live(), set: is.set ^ should.set}
}

// damaged finds the messages that can't be read, and puts them in quarantine.
func (r *CheckReport) damaged(ctx context.Context, q *Queue, o CheckOptions) error {
	checked, err := q.Check(ctx, func(rec *Record, damage error) error {
		r.Lost = append(r.Lost, DamagedMessage{rec, damage})
		return nil
	})
	r.Checked = checked
	if err == nil {
		err = r.withoutRecord(q)
	}
	if err != nil || !o.Repair {
		return err
	}
	for _, m := range r.Lost {
		if o.Quarantine != nil {
			if err := o.Quarantine(m.Record, q.remains(m.Record), m.Damage); err != nil {
				return fmt.Errorf("putting %s in quarantine: %w", m.Record.ID, err)
			}
		}
		if err := q.discard(ctx, m.Record.ID); err != nil {
			return err
		}
	}
	return nil
}

// withoutRecord finds contents whose record is gone: of who was to get them nothing is known.
func (r *CheckReport) withoutRecord(q *Queue) error {
	return q.view(func(txn *badger.Txn) error {
		return each(txn, keyContent, func(item *badger.Item) error {
			id := keyID(item.Key())
			_, err := txn.Get(idKey(keyRecord, id))
			if errors.Is(err, badger.ErrKeyNotFound) {
				r.Lost = append(r.Lost, DamagedMessage{&Record{ID: id}, fmt.Errorf("%w: %s: its envelope is gone", ErrDamaged, id)})
				return nil
			}
			return err
		})
	})
}

// discard removes a message, and a content without one.
func (q *Queue) discard(ctx context.Context, id ID) error {
	done := make(chan error, 1)
	q.Delete(id, func(err error) { done <- err })
	err := <-done
	if errors.Is(err, ErrNotFound) {
		return q.do(ctx, &op{drops: [][]byte{idKey(keyContent, id)}}, true)
	}
	return err
}

// remains returns what can be read of a damaged content; what can't is left out.
func (q *Queue) remains(rec *Record) mail.Content {
	var b []byte
	_ = q.view(func(txn *badger.Txn) error { // what can't be read is what this is about
		keys := contentKeys(rec.ID, rec.Size)
		if rec.Size == 0 {
			keys = append(keys, idKey(keyContent, rec.ID))
			for n := range int64(1 << 12) {
				keys = append(keys, chunkKey(rec.ID, n))
			}
		}
		for _, key := range keys {
			item, err := txn.Get(key)
			if err != nil {
				continue
			}
			if part, err := item.ValueCopy(nil); err == nil {
				b = append(b, part...)
			}
		}
		return nil
	})
	return mail.Bytes(b)
}

// acceptAll makes the tally agree with what is there, and forgets what is known to be lost.
func (q *Queue) acceptAll(ctx context.Context, marked tally) error {
	is, err := q.present(ctx, nil)
	if err != nil {
		return err
	}
	// Nothing is being committed, so the tally can be read.
	f := found{count: is.live() - q.tally.live(), set: is.set ^ q.tally.set, groups: marked.groups, highest: marked.highest}
	if err := q.do(ctx, &op{accept: &f}, true); err != nil {
		return err
	}
	return q.mark.noteLogs(func(notes map[int]logNote) {
		maps.DeleteFunc(notes, func(_ int, note logNote) bool { return note.lost })
	})
}
