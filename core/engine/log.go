package engine

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/event"
)

// flushEvery is how long a log line may wait in memory, so that a busy server writes many lines at once.
const flushEvery = 200 * time.Millisecond

// lineBuffer gathers log lines. A line that tells of trouble is flushed at once.
type lineBuffer struct {
	mu    sync.Mutex
	w     *bufio.Writer
	timer *time.Timer
}

func newLineBuffer(w io.Writer) *lineBuffer { return &lineBuffer{w: bufio.NewWriterSize(w, 64<<10)} }

func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w.Buffered() == 0 {
		if b.timer == nil {
			b.timer = time.AfterFunc(flushEvery, b.Flush)
		} else {
			b.timer.Reset(flushEvery)
		}
	}
	return b.w.Write(p)
}

// Flush writes what was gathered.
func (b *lineBuffer) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.w.Flush() // a log that can't be written must not stop mail, and there is nobody left to tell
}

// levels are the events that are not worth a line at the level Info.
var levels = map[event.Name]slog.Level{
	event.SessionOpened: slog.LevelDebug,
	event.SessionClosed: slog.LevelDebug,
	event.FilterVerdict: slog.LevelDebug,
	event.MessageDone:   slog.LevelDebug,
	event.StorageFailed: slog.LevelError,
	event.Warning:       slog.LevelWarn,
	event.IntakeStopped: slog.LevelWarn,
	event.LoginFailed:   slog.LevelWarn,
}

// levelOf is the level of an event. A verdict that let a message pass as it is is told to nobody who does not ask.
func levelOf(e event.Event) slog.Level {
	level, ok := levels[e.Name]
	switch {
	case !ok:
		return slog.LevelInfo
	case e.Name != event.FilterVerdict:
		return level
	case e.Err != nil:
		return slog.LevelWarn
	case e.Edits != "" || e.Class != "continue" && e.Class != "accept":
		return slog.LevelInfo
	}
	return level
}

// NewLogger makes the logger of a server: one event a line, as JSON, or as text for a person at a terminal. Flush writes
// what is still in memory.
func NewLogger(w io.Writer, text bool, level slog.Level) (log *slog.Logger, flush func()) {
	b := newLineBuffer(w)
	o := &slog.HandlerOptions{Level: level}
	if text {
		return slog.New(slog.NewTextHandler(b, o)), b.Flush
	}
	return slog.New(slog.NewJSONHandler(b, o)), b.Flush
}

// logEvents writes every event to the log.
func logEvents(log *slog.Logger) func(event.Event) {
	return func(e event.Event) {
		level := levelOf(e)
		ctx := context.Background()
		if log.Enabled(ctx, level) {
			log.LogAttrs(ctx, level, string(e.Name), e.Attrs()...)
		}
	}
}
