package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	memSuffix = ".mem"
	logSuffix = ".vlog"
)

// watch notices when Badger begins a new log file. The entry of a new file in its directory has to reach the disk before
// what is in the file counts as stored, and Badger does not see to it; and the kernel wants advice on a new map.
type watch struct {
	dir     string
	mem     int // number of the newest memory table's log
	log     int // number of the newest value-log file
	nextMem string
	nextLog string
}

// watchFiles begins with the files that are in dir now.
func watchFiles(dir string) (*watch, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	w := &watch{dir: dir}
	for _, e := range entries {
		w.mem = max(w.mem, number(e.Name(), memSuffix))
		w.log = max(w.log, number(e.Name(), logSuffix))
	}
	w.name()
	return w, w.settle()
}

func number(name, suffix string) int {
	base, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(base)
	if err != nil {
		return 0
	}
	return n
}

func memName(n int) string { return fmt.Sprintf("%05d%s", n, memSuffix) }
func logName(n int) string { return fmt.Sprintf("%06d%s", n, logSuffix) }

func (w *watch) name() {
	w.nextMem = filepath.Join(w.dir, memName(w.mem+1))
	w.nextLog = filepath.Join(w.dir, logName(w.log+1))
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
		w.log++
		changed = true
		w.name()
	}
	if !changed {
		return nil
	}
	return w.settle()
}

// settle syncs the directory and advises the kernel on the newest files.
func (w *watch) settle() error {
	if err := syncDir(w.dir); err != nil {
		return err
	}
	// Advice is only for speed: without it all is as safe.
	_ = adviseMaps(w.dir, map[string]bool{memName(w.mem): true, logName(w.log): true})
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
