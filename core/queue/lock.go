package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// lockName is the file whose lock says that a process has the queue. Badger has a lock of its own, but takes it later
// than the repairs that must come before Badger.
const lockName = "queue.lock"

type dirLock struct {
	dir string
	f   *os.File
}

// lockDir locks the directory: shared among those that read, or for this process alone.
func lockDir(dir string, shared bool) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the queue in %s belongs to another user: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the queue: %w", err)
	}
	l := &dirLock{dir, f}
	if err := l.take(shared); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// take takes the lock, or changes it.
func (l *dirLock) take(shared bool) error {
	ok, err := flock(l.f, shared)
	if err != nil {
		return fmt.Errorf("locking the queue in %s: %w", l.dir, err)
	}
	if !ok {
		return l.inUse()
	}
	if err := l.f.Truncate(0); err != nil { // whoever was named there is gone
		return fmt.Errorf("locking the queue: %w", err)
	}
	if shared {
		return nil
	}
	if _, err := l.f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("locking the queue: %w", err)
	}
	return nil
}

// inUse says who has the lock.
func (l *dirLock) inUse() error {
	pid, err := io.ReadAll(io.NewSectionReader(l.f, 0, 20))
	if err != nil || len(pid) == 0 {
		return fmt.Errorf("%w: somebody is reading the queue in %s", ErrLocked, l.dir)
	}
	return fmt.Errorf("%w: another mta is running on %s (pid %s)", ErrLocked, l.dir, strings.TrimSpace(string(pid)))
}

// release gives the lock up. A nil lock is none.
func (l *dirLock) release() {
	if l != nil {
		unlock(l.f) // a process that is being forked may hold the descriptor a little longer than we do
		l.f.Close()
	}
}
