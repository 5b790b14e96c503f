package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
	"github.com/pabal-mta/mta/core/journal"
)

// salvage makes of the files of a damaged store some that Badger opens, with all entries that are good. What it replaces it
// moves into a directory of its own.
type salvage struct {
	dir    string
	broken string // where damaged files go
	mark   *mark
	damage []string // what was found
	done   []string // and what was done
	spare  []badgerfiles.Entry
	saved  []journal.Saved // of a damaged journal
}

// brokenName is the directory in that of the queue into which damaged files are moved by a repair.
const brokenName = "broken"

func (s *salvage) found(err error) { s.damage = append(s.damage, err.Error()) }
func (s *salvage) did(format string, args ...any) {
	s.done = append(s.done, fmt.Sprintf(format, args...))
}

// files repairs everything that must be sound before Badger sees it.
func (s *salvage) files() error {
	if err := badgerfiles.DropEmpty(s.dir); err != nil {
		return err
	}
	if err := s.tables(); err != nil {
		return err
	}
	if err := s.mems(); err != nil {
		return err
	}
	if err := s.journal(); err != nil {
		return err
	}
	return s.logs()
}

// journal takes what can be read of a damaged journal out of it.
func (s *salvage) journal() error {
	_, err := journal.Empty(s.dir)
	if err == nil {
		var j *journal.Journal
		if j, err = journal.Open(s.dir); err == nil {
			err = errors.Join(j.Replay(func(journal.Change) error { return nil }), j.Close())
		}
	}
	if !errors.Is(err, journal.ErrDamaged) {
		return err
	}
	s.found(err)
	if s.saved, err = journal.Salvage(s.dir); err != nil {
		return err
	}
	s.did("the journal moved to %s, and %d changes of it put into the store", s.broken, len(s.saved))
	for _, name := range journal.Names() {
		if path := filepath.Join(s.dir, name); exists(path) {
			if err := s.putAway(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// applySaved puts the changes of a damaged journal into the store.
func (s *salvage) applySaved() error {
	if len(s.saved) == 0 {
		return nil
	}
	db, err := openBadger(storeOptions(s.dir, nil))
	if err != nil {
		return err
	}
	for _, c := range s.saved {
		err := db.Update(func(txn *badger.Txn) error {
			if c.Remove {
				return txn.Delete(c.Key)
			}
			return txn.Set(c.Key, c.Value)
		})
		if err != nil {
			return errors.Join(err, db.Close())
		}
	}
	s.saved = nil
	return db.Close()
}

// tables makes the manifest name all sound tables, and keeps the entries of the good blocks of the others.
func (s *salvage) tables() error {
	named, rebuild, err := s.named()
	if err != nil {
		return err
	}
	if err := s.keepUnnamed(named); err != nil {
		return err
	}
	var sound []uint64
	for _, id := range named {
		path := filepath.Join(s.dir, badgerfiles.TableName(id))
		entries, damage, err := badgerfiles.Salvage(path)
		if err != nil {
			return err
		}
		if len(damage) == 0 {
			sound = append(sound, id)
			continue
		}
		for _, d := range damage {
			s.found(d)
		}
		rebuild = true
		if !exists(path) {
			continue
		}
		if err := s.replace(path, entries); err != nil {
			return err
		}
	}
	if !rebuild {
		return nil
	}
	s.did("%s written anew, with %d tables", badger.ManifestFilename, len(sound))
	return badgerfiles.WriteManifest(s.dir, sound)
}

// named returns the tables of the store; all that there are when the manifest can't be believed.
func (s *salvage) named() (ids []uint64, rebuild bool, err error) {
	ids, err = badgerfiles.Tables(s.dir)
	if err == nil {
		in := &inspection{dir: s.dir, mark: s.mark}
		err = in.checkManifest()
	}
	if err == nil {
		var r *badgerfiles.Retraction
		if r, err = badgerfiles.Retracted(s.dir); err != nil || len(r.Gone) == 0 {
			return ids, false, err
		}
		if err := r.Write(s.dir); err != nil {
			return nil, false, err
		}
		s.did("%s set right: %d tables were taken back when its sync failed, and what they held stands elsewhere", badger.ManifestFilename, len(r.Gone))
		ids, err = badgerfiles.Tables(s.dir)
		return ids, false, err
	}
	var d *badgerfiles.Damage
	if !errors.As(err, &d) {
		return nil, false, err
	}
	s.found(d)
	if exists(d.Path) {
		if err := s.putAway(d.Path); err != nil {
			return nil, false, err
		}
	}
	list, err := badgerfiles.List(s.dir, badgerfiles.TableSuffix)
	for _, n := range list {
		ids = append(ids, uint64(n))
	}
	slices.Sort(ids)
	return slices.Compact(ids), true, err
}

// keepUnnamed moves the tables that no manifest names aside, those of earlier starts with them, and keeps their entries.
func (s *salvage) keepUnnamed(named []uint64) error {
	aside := filepath.Join(s.dir, asideName)
	list, err := badgerfiles.List(s.dir, badgerfiles.TableSuffix)
	if err != nil {
		return err
	}
	for _, n := range list {
		if slices.Contains(named, uint64(n)) {
			continue
		}
		name := badgerfiles.TableName(uint64(n))
		if err := os.MkdirAll(aside, 0o700); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(aside, name)); err != nil {
			return err
		}
	}
	if !exists(aside) {
		return nil
	}
	if list, err = badgerfiles.List(aside, badgerfiles.TableSuffix); err != nil {
		return err
	}
	for _, n := range list {
		entries, _, err := badgerfiles.Salvage(filepath.Join(aside, badgerfiles.TableName(uint64(n))))
		if err != nil {
			return err
		}
		s.spare = append(s.spare, entries...)
	}
	return nil
}

// mems replaces the logs of memory tables of which Badger would throw something away.
func (s *salvage) mems() error {
	list, err := badgerfiles.List(s.dir, badgerfiles.MemSuffix)
	if err != nil {
		return err
	}
	for _, n := range list {
		path := filepath.Join(s.dir, badgerfiles.MemName(n))
		m, err := badgerfiles.ReadMem(path)
		if d := new(badgerfiles.Damage); errors.As(err, &d) {
			s.found(d)
			err = s.replace(path, nil)
		}
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		d := m.Damaged()
		switch {
		case d != nil:
			s.found(fmt.Errorf("%w: %s", d, behind(m)))
		case !s.tornAndPromised(m):
			continue
		default:
			s.found(fmt.Errorf("%s at offset %d: the last group of changes is damaged", path, m.End))
		}
		if err := s.replace(path, m.Entries()); err != nil {
			return err
		}
	}
	return nil
}

// tornAndPromised reports that what looks like the tail of a crash is of a group that was committed.
func (s *salvage) tornAndPromised(m *badgerfiles.Mem) bool {
	if len(m.Behind) == 0 || s.mark.none {
		return false
	}
	known := uint64(0)
	for i := range m.Sound {
		if t, ok := tallyOf(&m.Sound[i]); ok {
			known = max(known, t.groups)
		}
	}
	return known < s.mark.last.groups
}

// logs looks at the value log. What of it is damaged stays as it is: each message in it is proved when it is read.
func (s *salvage) logs() error {
	in := &inspection{dir: s.dir, mark: s.mark, lost: map[int]string{}}
	if err := in.checkLogs(); err != nil {
		return err
	}
	list, err := badgerfiles.List(s.dir, badgerfiles.LogSuffix)
	if err != nil {
		return err
	}
	for i, n := range list {
		check := badgerfiles.CheckLog
		if i == len(list)-1 {
			check = badgerfiles.CheckNewestLog
		}
		err := check(filepath.Join(s.dir, badgerfiles.LogName(n)))
		if d := new(badgerfiles.Damage); errors.As(err, &d) {
			in.lost[n] = d.Error()
		} else if err != nil {
			return err
		}
	}
	s.damage = append(s.damage, slices.Sorted(values(in.lost))...)
	return nil
}

// replace moves a file away and writes its good entries into new logs of memory tables.
func (s *salvage) replace(path string, entries []badgerfiles.Entry) error {
	if len(entries) > 0 {
		if err := badgerfiles.WriteMems(s.dir, entries); err != nil {
			return err
		}
	}
	s.did("%s moved to %s, and the %d good entries of it written anew", filepath.Base(path), s.broken, len(entries))
	return s.putAway(path)
}

func (s *salvage) putAway(path string) error {
	if err := os.MkdirAll(s.broken, 0o700); err != nil {
		return err
	}
	to := filepath.Join(s.broken, filepath.Base(path))
	for i := 2; exists(to); i++ {
		to = filepath.Join(s.broken, fmt.Sprintf("%s.%d", filepath.Base(path), i))
	}
	if err := os.Rename(path, to); err != nil {
		return err
	}
	return errors.Join(syncDir(s.broken), syncDir(s.dir))
}

// bringBack writes the spare entries of messages that the queue neither has nor has removed into new logs of memory
// tables. The queue must be closed and opened again to find them.
func (s *salvage) bringBack(ctx context.Context, q *Queue) error {
	ids := map[ID]bool{}
	if _, err := q.present(ctx, ids); err != nil {
		return err
	}
	var gone *removals
	if err := q.view(func(txn *badger.Txn) (err error) {
		gone, err = loadRemovals(txn)
		return err
	}); err != nil {
		return err
	}
	var back []badgerfiles.Entry
	for i := range s.spare {
		e := &s.spare[i]
		id := keyID(e.Key)
		_, removed := slices.BinarySearch(gone.done, id)
		if id != 0 && slices.Contains([]byte{keyRecord, keyContent, keyChunk}, e.Key[0]) && !ids[id] && !removed {
			back = append(back, *e)
		}
	}
	if len(back) == 0 {
		return nil
	}
	s.did("%d entries taken from tables that no manifest names", len(back))
	return badgerfiles.WriteMems(s.dir, back)
}
