// Package badgerfiles reads the files of a Badger store without Badger, to find damage before Badger makes it worse.
//
// Badger ends the process over some damaged tables and goes on without others; takes the first bad entry of a log for what
// a crash left, and throws away all that follows; and deletes the tables that a manifest does not name, also when the
// manifest was cut off. Check and ReadMem find that before it happens; Salvage and WriteManifest make of what is
// left a store that Badger opens. Every failure is a Damage, which names the file and the place; nothing is written but by
// the functions whose names say so, and only while no process has the store open.
package badgerfiles

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The names of files end in these.
const (
	MemSuffix   = ".mem"  // the log of a memory table
	LogSuffix   = ".vlog" // a file of the value log
	TableSuffix = ".sst"
)

// HeaderLength is the length of what stands before the first entry of a log file: a key ID and an IV.
const HeaderLength = 20

// MemName returns the name of a memory table's log.
func MemName(n int) string { return fmt.Sprintf("%05d%s", n, MemSuffix) }

// LogName returns the name of a value-log file.
func LogName(n int) string { return fmt.Sprintf("%06d%s", n, LogSuffix) }

// TableName returns the name of a table.
func TableName(id uint64) string { return fmt.Sprintf("%06d%s", id, TableSuffix) }

// Number returns the number in the name of a file with that suffix, or 0.
func Number(name, suffix string) int {
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

// List returns the numbers of the files in dir with that suffix, in their order.
func List(dir, suffix string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		if n := Number(e.Name(), suffix); n > 0 && !e.IsDir() {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Damage is what is wrong with one file.
type Damage struct {
	Path   string
	Offset int64 // of the damage in the file; -1 when it is the file as a whole
	Err    error
}

func (d *Damage) Error() string {
	if d.Offset < 0 {
		return fmt.Sprintf("%s: %v", d.Path, d.Err)
	}
	return fmt.Sprintf("%s at offset %d: %v", d.Path, d.Offset, d.Err)
}

// Unwrap returns why.
func (d *Damage) Unwrap() error { return d.Err }

// Name returns the file's name in its directory.
func (d *Damage) Name() string { return filepath.Base(d.Path) }
