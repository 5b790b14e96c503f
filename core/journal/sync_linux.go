package journal

import (
	"errors"
	"os"
	"syscall"
)

// syncData syncs the content of a file, and its size where that has changed.
func syncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
