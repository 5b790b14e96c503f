package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

// asideName is the directory in that of the queue where tables are kept that no manifest names, until it is proved that
// nothing is missing without them.
const asideName = "aside"

// mend puts a directory right that a killed server left, where Badger can't do it by itself, and refuses one that Badger
// would make worse. The directory is locked.
func mend(dir string) (*inspection, error) {
	if err := badgerfiles.DropEmpty(dir); err != nil {
		return nil, explain(dir, err)
	}
	in, err := inspect(dir, os.O_RDWR)
	if err != nil {
		return nil, explain(dir, err)
	}
	if err := in.arrange(); err != nil {
		in.mark.close()
		return nil, explain(dir, err)
	}
	return in, nil
}

// arrange keeps from Badger's hands what it would delete or cut off.
func (in *inspection) arrange() error {
	if in.mark.last.clean { // Badger changes the manifest as soon as it has it
		if err := in.mark.note(waterline{tally: in.mark.last.tally}); err != nil {
			return err
		}
		if err := in.mark.sync(); err != nil {
			return err
		}
	}
	if err := in.retract(); err != nil {
		return err
	}
	if err := in.setAside(); err != nil {
		return err
	}
	if err := badgerfiles.ClearKeyIDs(in.dir); err != nil {
		return err
	}
	damage, err := badgerfiles.KeepNewestLog(in.dir)
	if err != nil {
		return err
	}
	if damage != nil {
		in.lost[badgerfiles.Number(damage.Name(), badgerfiles.LogSuffix)] = damage.Error()
	}
	if err := in.keepNumbers(); err != nil {
		return err
	}
	in.problems = append(in.problems, slices.Sorted(values(in.lost))...)
	return dropHints(in.dir)
}

func values(m map[int]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// retract notes in the manifest what Badger took back, so that it finds the tables as it left them.
func (in *inspection) retract() (err error) {
	if len(in.retracted.Gone) == 0 {
		return nil
	}
	if err := in.retracted.Write(in.dir); err != nil {
		return err
	}
	in.unnamed, err = badgerfiles.Unnamed(in.dir)
	return err
}

// setAside moves the tables that no manifest names out of Badger's sight.
func (in *inspection) setAside() error {
	if len(in.unnamed) == 0 {
		return nil
	}
	aside := filepath.Join(in.dir, asideName)
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	for _, id := range in.unnamed {
		name := badgerfiles.TableName(id)
		if err := os.Rename(filepath.Join(in.dir, name), filepath.Join(aside, name)); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(aside), syncDir(in.dir))
}

// keepNumbers sees to it that Badger gives no file of the value log the number of one that is gone: what pointed into
// that would point into the other.
func (in *inspection) keepNumbers() error {
	list, err := badgerfiles.List(in.dir, badgerfiles.LogSuffix)
	if err != nil {
		return err
	}
	newest, noted := 0, 0
	if len(list) > 0 {
		newest = list[len(list)-1]
	}
	for n := range in.lost {
		noted = max(noted, n)
	}
	if noted <= newest {
		return nil
	}
	return badgerfiles.PutEmptyLog(in.dir, noted)
}

// dropHints removes what Badger can do without, and would end the process over or refuse to open when it is damaged: its
// notes on garbage, which it finds again, and its keys, of which a store that is not encrypted has none.
func dropHints(dir string) error {
	discard := filepath.Join(dir, "DISCARD")
	if info, err := os.Stat(discard); err == nil && (info.Size() < 1<<20 || info.Size()%16 != 0) {
		if err := os.Remove(discard); err != nil {
			return err
		}
	}
	const length, text = 28, "Hello Badger" // an IV and a known text
	keys := filepath.Join(dir, badger.KeyRegistryFileName)
	b, err := os.ReadFile(keys)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == length && strings.HasSuffix(string(b), text) {
		return nil
	}
	if err == nil {
		err = os.Remove(keys)
	}
	return err
}

// repair opens and closes the store of a server that was killed. What it makes there belongs to whom the directory
// belongs, so that an operator who looks as root does not lock the server out.
func repair(dir string) error {
	in, err := mend(dir)
	if err != nil {
		return err
	}
	defer in.mark.close()
	db, err := openBadger(storeOptions(dir, nil))
	if err != nil {
		return explain(dir, err)
	}
	q := newQueue(db, Options{}, newGuard(-1, nil))
	err = errors.Join(q.begin(in), q.fresh.close(), db.Close())
	if err != nil {
		return fmt.Errorf("repairing the queue in %s: %w", dir, err)
	}
	return giveToOwner(dir)
}

// giveToOwner makes what is in a directory belong to whom the directory belongs.
func giveToOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, gid, ok := owner(info)
	if !ok || uid == os.Geteuid() {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// explain says in an operator's words why the store did not open.
func explain(dir string, err error) error {
	switch {
	case strings.Contains(err.Error(), "Cannot acquire directory lock"):
		return fmt.Errorf("%w: another program has the store in %s open", ErrLocked, dir)
	case errors.Is(err, fs.ErrPermission), strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("the queue in %s belongs to another user: %w", dir, err)
	}
	return fmt.Errorf("the queue in %s can't be opened: %w", dir, err)
}
