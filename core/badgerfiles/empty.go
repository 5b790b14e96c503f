package badgerfiles

import (
	"os"
	"path/filepath"
	"strings"
)

// DropEmpty removes log files that were created a moment before the server died and hold not a byte. Badger refuses to
// open a store with such a file.
func DropEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), MemSuffix) && !strings.HasSuffix(e.Name(), LogSuffix) {
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

// keyIDLength is the length of the number of a key at the start of a log file: 0, since nothing is encrypted.
const keyIDLength = 8

// HasKeyID reports that a log file names a key, which is damage: Badger does not open a store with such a file.
func HasKeyID(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [keyIDLength]byte
	_, err = f.ReadAt(b[:], 0)
	return err == nil && b != [keyIDLength]byte{}
}

// ClearKeyIDs takes the numbers of keys that damage has put there from the log files in dir. Nothing else is in those bytes.
func ClearKeyIDs(dir string) error {
	for _, suffix := range []string{MemSuffix, LogSuffix} {
		paths, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if !HasKeyID(path) {
				continue
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(make([]byte, keyIDLength), 0)
			f.Close()
			if err != nil {
				return err
			}
		}
	}
	return nil
}
