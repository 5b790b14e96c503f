package queue

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

// diskFree returns how many bytes an ordinary user may still write to the disk of dir.
func diskFree(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Frsize, nil
}

// reserve makes f so large that its blocks are taken, not only promised.
func reserve(f *os.File, size int64) error { return syscall.Fallocate(int(f.Fd()), 0, 0, size) }

// owner returns who owns a file.
func owner(info os.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

// adviseMaps tells the kernel how the files under dir that this process has mapped are used: one that is being written
// to at random, the others in order. Without it, the kernel reads and writes back whole read-ahead windows around each
// small write, many times the payload (research/dependencies.md 2.3). It also forgets the maps of what is not written any more.
func adviseMaps(dir string, written map[string]bool) error {
	return eachMap(dir, func(name, where string) error {
		if strings.HasSuffix(name, badgerfiles.TableSuffix) {
			return forget(where)
		}
		if written[name] {
			return advise(where, syscall.MADV_RANDOM)
		}
		if err := advise(where, syscall.MADV_NORMAL); err != nil || strings.HasSuffix(name, badgerfiles.MemSuffix) {
			return err
		}
		return forget(where)
	})
}

// forgetMaps gives back the memory of the value log and the tables under dir that this process has mapped, where a long queue would
// be all in memory.
func forgetMaps(dir string) error {
	return eachMap(dir, func(name, where string) error {
		if strings.HasSuffix(name, badgerfiles.MemSuffix) {
			return nil
		}
		return forget(where)
	})
}

// eachMap calls fn for every file of the store under dir that this process has mapped.
func eachMap(dir string, fn func(name, where string) error) error {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 7f0a00000000-7f0a00800000 rw-s 00000000 fd:00 1234   /var/lib/mta/queue/00001.mem
		where, rest, _ := strings.Cut(lines.Text(), " ")
		i := strings.Index(rest, dir+"/")
		if i < 0 {
			continue
		}
		name := rest[i+len(dir)+1:]
		switch filepath.Ext(name) {
		case badgerfiles.MemSuffix, badgerfiles.LogSuffix, badgerfiles.TableSuffix:
			if err := fn(name, where); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// forget gives back the memory of a map. Badger may have unmapped the file a moment ago, and what is mapped there now may be the
// memory of this program: MADV_DONTNEED would make that zero, and this is harmless. Linux has it since 5.4.
func forget(where string) error {
	err := advise(where, unix.MADV_PAGEOUT)
	if errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

func advise(where string, advice int) error {
	from, to, _ := strings.Cut(where, "-")
	start, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return err
	}
	end, err := strconv.ParseUint(to, 16, 64)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_MADVISE, uintptr(start), uintptr(end-start), uintptr(advice))
	if errno != 0 && errno != syscall.ENOMEM { // unmapped meanwhile
		return errno
	}
	return nil
}
