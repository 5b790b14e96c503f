package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

// watch notices when Badger begins a new log file. The entry of a new file in its directory has to reach the disk before
// what is in the file counts as stored, and Badger does not see to it; and the kernel wants advice on a new map.
type watch struct {
	dir     string
	mark    *mark
	mem     int // number of the newest memory table's log
	log     int // number of the newest value-log file
	nextMem string
	nextLog string
}

// watchFiles begins with the files that are in dir now.
func watchFiles(dir string, m *mark) (*watch, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	w := &watch{dir: dir, mark: m}
	for _, e := range entries {
		w.mem = max(w.mem, badgerfiles.Number(e.Name(), badgerfiles.MemSuffix))
		w.log = max(w.log, badgerfiles.Number(e.Name(), badgerfiles.LogSuffix))
	}
	w.name()
	return w, w.settle()
}

func (w *watch) name() {
	w.nextMem = filepath.Join(w.dir, badgerfiles.MemName(w.mem+1))
	w.nextLog = filepath.Join(w.dir, badgerfiles.LogName(w.log+1))
}

// check is called after each commit and before anybody hears of it.
func (w *watch) check() error {
	changed := false
	for exists(w.nextMem) {
		w.mem++
		changed = true
		w.name()
	}
	for exists(w.nextLog) {
		if err := w.finished(); err != nil {
			return err
		}
		w.log++
		changed = true
		w.name()
	}
	if !changed {
		return nil
	}
	return w.settle()
}

// finished notes the length that the newest value-log file had at its end.
func (w *watch) finished() error {
	info, err := os.Stat(filepath.Join(w.dir, badgerfiles.LogName(w.log)))
	if errors.Is(err, fs.ErrNotExist) { // a clean-up was quick
		return nil
	}
	if err != nil {
		return err
	}
	return w.mark.finished(w.log, info.Size())
}

// logSizes returns the lengths of the value-log files that have something in them.
func logSizes(dir string) (map[int]int64, error) {
	list, err := badgerfiles.List(dir, badgerfiles.LogSuffix)
	if err != nil {
		return nil, err
	}
	sizes := map[int]int64{}
	for _, n := range list {
		info, err := os.Stat(filepath.Join(dir, badgerfiles.LogName(n)))
		if err != nil {
			return nil, err
		}
		if info.Size() > badgerfiles.HeaderLength {
			sizes[n] = info.Size()
		}
	}
	return sizes, nil
}

// settle syncs the directory and advises the kernel on the newest files.
func (w *watch) settle() error {
	if err := syncDir(w.dir); err != nil {
		return err
	}
	// Advice is only for speed: without it all is as safe.
	_ = adviseMaps(w.dir, map[string]bool{badgerfiles.MemName(w.mem): true, badgerfiles.LogName(w.log): true})
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing the queue's directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing the queue's directory: %w", err)
	}
	return nil
}
