package plugin

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

const (
	maxLine   = 8 << 10 // of a plugin's log; the rest of a longer one is dropped
	lastLines = 20      // kept for the report of a crash
	logBurst  = 500     // lines at once
	logRate   = 100     // lines a second after that
)

// output takes what a plugin writes to its standard streams and puts it into our log, as much of it as is good for us.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	last    []string
	tokens  float64
	filled  time.Time
	dropped int
}

func newOutput(log *slog.Logger) *output {
	return &output{log: log, tokens: logBurst, filled: time.Now()}
}

// read reads lines to the end.
func (o *output) read(r *bufio.Reader, stream string) {
	for {
		line, more, err := r.ReadLine()
		if err != nil {
			return
		}
		cut := more
		text := string(line)
		for more && err == nil {
			_, more, err = r.ReadLine()
		}
		o.line(stream, text, cut)
	}
}

func (o *output) line(stream, text string, cut bool) {
	text = calls.Printable(text)
	if text == "" {
		return
	}
	dropped, ok := o.take(text)
	if !ok {
		return
	}
	if dropped > 0 {
		o.log.Warn("the plugin logs faster than is good", "lines_dropped", dropped)
	}
	level, msg, attrs := parseLine(stream, text)
	if cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	o.log.LogAttrs(context.Background(), level, msg, attrs...)
}

// take notes a line and reports whether it may be logged, and how many before it were not.
func (o *output) take(text string) (dropped int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.last) == lastLines {
		o.last = append(o.last[:0], o.last[1:]...)
	}
	o.last = append(o.last, text[:min(len(text), 500)])
	now := time.Now()
	o.tokens = min(logBurst, o.tokens+now.Sub(o.filled).Seconds()*logRate)
	o.filled = now
	if o.tokens < 1 {
		o.dropped++
		return 0, false
	}
	o.tokens--
	dropped, o.dropped = o.dropped, 0
	return dropped, true
}

// tail returns the last lines.
func (o *output) tail() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.last...)
}

// Write takes what a plugin prints after its handshake, where its SDK sends that over gRPC.
func (o *output) Write(b []byte) (int, error) {
	for line := range strings.SplitSeq(string(b[:min(len(b), maxLine)]), "\n") {
		o.line("stdout", line, false)
	}
	return len(b), nil
}

var levels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn,
	"warning": slog.LevelWarn, "error": slog.LevelError,
}

// parseLine reads a line in go-plugin's JSON, and takes any other as it is: what a panic says is an error, what comes on
// standard output should not be there.
func parseLine(stream, text string) (slog.Level, string, []slog.Attr) {
	var fields map[string]any
	if strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &fields) == nil {
		if msg, ok := fields["@message"].(string); ok {
			return parseFields(msg, fields)
		}
	}
	switch {
	case strings.HasPrefix(text, "panic:") || strings.HasPrefix(text, "fatal error:"):
		return slog.LevelError, text, nil
	case stream == "stdout":
		return slog.LevelWarn, text, []slog.Attr{slog.String("stream", stream)}
	}
	return slog.LevelInfo, text, nil
}

func parseFields(msg string, fields map[string]any) (slog.Level, string, []slog.Attr) {
	level := slog.LevelInfo
	if s, ok := fields["@level"].(string); ok {
		if l, ok := levels[s]; ok {
			level = l
		}
	}
	var attrs []slog.Attr
	for k, v := range fields {
		if !strings.HasPrefix(k, "@") {
			attrs = append(attrs, slog.Any(calls.Printable(k), v))
		}
	}
	return level, calls.Printable(msg), attrs
}
