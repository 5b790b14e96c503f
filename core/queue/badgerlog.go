package queue

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pabal-mta/mta/core/badgerfiles"
)

// badgerLog carries Badger's log to ours, at debug: what an operator has to know, the queue says itself. It is also the
// only place where some of Badger's failures show at all, and where a clean-up can still be stopped.
type badgerLog struct {
	log *slog.Logger

	mu     sync.Mutex
	dir    string
	mark   *mark
	failed func(error)
}

// attach names who is told of failures, and of files that are about to be deleted.
func (l *badgerLog) attach(dir string, m *mark, failed func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dir, l.mark, l.failed = dir, m, failed
}

// Badger goes on after these, and even acknowledges what it could not write.
var silentFailures = []string{
	"Error while curlf sync",          // the value log was not synced, and the commit succeeds
	"error flushing memtable to disk", // it tries again for ever, and all writers wait
	"While trying to flush memtable",  //
}

// Errorf takes an error of Badger.
func (l *badgerLog) Errorf(format string, args ...any) {
	l.print(slog.LevelWarn, format, args)
	for _, s := range silentFailures {
		if strings.HasPrefix(format, s) {
			l.fail(fmt.Errorf("writing the queue: %s", text(format, args)))
		}
	}
}

func (l *badgerLog) fail(err error) {
	l.mu.Lock()
	failed := l.failed
	l.mu.Unlock()
	if failed != nil {
		failed(err)
	}
}

// Warningf takes a warning of Badger.
func (l *badgerLog) Warningf(format string, args ...any) { l.print(slog.LevelDebug, format, args) }

// Infof takes a notice of Badger. One of them is the last moment before a file of the value log is rewritten, which
// keeps of a damaged file only what is before the damage: a panic here, which the cleaner catches, leaves it as it is.
func (l *badgerLog) Infof(format string, args ...any) {
	l.print(slog.LevelDebug, format, args)
	if !strings.HasPrefix(format, "Rewriting fid") || len(args) != 1 {
		return
	}
	fid, ok := args[0].(uint32)
	if !ok {
		return
	}
	l.mu.Lock()
	path, mark := filepath.Join(l.dir, badgerfiles.LogName(int(fid))), l.mark
	l.mu.Unlock()
	err := badgerfiles.CheckLog(path)
	if err == nil && mark != nil {
		err = mark.forget(int(fid))
	}
	if err != nil {
		panic(unsound{err})
	}
}

// Debugf takes what nobody reads.
func (l *badgerLog) Debugf(format string, args ...any) {}

func (l *badgerLog) print(level slog.Level, format string, args []any) {
	if l.log != nil && l.log.Enabled(context.Background(), level) {
		l.log.LogAttrs(context.Background(), level, "badger: "+text(format, args))
	}
}

func text(format string, args []any) string { return strings.TrimSpace(fmt.Sprintf(format, args...)) }

// unsound is what stops the rewriting of a damaged file.
type unsound struct{ err error }
