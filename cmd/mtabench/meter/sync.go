//go:build linux

package meter

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tracing is where tracefs is mounted.
const Tracing = "/sys/kernel/tracing"

// syncEvent is the trace point that a file system passes at every fsync, fdatasync, synchronous msync and write with
// O_SYNC. Counting there costs nothing at any other call.
func syncEvent(fs *unix.Statfs_t) string {
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4/ext4_sync_file_enter"
	case unix.XFS_SUPER_MAGIC:
		return "xfs/xfs_file_fsync"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs/btrfs_sync_file"
	default:
		return ""
	}
}

// SyncsOn says how syncs are counted on the file system of dir, or why they can't be.
func SyncsOn(dir string) (event, problem string) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", err.Error()
	}
	if event = syncEvent(&st); event == "" {
		return "", "the file system of " + dir + " is none of ext4, xfs and btrfs"
	}
	if _, err := os.Stat(filepath.Join(Tracing, "events", event, "id")); err != nil {
		return "", "tracefs is not there: " + err.Error()
	}
	return event, ""
}

// syncCounter counts the syncs of a group, with one counter on each CPU.
type syncCounter struct{ fds []int }

func countSyncs(g *Group, dir string) *syncCounter {
	event, problem := SyncsOn(dir)
	if problem != "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(Tracing, "events", event, "id"))
	if err != nil {
		return nil
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil
	}
	group, err := os.Open(g.dir)
	if err != nil {
		return nil
	}
	defer group.Close()
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}
	attr.Size = uint32(unsafe.Sizeof(attr))
	c := &syncCounter{}
	for cpu := range runtime.NumCPU() {
		fd, err := unix.PerfEventOpen(&attr, int(group.Fd()), cpu, -1, unix.PERF_FLAG_PID_CGROUP|unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			c.stop()
			return nil
		}
		c.fds = append(c.fds, fd)
	}
	return c
}

// stop returns the count; -1 when there was none.
func (c *syncCounter) stop() int64 {
	if c == nil {
		return -1
	}
	var sum int64
	for _, fd := range c.fds {
		var count [8]byte
		if n, err := unix.Read(fd, count[:]); err == nil && n == len(count) {
			sum += int64(binary.NativeEndian.Uint64(count[:]))
		}
		_ = unix.Close(fd) // it only counted
	}
	return sum
}
