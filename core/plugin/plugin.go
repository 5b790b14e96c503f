package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/event"
)

const (
	startTimeout  = 10 * time.Second
	healthEvery   = 5 * time.Second
	healthTimeout = 5 * time.Second
	healthMisses  = 3
	probeTimeout  = 2 * time.Second // when a call has run out of time
	backoffMin    = 100 * time.Millisecond
	backoffMax    = 30 * time.Second
	healthyAfter  = time.Minute // a process that lived so long starts its successor at once
	crashLoop     = 4           // starts in a row that did not last: callers no longer wait for the next
)

// Plugin is a running plugin. It has the methods of every kind; those that the plugin does not do return an error.
type Plugin struct {
	spec     Spec
	launcher *launcher
	log      *slog.Logger
	events   *event.Bus
	breaker  breaker
	suspect  chan *process // a call to it has run out of time
	stopping context.Context
	cancel   context.CancelFunc
	ended    chan struct{}
	calls    atomic.Uint64
	errs     atomic.Uint64
	current  atomic.Pointer[process] // nil while there is none

	mu       sync.Mutex
	changed  chan struct{} // closed when current has changed
	state    string
	since    time.Time
	restarts int
	failed   int // lives in a row that were short
	lastErr  error
	next     time.Time
	kinds    []string
	name     string
	version  string
}

// Status is how a plugin is doing.
type Status struct {
	Name     string // of its block
	Source   string
	Program  string // what it calls itself
	Version  string
	Kinds    []string
	State    string // starting, up, restarting, crashloop, stopped
	Since    time.Time
	PID      int
	Pinned   bool // what runs is what was hashed; built-ins are
	Restarts int
	Breaker  string // closed, open, half-open
	Waiting  int    // calls under way
	Calls    uint64
	Errors   uint64
	Error    string    // the last reason to restart
	Next     time.Time // of the next start, while there is no process
}

func newPlugin(s Spec, o Options, h *Host) (*Plugin, error) {
	log := o.Logger
	if log == nil {
		log = slog.Default()
	}
	p := &Plugin{
		spec: s, log: log.With("plugin", s.Name), events: o.Events, suspect: make(chan *process, 1),
		ended: make(chan struct{}), changed: make(chan struct{}), state: "starting", since: time.Now(),
	}
	var err error
	if p.launcher, err = newLauncher(&p.spec, o, newOutput(p.log)); err != nil {
		return nil, s.fail(err)
	}
	if o.Services != nil {
		if p.launcher.host, err = serveHost(p.launcher.room, asking{o.Services(s.Name), &p.spec, h}); err != nil {
			p.launcher.close()
			return nil, s.fail(fmt.Errorf("the socket of its host: %w", err))
		}
	}
	p.stopping, p.cancel = context.WithCancel(context.Background())
	if s.Builtin == "" && s.SHA256 == "" {
		p.log.Warn("the plugin is not pinned: whatever lies at its path is run", "path", s.Path, "hint", "mta plugin pin "+s.Name)
	}
	return p, nil
}

// begin starts the first process, and the goroutine that sees to it that there is one.
func (p *Plugin) begin(ctx context.Context) error {
	proc, err := p.newProcess(ctx)
	if err != nil {
		p.launcher.close()
		return p.spec.fail(err)
	}
	p.up(proc)
	go p.supervise(proc)
	return nil
}

// newProcess starts and configures a process.
func (p *Plugin) newProcess(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	proc, err := p.launcher.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.launcher.configure(ctx, proc, false); err != nil {
		proc.end()
		return nil, err
	}
	return proc, nil
}

// supervise keeps a process running until the plugin is stopped.
func (p *Plugin) supervise(proc *process) {
	defer close(p.ended)
	for {
		err := p.watch(proc)
		if p.stopping.Err() != nil {
			return // end drains it
		}
		p.down(proc, err)
		proc.end()
		if proc = p.restart(); proc == nil {
			return
		}
		p.up(proc)
	}
}

// watch returns when the process is of no more use, and says why.
func (p *Plugin) watch(proc *process) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	misses := 0
	for {
		timeout := healthTimeout
		select {
		case <-p.stopping.Done():
			return nil
		case <-proc.child.gone:
			<-proc.child.quiet
			return p.launcher.withLastWords(errors.New("it ended (" + proc.child.ending() + ")"))
		case <-proc.client.Done():
			return p.streamEnded(proc)
		case s := <-p.suspect:
			if s != proc {
				continue
			}
			timeout, misses = probeTimeout, healthMisses
		case <-tick.C:
		}
		if proc.client.Stuck() {
			return errors.New("it is hung: too many calls were never answered")
		}
		if err := proc.alive(p.stopping, timeout); err == nil {
			misses = 0
		} else if misses++; misses >= healthMisses && p.stopping.Err() == nil {
			return hungOrGone(proc, err)
		}
	}
}

// streamEnded tells a plugin that broke the contract from one that is just dying.
func (p *Plugin) streamEnded(proc *process) error {
	select {
	case <-proc.child.gone:
		<-proc.child.quiet
		return p.launcher.withLastWords(errors.New("it ended (" + proc.child.ending() + ")"))
	case <-time.After(pipeGrace):
	}
	return errors.New("its stream of calls broke: " + printable(proc.client.Err().Error()))
}

func hungOrGone(proc *process, err error) error {
	select {
	case <-proc.child.gone:
		return errors.New("it ended (" + proc.child.ending() + ")")
	default:
		return errors.New("it is hung: " + printable(err.Error()))
	}
}

// restart starts processes until one comes up, or returns nil when the plugin is stopped.
func (p *Plugin) restart() *process {
	for {
		select {
		case <-time.After(p.pause()):
		case <-p.stopping.Done():
			return nil
		}
		proc, err := p.newProcess(p.stopping)
		if err == nil {
			return proc
		}
		if p.stopping.Err() != nil {
			return nil
		}
		p.noteFailure(err)
	}
}

// pause returns how long to wait before the next start: anything up to 100 ms, doubled with each life that was short.
func (p *Plugin) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := backoffMax
	if n := max(p.failed-1, 0); n < 9 {
		limit = min(backoffMin<<n, backoffMax)
	}
	d := rand.N(limit)
	p.next = time.Now().Add(d)
	return d
}

func (p *Plugin) up(proc *process) {
	p.mu.Lock()
	p.state, p.since, p.next = "up", time.Now(), time.Time{}
	p.kinds, p.name, p.version = proc.kinds, printable(proc.about.GetName()), printable(proc.about.GetVersion())
	p.breaker.reset()
	p.current.Store(proc)
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.events.Emit(event.Event{
		Name: event.PluginState, Plugin: p.spec.Name, Class: "up", Took: time.Since(proc.born),
		Reason: fmt.Sprintf("version %s, pid %s, %s", p.version, proc.child.ID(), strings.Join(proc.kinds, " ")),
	})
}

// down takes a process that has ended out of use.
func (p *Plugin) down(proc *process, err error) {
	p.mu.Lock()
	p.current.Store(nil)
	if time.Since(proc.born) >= healthyAfter {
		p.failed = 0
	}
	p.restarts++
	p.mu.Unlock()
	p.noteFailure(err)
}

// noteFailure counts a life that was short, or did not even begin.
func (p *Plugin) noteFailure(err error) {
	p.mu.Lock()
	p.failed++
	p.state, p.lastErr = "restarting", err
	if p.failed >= crashLoop {
		p.state = "crashloop"
	}
	p.since = time.Now()
	state := p.state
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.log.Error("plugin is down", "error", err.Error(), "state", state)
	p.events.Emit(event.Event{Name: event.PluginState, Plugin: p.spec.Name, Class: state, Err: err})
}

// ready returns the process, or waits for one, not beyond patience. A plugin that keeps crashing is not waited for.
func (p *Plugin) ready(ctx context.Context, patience time.Time, not *process) (*process, error) {
	if proc := p.current.Load(); proc != nil && proc != not {
		return proc, nil
	}
	timer := time.NewTimer(time.Until(patience))
	defer timer.Stop()
	for {
		p.mu.Lock()
		changed, state, last := p.changed, p.state, p.lastErr
		p.mu.Unlock()
		if proc := p.current.Load(); proc != nil && proc != not {
			return proc, nil
		}
		if state == "crashloop" || state == "stopped" {
			return nil, errors.Join(ErrDown, last)
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, errors.Join(ErrDown, last)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// end stops the plugin: calls under way may finish until ctx ends.
func (p *Plugin) end(ctx context.Context) {
	p.cancel()
	<-p.ended
	p.mu.Lock()
	proc := p.current.Swap(nil)
	p.state, p.since = "stopped", time.Now()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if proc != nil {
		proc.stop(ctx)
	}
	p.launcher.close()
	p.events.Emit(event.Event{Name: event.PluginState, Plugin: p.spec.Name, Class: "stopped"})
}

// Name returns the label of the plugin's block.
func (p *Plugin) Name() string { return p.spec.Name }

// Kinds returns what the plugin can do: authenticator, store, directory, converter, bounce, router, observer, and the stages of a filter.
func (p *Plugin) Kinds() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kinds)
}

// Handles reports whether the plugin has a kind; for a filter, that is the name of the stage.
func (p *Plugin) Handles(kind string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.kinds, kind)
}

// HonorsContext reports that every call returns when its context ends, so that a caller needs no goroutine to be safe.
func (p *Plugin) HonorsContext() bool { return true }

// Status returns how the plugin is doing.
func (p *Plugin) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{
		Name: p.spec.Name, Source: p.spec.source(), Program: p.name, Version: p.version, Kinds: slices.Clone(p.kinds),
		State: p.state, Since: p.since, Pinned: p.spec.Builtin != "" || p.spec.SHA256 != "", Restarts: p.restarts,
		Breaker: p.breaker.state(), Calls: p.calls.Load(), Errors: p.errs.Load(), Next: p.next,
	}
	if p.lastErr != nil {
		s.Error = p.lastErr.Error()
	}
	if proc := p.current.Load(); proc != nil {
		s.PID, s.Waiting = int(proc.child.pid.Load()), proc.client.Waiting()
	}
	return s
}
