package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// The sizes of Badger's files. Small ones let it give space back soon and keep memory small; the figures are in
// research/dependencies.md 2.4 (C2).
const (
	memTableSize = 4 << 20
	valueLogSize = 32 << 20
)

// Open opens the queue in dir, or makes it, with mode 0700. Only one process may have it open: for another it returns
// ErrLocked and the words say which one has it. A store that was not closed is repaired.
func Open(dir string, o Options) (*Queue, error) {
	if o.InMemory {
		return open("", o, newGuard(-1, nil))
	}
	dir, err := prepare(dir)
	if err != nil {
		return nil, err
	}
	if err := makeRoom(dir, o); err != nil {
		return nil, err
	}
	if err := protectValueLog(dir); err != nil {
		return nil, explain(dir, err)
	}
	return open(dir, o, newGuard(o.MinFree, func() (int64, error) { return diskFree(dir) }))
}

// OpenReadOnly opens the queue in dir for Load and List, while no server runs. After a server that was killed it first
// repairs the store, as the next start of the server would, and so needs the right to write there.
func OpenReadOnly(dir string) (*Queue, error) {
	dir, err := existing(dir)
	if err != nil {
		return nil, err
	}
	if err := checkLock(dir, true); err != nil {
		return nil, err
	}
	db, err := openBadger(storeOptions(dir, nil).WithReadOnly(true))
	if err != nil && strings.Contains(err.Error(), badger.ErrTruncateNeeded.Error()) { // Badger does not wrap
		if err := repair(dir); err != nil {
			return nil, err
		}
		db, err = openBadger(storeOptions(dir, nil).WithReadOnly(true))
	}
	if err != nil {
		return nil, explain(dir, err)
	}
	q := newQueue(db, Options{}, newGuard(-1, nil))
	q.readOnly, q.stopping = true, false
	close(q.ended)
	return q, nil
}

func newQueue(db *badger.DB, o Options, disk *guard) *Queue {
	q := &Queue{db: db, log: o.Logger, fatal: o.Fatal, disk: disk, ended: make(chan struct{})}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	q.wake.L = &q.mu
	q.garbage.limit = padAfter
	q.cleaner = newCleaner(db, q.log, q.fail)
	return q
}

// open opens the store in a directory that is fit for it, or in memory, and starts the committer.
func open(dir string, o Options, disk *guard) (*Queue, error) {
	logger := &badgerLog{log: o.Logger}
	opts := storeOptions(dir, logger)
	if o.InMemory {
		opts = inMemoryOptions(logger)
	}
	db, err := openBadger(opts)
	if err != nil {
		return nil, explain(dir, err)
	}
	q := newQueue(db, o, disk)
	if err := q.begin(dir); err != nil {
		_ = db.Close()
		return nil, err
	}
	logger.attach(dir, q.fail)
	go q.commitAll()
	if !o.InMemory {
		q.cleaner.start()
	}
	return q, nil
}

// begin reads what the queue has to know of its store.
func (q *Queue) begin(dir string) error {
	err := q.db.View(func(txn *badger.Txn) error {
		var err error
		if q.highest, err = getID(txn, keyHighest); err != nil {
			return err
		}
		return each(txn, keyDone, func(item *badger.Item) error {
			q.marks.next = uint64(keyID(item.Key())) + 1
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("reading the queue in %s: %w", dir, err)
	}
	q.opened = q.highest
	q.ids.skip(q.highest)
	if dir == "" {
		return nil
	}
	if q.files, err = watchFiles(dir); err != nil {
		return fmt.Errorf("opening the queue in %s: %w", dir, err)
	}
	return nil
}

func storeOptions(dir string, logger badger.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(logger).
		WithSyncWrites(true).
		WithDetectConflicts(false). // one goroutine writes
		WithNumVersionsToKeep(1).
		WithVerifyValueChecksum(true).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMetricsEnabled(false).
		WithMemTableSize(memTableSize).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(8).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(2 << 20).
		WithNumCompactors(2).
		WithValueLogFileSize(valueLogSize).
		WithValueThreshold(valueThreshold)
}

// inMemoryOptions has no compactors: their tickers would wake millions of times in the virtual days of a test.
func inMemoryOptions(logger badger.Logger) badger.Options {
	return storeOptions("", logger).
		WithInMemory(true).
		WithMemTableSize(64 << 20).
		WithValueThreshold(1 << 20). // there is no value log

		WithNumCompactors(0).
		WithNumLevelZeroTables(1 << 20).
		WithNumLevelZeroTablesStall(1 << 21)
}

// openBadger opens the store. Badger trusts what it finds on disk, so that damage may show as a panic.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return badger.Open(o)
}

// repair opens and closes the store of a server that was killed. What it makes there belongs to whom the directory
// belongs, so that an operator who looks as root does not lock the server out.
func repair(dir string) error {
	if err := protectValueLog(dir); err != nil {
		return explain(dir, err)
	}
	db, err := openBadger(storeOptions(dir, nil))
	if err != nil {
		return explain(dir, err)
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("repairing the queue in %s: %w", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, gid, ok := owner(info)
	if !ok || uid == os.Geteuid() {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// prepare makes the directory and checks that the queue can live in it.
func prepare(dir string) (string, error) {
	err := os.MkdirAll(dir, 0o700)
	if errors.Is(err, fs.ErrExist) || isNotDir(dir) {
		return "", fmt.Errorf("the queue can't be in %s: it is not a directory", dir)
	}
	if err != nil {
		return "", fmt.Errorf("the queue's directory can't be made: %w", err)
	}
	dir, err = existing(dir)
	if err != nil {
		return "", err
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return "", fmt.Errorf("the queue's directory %s is not writable: %w", dir, errors.Unwrap(err))
	}
	probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		return "", fmt.Errorf("the queue's directory %s is not writable: %w", dir, errors.Unwrap(err))
	}
	if err := checkLock(dir, false); err != nil {
		return "", err
	}
	return dir, syncDir(filepath.Dir(dir))
}

// existing returns the path of a directory that is there, without symbolic links, as the kernel names it.
func existing(dir string) (string, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no queue in %s: %w", dir, fs.ErrNotExist)
	}
	if isNotDir(dir) {
		return "", fmt.Errorf("the queue can't be in %s: it is not a directory", dir)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

func isNotDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// checkLock says in words that another process has the queue. Badger's own lock is what counts, a moment later.
func checkLock(dir string, shared bool) error {
	busy, err := locked(dir, shared)
	if err != nil {
		return fmt.Errorf("locking the queue in %s: %w", dir, err)
	}
	if !busy {
		return nil
	}
	return inUse(dir)
}

func inUse(dir string) error {
	// Badger's note of who has the lock. A process that only reads leaves none.
	pid, err := os.ReadFile(filepath.Join(dir, "LOCK"))
	if err != nil {
		return fmt.Errorf("%w: somebody is reading the queue in %s", ErrLocked, dir)
	}
	return fmt.Errorf("%w: another mta is running on %s (pid %s)", ErrLocked, dir, strings.TrimSpace(string(pid)))
}

// explain says in an operator's words why the store did not open.
func explain(dir string, err error) error {
	switch {
	case strings.Contains(err.Error(), "Cannot acquire directory lock"):
		return inUse(dir)
	case strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("the queue in %s belongs to another user: %w", dir, err)
	}
	return fmt.Errorf("the queue in %s can't be opened: %w", dir, err)
}
