package trial

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fill makes a file that leaves so many bytes of its disk free at most, and reports whether one was made.
func fill(name string, left int64) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(name), &st); err != nil {
		return false
	}
	n := int64(st.Bavail)*st.Frsize - left
	if n <= 0 {
		return false
	}
	f, err := os.Create(name)
	if err != nil {
		return false
	}
	defer f.Close()
	for n > 0 && unix.Fallocate(int(f.Fd()), 0, 0, n) != nil { // what the file system needs for itself is not to be had
		n -= 64 << 10
	}
	return true
}
