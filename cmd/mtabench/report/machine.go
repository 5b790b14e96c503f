//go:build linux

package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Describe tells of this machine. dir is on the disk that the peers write to; it has to exist.
func Describe(dir string) (*Machine, error) {
	m := &Machine{
		Time: time.Now().UTC().Format("2006-01-02 15:04 MST"), CPU: processor(), Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	m.FileSystem = fileSystem(dir)
	var err error
	m.SyncMS, err = syncTime(dir)
	return m, err
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// fileSystem finds the mount that dir is on (proc_pid_mountinfo(5)).
func fileSystem(dir string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "unknown file system"
	}
	best, found := "", "unknown file system"
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - ")
		words, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(words) < 6 || len(kind) < 3 {
			continue
		}
		if at := words[4]; below(dir, at) && len(at) >= len(best) {
			best, found = at, fmt.Sprintf("%s on %s (%s)", kind[0], kind[1], kind[2])
		}
	}
	return found
}

func below(dir, mount string) bool {
	rel, err := filepath.Rel(mount, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// syncTime is the median time of an append of 4 KiB and fsync, in milliseconds.
func syncTime(dir string) (ms float64, err error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4096)
	var times []float64
	for range 200 {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(start).Microseconds())/1000)
	}
	return Median(times), nil
}
