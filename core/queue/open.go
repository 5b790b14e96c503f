package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/pabal-mta/mta/core/journal"
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
	g := newGuard(o.MinFree, func() (int64, error) { return diskFree(dir) })
	g.ballast = newBallast(dir, o.MinFree)
	return open(dir, o, g)
}

// OpenReadOnly opens the queue in dir for Load and List, while no server runs. After a server that was killed it first
// repairs the store, as the next start of the server would, and so needs the right to write there.
func OpenReadOnly(dir string) (*Queue, error) {
	dir, err := existing(dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir, true)
	if err != nil {
		return nil, err
	}
	db, in, err := openReadOnly(lock)
	if err != nil {
		lock.release()
		return nil, err
	}
	q := newQueue(db, Options{}, newGuard(-1, nil))
	err = q.view(q.readTally)
	if err == nil {
		err = in.behindMark(q.tally)
	}
	if err != nil {
		_ = db.Close()
		lock.release()
		return nil, explain(dir, err)
	}
	q.readOnly, q.lock = true, lock
	close(q.ended)
	return q, nil
}

func openReadOnly(lock *dirLock) (*badger.DB, *inspection, error) {
	in, err := inspect(lock.dir, os.O_RDONLY)
	if err != nil {
		return nil, nil, explain(lock.dir, err)
	}
	in.mark.close()
	o := storeOptions(lock.dir, nil).WithReadOnly(true)
	cleared, err := journal.Empty(lock.dir)
	if err != nil {
		return nil, nil, explain(lock.dir, journalDamage(err))
	}
	var db *badger.DB
	if cleared {
		db, err = openBadger(o)
	}
	if !cleared || err != nil { // most likely it was not closed; what else it may be, the repair will say
		if err := lock.take(false); err != nil {
			return nil, nil, err
		}
		if err := repair(lock.dir); err != nil {
			return nil, nil, err
		}
		if err := lock.take(true); err != nil {
			return nil, nil, err
		}
		db, err = openBadger(o)
	}
	if err != nil {
		return nil, nil, explain(lock.dir, err)
	}
	return db, in, nil
}

func newQueue(db *badger.DB, o Options, disk *guard) *Queue {
	q := &Queue{db: db, log: o.Logger, fatal: o.Fatal, disk: disk, ended: make(chan struct{})}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	q.wake.L = &q.mu
	q.alarm = time.AfterFunc(forever, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.wake.Signal()
	})
	q.gather.off = o.InMemory
	q.garbage.limit = padAfter
	q.cleaner = newCleaner(db, q.log, q.fail)
	return q
}

// open opens the store in a directory that is there, or in memory, and starts the committer.
func open(dir string, o Options, disk *guard) (*Queue, error) {
	if o.InMemory {
		return start(o, disk, &inspection{})
	}
	lock, err := lockDir(dir, false)
	if err != nil {
		return nil, err
	}
	q, err := openLocked(dir, o, disk)
	if err != nil {
		lock.release()
		return nil, err
	}
	q.lock = lock
	return q, nil
}

func openLocked(dir string, o Options, disk *guard) (*Queue, error) {
	if err := makeRoom(dir, disk.ballast, freeOrPlenty); err != nil {
		return nil, err
	}
	in, err := mend(dir)
	if err != nil {
		return nil, err
	}
	return start(o, disk, in)
}

// start opens Badger on what was inspected, and starts the committer.
func start(o Options, disk *guard, in *inspection) (q *Queue, err error) {
	defer func() {
		if err != nil {
			in.mark.close()
		}
	}()
	dir, logger := in.dir, &badgerLog{log: o.Logger}
	opts := inMemoryOptions(logger)
	if !o.InMemory {
		opts = storeOptions(dir, logger)
	}
	db, err := openBadger(opts)
	if err != nil {
		return nil, explain(dir, err)
	}
	q = newQueue(db, o, disk)
	q.repairing = in.accepting
	if err := q.begin(in); err != nil {
		_ = db.Close()
		return nil, err
	}
	logger.attach(dir, in.mark, q.fail)
	go q.commitAll()
	if !o.InMemory && !q.repairing && !raceDetector {
		q.cleaner.start()
	}
	return q, nil
}

// begin reads what the queue has to know of its store, and compares it with the mark.
func (q *Queue) begin(in *inspection) error {
	dir := in.dir
	err := q.view(func(txn *badger.Txn) error {
		if err := q.readTally(txn); err != nil {
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
	if err := q.beginOnDisk(in); err != nil {
		return err
	}
	q.was = q.tally
	q.ids.skip(q.tally.highest)
	return nil
}

// beginOnDisk replays the journal, and compares what comes of it with the mark.
func (q *Queue) beginOnDisk(in *inspection) (err error) {
	if in.mark == nil {
		return nil
	}
	dir := in.dir
	if in.mark.last.groups > 0 {
		q.adopted = false // it had one
	}
	q.mark = in.mark
	if err = q.mark.create(); err != nil {
		return err
	}
	if q.files, err = watchFiles(dir, q.mark); err != nil {
		return fmt.Errorf("opening the queue in %s: %w", dir, err)
	}
	if q.fresh.journal, err = journal.Open(dir); err != nil {
		return err
	}
	err = q.replay()
	q.tally.highest = max(q.tally.highest, q.highest)
	if err == nil && !q.repairing {
		err = in.behindMark(q.tally)
	}
	if err == nil {
		err = q.beginMark(in)
	}
	if err != nil {
		_ = q.fresh.journal.Close()
		return explain(dir, err)
	}
	q.fresh.maxKeys = maxKeys
	q.fresh.active = newLayer()
	q.fresh.active.tally = q.tally
	return nil
}

// readTally reads the tally. A store of an earlier version has none, and is believed.
func (q *Queue) readTally(txn *badger.Txn) error {
	highest, err := getID(txn, keyHighest)
	if err != nil {
		return err
	}
	q.tally.highest, q.highest = highest, highest
	if item, err := txn.Get([]byte{keyName}); err == nil {
		name, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		q.name = string(name)
	}
	item, err := txn.Get([]byte{keyTally})
	if errors.Is(err, badger.ErrKeyNotFound) {
		q.adopted = highest != 0
		return nil
	}
	if err != nil {
		return err
	}
	return item.Value(func(b []byte) error {
		t, ok := decodeTally(b)
		if !ok {
			return fmt.Errorf("%w: the tally of messages", ErrDamaged)
		}
		t.highest = max(t.highest, highest)
		q.tally = t
		return nil
	})
}

// beginMark makes the mark say that the store is open, and which files of the value log there are.
func (q *Queue) beginMark(in *inspection) error {
	q.mark, q.problems = in.mark, in.problems
	if in.mark.none && q.tally.groups > 0 {
		q.problems = append(q.problems, fmt.Sprintf("%s: it is gone or damaged, and with it what would tell that a log was cut off", filepath.Join(in.dir, markName)))
	}
	for _, words := range q.problems {
		q.tell(words)
	}
	if err := q.mark.create(); err != nil {
		return err
	}
	sizes, err := logSizes(in.dir)
	if err != nil {
		return err
	}
	delete(sizes, slices.Max(append(slices.Collect(maps.Keys(sizes)), 0))) // it is new, and holds nothing but room
	err = q.mark.noteLogs(func(notes map[int]logNote) {
		for n := range in.lost {
			notes[n] = logNote{size: notes[n].size, lost: true}
		}
		adopt(notes, sizes)
	})
	if err == nil {
		err = q.mark.note(waterline{tally: q.tally})
	}
	if err == nil {
		err = q.mark.sync()
	}
	return err
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
	for range forksInFlight {
		db, err = badger.Open(o)
		if err == nil || !strings.Contains(err.Error(), "acquire directory lock") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return db, err
}

// forksInFlight is how often the store is tried to be opened while Badger's lock is taken. Our own lock is held, so it can
// only be by a process that was just forked from this one and has not closed its descriptors yet, or by an mta that knew
// no lock of its own.
const forksInFlight = 50

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
