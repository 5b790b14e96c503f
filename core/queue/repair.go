package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mend puts a directory right that a killed server left, where Badger can't do it by itself, and refuses one that Badger
// would make worse. The directory is locked.
func mend(dir string) error {
	if err := dropEmpty(dir); err != nil {
		return explain(dir, err)
	}
	if err := checkTables(dir); err != nil {
		return explain(dir, err)
	}
	if err := protectValueLog(dir); err != nil {
		return explain(dir, err)
	}
	return nil
}

// dropEmpty removes log files that were created a moment before the server died and hold not a byte. Badger refuses to
// open a store with such a file.
func dropEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), memSuffix) && !strings.HasSuffix(e.Name(), logSuffix) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// repair opens and closes the store of a server that was killed. What it makes there belongs to whom the directory
// belongs, so that an operator who looks as root does not lock the server out.
func repair(dir string) error {
	if err := mend(dir); err != nil {
		return err
	}
	db, err := openBadger(storeOptions(dir, nil))
	if err != nil {
		return explain(dir, err)
	}
	q := newQueue(db, Options{}, newGuard(-1, nil))
	err = errors.Join(q.begin(dir), q.fresh.close(), db.Close())
	if err != nil {
		return fmt.Errorf("repairing the queue in %s: %w", dir, err)
	}
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
