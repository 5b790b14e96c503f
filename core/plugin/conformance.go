package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/pluginv1/conform"
)

// The results of a Finding.
const (
	Passed  = "ok"
	Failing = "failed"
	Skipped = "skipped" // it could not be tried, and Detail says why
	Noted   = "note"    // nothing that can fail: a figure
)

// Finding is the result of one check of a plugin.
type Finding struct {
	Name   string `json:"name"`   // such as "describe" or "rcpt/parallel"
	Proves string `json:"proves"` // one sentence
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"` // what to do about a failure
	Millis int64  `json:"ms"`
}

// Conformance is what Conform found out about a plugin.
type Conformance struct {
	Program string    `json:"program"`
	Name    string    `json:"name,omitempty"`
	Version string    `json:"version,omitempty"`
	SDK     string    `json:"sdk,omitempty"`
	Kinds   []string  `json:"kinds,omitempty"`
	Checks  []Finding `json:"checks"`
}

// Failed returns how many checks failed.
func (c *Conformance) Failed() int {
	n := 0
	for _, f := range c.Checks {
		if f.Result == Failing {
			n++
		}
	}
	return n
}

// Conform starts a plugin as the server would, several times, and proves that it keeps the contract, whatever language it
// is written in. The plugin really works: a store stores what it is given, a notifier notifies. Each finding is also told
// to seen, which may be nil, as soon as it is there. Where Spec.StateDir is empty the plugin gets a temporary one.
func Conform(ctx context.Context, s Spec, o Options, seen func(Finding)) (*Conformance, error) {
	if s.StateDir == "" {
		dir, err := os.MkdirTemp("", "mta-check-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		s.StateDir = dir
	}
	e := &examinee{spec: s, report: &Conformance{Program: s.source()}, seen: seen}
	var err error
	if e.launcher, err = newLauncher(&e.spec, o, newOutput(slog.New(&e.printed))); err != nil {
		return nil, s.fail(err)
	}
	defer e.launcher.close()
	defer e.end()
	e.run(ctx, e.lifeChecks())
	if e.configured {
		for _, k := range e.report.Kinds {
			e.run(ctx, conform.Kind(k))
		}
		e.run(ctx, conform.Wire())
		e.run(ctx, e.endChecks())
	}
	return e.report, ctx.Err()
}

// errSkip ends a check that can't be made.
var errSkip = errors.New("skipped")

// examinee is a plugin under examination. It has at most one process at a time.
type examinee struct {
	spec       Spec
	launcher   *launcher
	printed    printed
	report     *Conformance
	seen       func(Finding)
	configured bool            // a process with the given configuration has come up
	proc       *process        // nil: none; configured, and shared by the checks
	shared     *conform.Plugin // is that process
	broken     bool            // it does not even start: no check can be made
}

func (e *examinee) run(ctx context.Context, list []conform.Check) {
	for _, c := range list {
		if ctx.Err() != nil {
			return
		}
		f := Finding{Name: c.Name, Proves: c.Proves}
		began := time.Now()
		if e.broken {
			f.Result, f.Detail = Skipped, "the plugin does not start"
		} else {
			e.make(ctx, c, &f)
		}
		f.Millis = time.Since(began).Milliseconds()
		e.report.Checks = append(e.report.Checks, f)
		if e.seen != nil {
			e.seen(f)
		}
	}
}

// make makes one check and writes its result down.
func (e *examinee) make(ctx context.Context, c conform.Check, f *Finding) {
	ctx, cancel := context.WithTimeout(ctx, conform.Timeout)
	defer cancel()
	note, err := c.Ask(ctx, e)
	f.Result, f.Detail = Passed, note
	if err == nil {
		if c.Hint == "" {
			f.Result = Noted
		}
		return
	}
	e.end() // the next check meets a process that nothing has happened to
	if errors.Is(err, errSkip) {
		f.Result = Skipped
		return
	}
	f.Result, f.Detail, f.Hint = Failing, err.Error(), c.Hint
	var h hinted
	if errors.As(err, &h) {
		f.Hint = h.hint
	}
}

// fresh starts a process that has not been configured. It is the only one until it is ended.
func (e *examinee) fresh(ctx context.Context) (*process, error) {
	e.end()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return e.launcher.start(ctx)
}

// process returns the shared process; it starts and configures one when there is none, or when the last one has died.
func (e *examinee) process(ctx context.Context) (*process, error) {
	if e.proc != nil {
		if e.died(e.proc, 0) == nil {
			return e.proc, nil
		}
		e.end()
	}
	p, err := e.fresh(ctx)
	if err != nil {
		return nil, err
	}
	e.shared = conform.NewPlugin(p.conn, func(patience time.Duration) error { return e.died(p, patience) })
	p.client = e.shared.Client
	if err := e.launcher.configure(ctx, p, false); err != nil {
		p.end()
		return nil, err
	}
	e.proc = p
	return p, nil
}

// end ends the shared process.
func (e *examinee) end() {
	if e.proc != nil {
		e.proc.end()
		e.proc = nil
	}
}

// died returns an error when the process has ended, or its stream of calls has. It waits so long for the end of the process.
func (e *examinee) died(p *process, patience time.Duration) error {
	select {
	case <-p.child.gone:
	case <-time.After(patience):
	}
	select {
	case <-p.child.gone:
		<-p.child.quiet
		return e.launcher.withLastWords(fmt.Errorf("the process ended (%s)", p.child.ending()))
	case <-p.client.Done():
		return fmt.Errorf("the stream of calls ended: %s", calls.Printable(p.client.Err().Error()))
	default:
		return nil
	}
}

// Plugin returns the shared process to the checks that know no processes.
func (e *examinee) Plugin(ctx context.Context) (*conform.Plugin, error) {
	if _, err := e.process(ctx); err != nil {
		return nil, err
	}
	return e.shared, nil
}

// Kinds are those that it is examined in.
func (e *examinee) Kinds() []string { return e.report.Kinds }

// printed is a log handler that keeps what a plugin printed to its standard output after the handshake.
type printed struct {
	mu    sync.Mutex
	lines []string
}

// Enabled says yes.
func (p *printed) Enabled(context.Context, slog.Level) bool { return true }

// Handle keeps the record when it came from the standard output.
func (p *printed) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "stream" || a.Value.String() != "stdout" {
			return true
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.lines) < lastLines {
			p.lines = append(p.lines, r.Message)
		}
		return false
	})
	return nil
}

// WithAttrs changes nothing.
func (p *printed) WithAttrs([]slog.Attr) slog.Handler { return p }

// WithGroup changes nothing.
func (p *printed) WithGroup(string) slog.Handler { return p }

func (p *printed) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}
