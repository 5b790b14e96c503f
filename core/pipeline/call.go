package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// The methods of sdk's filter interfaces. Having one is subscribing to its stage.
type (
	connectFilter interface {
		Connect(ctx context.Context, s *mail.Session) (mail.Verdict, error)
	}
	heloFilter interface {
		Helo(ctx context.Context, s *mail.Session) (mail.Verdict, error)
	}
	mailFilter interface {
		Mail(ctx context.Context, s *mail.Session) (mail.Verdict, error)
	}
	rcptFilter interface {
		Rcpt(ctx context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error)
	}
	messageFilter interface {
		Message(ctx context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error)
	}
)

// handles reports whether a filter is to be asked at a stage.
func handles(filter any, stage Stage) bool {
	if h, ok := filter.(interface{ Handles(stage string) bool }); ok && !h.Handles(string(stage)) {
		return false
	}
	ok := false
	switch stage {
	case StageConnect:
		_, ok = filter.(connectFilter)
	case StageHelo:
		_, ok = filter.(heloFilter)
	case StageMail:
		_, ok = filter.(mailFilter)
	case StageRcpt:
		_, ok = filter.(rcptFilter)
	case StageMessage:
		_, ok = filter.(messageFilter)
	}
	return ok
}

func (s Stage) timeout(step *Step) time.Duration {
	switch {
	case step.Timeout > 0:
		return step.Timeout
	case s == StageMessage:
		return defaultMessageTimeout
	default:
		return defaultTimeout
	}
}

type asking func(ctx context.Context) (mail.Verdict, error)

// bind puts together a filter that handles the stage and what it is asked about.
func (t *turn) bind(filter any) asking {
	s, rcpt := t.view, t.rcpt
	switch t.stage {
	case StageConnect:
		return func(ctx context.Context) (mail.Verdict, error) { return filter.(connectFilter).Connect(ctx, s) }
	case StageHelo:
		return func(ctx context.Context) (mail.Verdict, error) { return filter.(heloFilter).Helo(ctx, s) }
	case StageMail:
		return func(ctx context.Context) (mail.Verdict, error) { return filter.(mailFilter).Mail(ctx, s) }
	case StageRcpt:
		return func(ctx context.Context) (mail.Verdict, error) { return filter.(rcptFilter).Rcpt(ctx, s, rcpt) }
	default:
		m := *t.draft.msg
		return func(ctx context.Context) (mail.Verdict, error) { return filter.(messageFilter).Message(ctx, s, &m) }
	}
}

var (
	// errLate says that a filter was left behind while it may still be running.
	errLate   = errors.New("no answer in time")
	errExited = errors.New("the filter ended its goroutine")
)

// call asks a filter and does not wait for it beyond the timeout, whatever it does.
func (p *Pipeline) call(ctx context.Context, step *Step, timeout time.Duration, ask asking) (mail.Verdict, error) {
	if err := ctx.Err(); err != nil {
		return mail.Verdict{}, err
	}
	if n := p.late.of(step.Plugin); n >= maxLate {
		return mail.Verdict{}, fmt.Errorf("%d calls of the plugin have not come back; it is asked no more before they do", n)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if h, ok := step.Filter.(interface{ HonorsContext() bool }); ok && h.HonorsContext() {
		a := answer{err: errExited}
		a.from(ctx, ask)
		return a.verdict, a.err
	}
	c := &pending{answer: make(chan answer, 1), late: &p.late, plugin: step.Plugin}
	go c.run(ctx, ask)
	select {
	case a := <-c.answer:
		return a.verdict, a.err
	case <-ctx.Done():
	}
	if a, ok := c.leave(); ok {
		return a.verdict, a.err
	}
	return mail.Verdict{}, fmt.Errorf("%w (%s): %w", errLate, timeout, ctx.Err())
}

// answer is what came of a call.
type answer struct {
	verdict mail.Verdict
	err     error
}

// from asks. When the filter ends the goroutine instead of returning, the answer stays as it was.
func (a *answer) from(ctx context.Context, ask asking) {
	defer func() {
		if r := recover(); r != nil {
			a.err = fmt.Errorf("panic: %v", r)
		}
	}()
	a.verdict, a.err = ask(ctx)
}

// pending is a call that is under way. Decided is set once, by the side that comes first: the filter, whose answer then
// counts, or the session, which then leaves.
type pending struct {
	answer  chan answer
	decided atomic.Bool
	late    *lateCalls
	plugin  string
}

func (c *pending) run(ctx context.Context, ask asking) {
	a := answer{err: errExited}
	defer func() {
		if c.decided.CompareAndSwap(false, true) {
			c.answer <- a
		} else {
			c.late.add(c.plugin, -1)
		}
	}()
	a.from(ctx, ask)
}

// leave gives the call up, or returns its answer if that has come after all.
func (c *pending) leave() (answer, bool) {
	c.late.add(c.plugin, 1)
	if c.decided.CompareAndSwap(false, true) {
		return answer{}, false
	}
	c.late.add(c.plugin, -1)
	return <-c.answer, true
}

// maxLate bounds the goroutines that a plugin can hold by never coming back.
const maxLate = 256

// lateCalls counts, by plugin, the calls that were left behind.
type lateCalls struct {
	total    atomic.Int64 // of all plugins: 0 nearly always, so that nothing else has to be looked at
	mu       sync.Mutex
	byPlugin map[string]int
}

func (l *lateCalls) add(plugin string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byPlugin == nil {
		l.byPlugin = make(map[string]int)
	}
	l.byPlugin[plugin] += n
	l.total.Add(int64(n))
}

func (l *lateCalls) of(plugin string) int {
	if l.total.Load() == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byPlugin[plugin]
}
