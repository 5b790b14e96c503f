package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Plugin is a running plugin: one process, or a pool of them. It has the methods of every kind; those that the plugin does
// not do return an error.
type Plugin struct {
	spec     Spec
	launcher *launcher // of the first worker; the others share its program and its host
	workers  []*worker
	seats    seats
	log      *slog.Logger
	events   *event.Bus
	unlisten func()
	breaker  breaker
	stopping context.Context
	cancel   context.CancelFunc
	calls    atomic.Uint64
	errs     atomic.Uint64
	refused  atomic.Uint64 // of errs, for want of room

	mu      sync.Mutex
	changed chan struct{} // closed when a worker's process or state has changed
	kinds   []string
	name    string
	version string
}

// Status is how a plugin is doing.
type Status struct {
	Name     string // of its block
	Source   string
	SHA256   string // of the program, when it is pinned
	Program  string // what it calls itself
	Version  string
	Kinds    []string
	State    string // starting, up, restarting, crashloop, stopped; in a pool that of the process that is worst off
	Since    time.Time
	PID      int   // of the first process
	PIDs     []int // of all; 0 where there is none at the moment
	Pinned   bool  // what runs is what was hashed; built-ins are
	Restarts int
	Breaker  string // closed, open, half-open
	Waiting  int    // calls under way
	Queued   int    // calls that wait for another to end
	Calls    uint64
	Errors   uint64
	Refused  uint64    // of the errors: too many calls waited already
	Error    string    // the last reason to restart
	Next     time.Time // of the next start, while there is no process
	InForce  []string  // what holds the process back, as the kernel says
}

func newPlugin(s Spec, o Options, h *Host) (*Plugin, error) {
	log := o.Logger
	if log == nil {
		log = slog.Default()
	}
	p := &Plugin{
		spec: s, log: log.With("plugin", s.Name), events: o.Events, changed: make(chan struct{}), unlisten: func() {},
		breaker: breaker{limit: s.BreakerFailures, pause: s.BreakerCooldown},
	}
	var err error
	if p.launcher, err = newLauncher(&p.spec, o, newOutput(p.log)); err != nil {
		return nil, s.fail(err)
	}
	if o.Services != nil {
		if p.launcher.host, err = serveHost(p.launcher, asking{o.Services(s.Name), &p.spec, h}); err != nil {
			p.launcher.close()
			return nil, s.fail(fmt.Errorf("the socket of its host: %w", err))
		}
	}
	p.stopping, p.cancel = context.WithCancel(context.Background())
	if err := p.hire(); err != nil {
		p.dismiss()
		return nil, s.fail(err)
	}
	if s.Builtin == "" && s.SHA256 == "" && s.Dev == nil {
		p.log.Warn("the plugin is not pinned: whatever lies at its path is run", "path", s.Path, "hint", "mta plugin pin "+s.Name)
	}
	return p, nil
}

// hire makes the workers; none has a process yet.
func (p *Plugin) hire() error {
	l := p.launcher
	for i := range max(p.spec.Processes, 1) {
		if i > 0 {
			var err error
			if l, err = p.launcher.sibling(newOutput(p.log)); err != nil {
				return err
			}
		}
		p.workers = append(p.workers, newWorker(p, l))
	}
	if len(p.workers) > 1 && p.events != nil {
		p.unlisten = p.events.Listen(func(e event.Event) {
			if e.Name == event.SessionClosed {
				p.seats.leave(e.Session)
			}
		})
	}
	return nil
}

// dismiss ends what the workers left behind, the launcher that they share last.
func (p *Plugin) dismiss() {
	p.unlisten()
	for _, w := range p.workers[min(1, len(p.workers)):] {
		w.launcher.close()
	}
	p.launcher.close()
}

// begin starts the processes, all at once, and the goroutines that see to it that they are there. It is all or nothing.
func (p *Plugin) begin(ctx context.Context) error {
	procs, errs := make([]*process, len(p.workers)), make([]error, len(p.workers))
	var wg sync.WaitGroup
	for i, w := range p.workers {
		wg.Go(func() { procs[i], errs[i] = w.newProcess(ctx) })
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		for _, proc := range procs {
			if proc != nil {
				proc.end()
			}
		}
		p.dismiss()
		return p.spec.fail(errs[i])
	}
	for i, w := range p.workers {
		w.up(procs[i])
		go w.supervise(procs[i])
	}
	return nil
}

// learn notes what a process said of itself.
func (p *Plugin) learn(proc *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kinds, p.name, p.version = proc.kinds, calls.Printable(proc.about.GetName()), calls.Printable(proc.about.GetVersion())
}

// wake tells those that wait for a process that something has changed.
func (p *Plugin) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// change returns a channel that is closed at the next change.
func (p *Plugin) change() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// end stops the plugin: calls under way may finish until ctx ends.
func (p *Plugin) end(ctx context.Context) {
	p.cancel()
	var wg sync.WaitGroup
	for _, w := range p.workers {
		wg.Go(func() { w.end(ctx) })
	}
	wg.Wait()
	p.dismiss()
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
	s := Status{
		Name: p.spec.Name, Source: p.spec.source(), SHA256: p.spec.SHA256, Kinds: p.Kinds(),
		Pinned: p.spec.Builtin != "" || p.spec.SHA256 != "", Breaker: p.breaker.state(), Calls: p.calls.Load(), Errors: p.errs.Load(),
		Refused: p.refused.Load(),
	}
	p.mu.Lock()
	s.Program, s.Version = p.name, p.version
	p.mu.Unlock()
	for _, w := range p.workers {
		w.addTo(&s)
	}
	s.PID = s.PIDs[0]
	return s
}
