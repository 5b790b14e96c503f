package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxRunDir is the longest name of a run directory: a socket's whole path has at most 108 bytes, and below it come
// /room-0123456789/plugin-dir0123456789/plugin0123456789.
const maxRunDir = 50

// room is a directory for the sockets of one plugin. It is locked while its server lives, so that the next server can
// tell a dead one's room and clear it away.
type room struct {
	dir  string
	lock *os.File
}

// newRoom clears away the rooms of dead servers and makes one. Who, if not nil, may pass through to what is given to it
// inside; the room itself stays ours, so that we never follow what another has put there.
func newRoom(runDir string, who *account) (*room, error) {
	runDir = shortDir(runDir)
	if err := ownDir(runDir); err != nil {
		return nil, err
	}
	if who != nil {
		if err := who.through(runDir); err != nil {
			return nil, err
		}
	}
	gate, err := lockFile(filepath.Join(runDir, "lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	sweep(runDir)
	dir, err := os.MkdirTemp(runDir, "room-")
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && who != nil {
		err = who.through(dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &room{dir, lock}, nil
}

// shortDir returns the run directory, or one whose name is short enough for the paths of sockets below it.
func shortDir(runDir string) string {
	own := fmt.Sprintf("mta-%d", os.Geteuid())
	for _, dir := range []string{runDir, filepath.Join(os.TempDir(), own)} {
		if dir != "" && len(dir) <= maxRunDir {
			return dir
		}
	}
	return filepath.Join("/tmp", own)
}

// ownDir makes a directory that nobody else may list or change.
func ownDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return hint(fmt.Errorf("the run directory %s belongs to somebody else", dir), "give the server a run directory of its own")
	}
	if info.Mode().Perm()&0o066 == 0 {
		return nil // passing through is for plugins that run as another user
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return hint(fmt.Errorf("others may enter the run directory %s: %w", dir, err), "chmod 700 %s", dir)
	}
	return nil
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes rooms whose lock nobody holds, and ends what is left of their processes.
func sweep(runDir string) {
	entries, err := os.ReadDir(runDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "room-") {
			continue
		}
		dir := filepath.Join(runDir, e.Name())
		lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue
		}
		killMarked(marksIn(dir)) // what its plugins have started lives on when a server is killed
		os.RemoveAll(dir)
		lock.Close()
	}
}

func (r *room) close() {
	os.RemoveAll(r.dir)
	r.lock.Close()
}

// clear removes what a process has left behind.
func (r *room) clear() {
	left, _ := filepath.Glob(filepath.Join(r.dir, "plugin-dir*"))
	for _, dir := range left {
		os.RemoveAll(dir)
	}
}
