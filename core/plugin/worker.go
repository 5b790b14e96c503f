package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

const (
	startTimeout  = 10 * time.Second
	healthEvery   = 5 * time.Second
	memoryEvery   = time.Second
	healthTimeout = 5 * time.Second
	healthMisses  = 3
	probeTimeout  = 2 * time.Second // when a call has run out of time
	backoffMin    = 100 * time.Millisecond
	backoffMax    = 30 * time.Second
	healthyAfter  = time.Minute // a process that lived so long starts its successor at once
	crashLoop     = 4           // starts in a row that did not last: callers no longer wait for the next
)

// worker is one place in the pool of a plugin: it has one process after the other.
type worker struct {
	plugin   *Plugin
	launcher *launcher
	suspect  chan *process // a call to it has run out of time
	ended    chan struct{}
	every    time.Duration           // between two questions for the health of an idle process; healthEvery but in tests
	patience time.Duration           // for an answer; likewise healthTimeout
	current  atomic.Pointer[process] // nil while there is none

	mu       sync.Mutex
	state    string
	since    time.Time
	restarts int
	failed   int // lives in a row that were short
	lastErr  error
	next     time.Time
}

func newWorker(p *Plugin, l *launcher) *worker {
	return &worker{plugin: p, launcher: l, suspect: make(chan *process, 1), ended: make(chan struct{}), every: healthEvery, patience: healthTimeout,
		state: "starting", since: time.Now()}
}

// newProcess starts and configures a process.
func (w *worker) newProcess(ctx context.Context) (*process, error) {
	if w.launcher.spec.Dev != nil {
		return w.waitForProcess(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	proc, err := w.launcher.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.launcher.configure(ctx, proc, false); err != nil {
		proc.end()
		return nil, err
	}
	return proc, nil
}

// waitForProcess waits for one that its author starts, and for another when it can't be used.
func (w *worker) waitForProcess(ctx context.Context) (*process, error) {
	for {
		proc, err := w.launcher.start(ctx)
		if err != nil {
			return nil, err
		}
		if err = w.launcher.configure(ctx, proc, false); err == nil {
			w.launcher.spec.Dev.say("plugin %q is attached (-dev)", w.plugin.spec.Name)
			return proc, nil
		}
		proc.end()
		w.launcher.spec.Dev.say("plugin %q: %v", w.plugin.spec.Name, err)
	}
}

// supervise keeps a process running until the plugin is stopped.
func (w *worker) supervise(proc *process) {
	defer close(w.ended)
	for {
		err := w.watch(proc)
		if w.plugin.stopping.Err() != nil {
			return // end drains it
		}
		w.down(proc, err)
		proc.end()
		if proc = w.restart(); proc == nil {
			return
		}
		w.up(proc)
	}
}

// watchByHand returns when a process that its author has started is gone: it may stand at a breakpoint for hours.
func (w *worker) watchByHand(proc *process) error {
	select {
	case <-w.plugin.stopping.Done():
		return nil
	case <-proc.client.Done():
		return errors.New("its author has ended it, or it broke: " + calls.Printable(proc.client.Err().Error()))
	}
}

// watch returns when the process is of no more use, and says why.
func (w *worker) watch(proc *process) error {
	if proc.launch == nil {
		return w.watchByHand(proc)
	}
	tick, look := time.NewTicker(w.every), time.NewTicker(memoryEvery)
	defer tick.Stop()
	defer look.Stop()
	misses := 0
	for {
		timeout := w.patience
		select {
		case <-w.plugin.stopping.Done():
			return nil
		case <-proc.child.gone:
			<-proc.child.quiet
			return w.launcher.withLastWords(errors.New("it ended (" + proc.child.ending() + ")"))
		case <-proc.client.Done():
			return w.streamEnded(proc)
		case s := <-w.suspect:
			if s != proc {
				continue
			}
			timeout, misses = probeTimeout, healthMisses
		case <-look.C:
			if err := w.tooLarge(proc); err != nil {
				return err
			}
			continue
		case <-tick.C:
		}
		if proc.client.Stuck() {
			return errors.New("it is hung: too many calls were never answered")
		}
		if err := proc.alive(w.plugin.stopping, timeout); err == nil {
			misses = 0
		} else if misses++; misses >= healthMisses && w.plugin.stopping.Err() == nil {
			return hungOrGone(proc, err)
		}
	}
}

// tooLarge reports a process that has more memory than limits.memory.
func (w *worker) tooLarge(proc *process) error {
	limit := w.plugin.spec.Limits.Memory
	if limit == 0 {
		return nil
	}
	if got := memoryOf(int(proc.child.pid.Load()), proc.child.mark); got > limit {
		return fmt.Errorf("it has %d MiB of memory, with all that it has started, more than the %d MiB of limits.memory", got>>20, limit>>20)
	}
	return nil
}

// streamEnded tells a plugin that broke the contract from one that is just dying.
func (w *worker) streamEnded(proc *process) error {
	select {
	case <-proc.child.gone:
		<-proc.child.quiet
		return w.launcher.withLastWords(errors.New("it ended (" + proc.child.ending() + ")"))
	case <-time.After(pipeGrace):
	}
	return errors.New("its stream of calls broke: " + calls.Printable(proc.client.Err().Error()))
}

func hungOrGone(proc *process, err error) error {
	select {
	case <-proc.child.gone:
		return errors.New("it ended (" + proc.child.ending() + ")")
	default:
		return errors.New("it is hung: " + calls.Printable(err.Error()))
	}
}

// restart starts processes until one comes up, or returns nil when the plugin is stopped.
func (w *worker) restart() *process {
	for {
		select {
		case <-time.After(w.pause()):
		case <-w.plugin.stopping.Done():
			return nil
		}
		proc, err := w.newProcess(w.plugin.stopping)
		if err == nil {
			return proc
		}
		if w.plugin.stopping.Err() != nil {
			return nil
		}
		w.noteFailure(err)
	}
}

// pause returns how long to wait before the next start: anything up to 100 ms (restart.min), doubled with each life that was
// short up to 30 s (restart.max). It never gives up.
func (w *worker) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	spec := &w.plugin.spec
	shortest, limit := cmp.Or(spec.RestartMin, backoffMin), cmp.Or(spec.RestartMax, backoffMax)
	if n := max(w.failed-1, 0); n < 20 {
		limit = min(shortest<<n, limit)
	}
	d := rand.N(limit)
	w.next = time.Now().Add(d)
	return d
}

func (w *worker) up(proc *process) {
	proc.line = newLine(w.plugin.spec.MaxConcurrent)
	proc.worker = w
	w.mu.Lock()
	w.state, w.since, w.next = "up", time.Now(), time.Time{}
	w.mu.Unlock()
	w.plugin.learn(proc)
	w.plugin.breaker.reset()
	w.current.Store(proc)
	w.plugin.wake()
	w.plugin.events.Emit(event.Event{
		Name: event.PluginState, Plugin: w.plugin.spec.Name, Class: "up", Took: time.Since(proc.born),
		Reason: fmt.Sprintf("version %s, pid %s, %s", calls.Printable(proc.about.GetVersion()), proc.child.ID(), strings.Join(proc.kinds, " ")),
	})
}

// down takes a process that has ended out of use.
func (w *worker) down(proc *process, err error) {
	w.mu.Lock()
	w.current.Store(nil)
	if time.Since(proc.born) >= healthyAfter {
		w.failed = 0
	}
	w.restarts++
	w.mu.Unlock()
	w.noteFailure(err)
}

// noteFailure counts a life that was short, or did not even begin.
func (w *worker) noteFailure(err error) {
	w.mu.Lock()
	w.failed++
	w.state, w.lastErr = "restarting", err
	if w.failed >= crashLoop && w.plugin.spec.Dev == nil {
		w.state = "crashloop"
	}
	w.since = time.Now()
	state := w.state
	w.mu.Unlock()
	w.plugin.wake()
	w.plugin.log.Error("plugin is down", "error", err.Error(), "state", state)
	w.plugin.events.Emit(event.Event{Name: event.PluginState, Plugin: w.plugin.spec.Name, Class: state, Err: err})
}

// condition returns the state of the worker, and why its last process ended.
func (w *worker) condition() (state string, last error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.lastErr
}

// end stops the worker's process: calls under way may finish until ctx ends.
func (w *worker) end(ctx context.Context) {
	<-w.ended
	proc := w.current.Swap(nil)
	w.mu.Lock()
	w.state, w.since = "stopped", time.Now()
	w.mu.Unlock()
	w.plugin.wake()
	if proc != nil {
		proc.stop(ctx)
	}
}

// byTrouble orders the states, the worst last.
var byTrouble = map[string]int{"up": 0, "stopped": 1, "starting": 2, "restarting": 3, "crashloop": 4}

// addTo adds the worker to the status of its plugin.
func (w *worker) addTo(s *Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Restarts += w.restarts
	if s.State == "" || byTrouble[w.state] > byTrouble[s.State] {
		s.State, s.Since, s.Next = w.state, w.since, w.next
	}
	if w.lastErr != nil {
		s.Error = w.lastErr.Error()
	}
	proc := w.current.Load()
	if proc == nil {
		s.PIDs = append(s.PIDs, 0)
		return
	}
	if proc.launch == nil {
		s.InForce = []string{"nothing: its author has started it by hand (-dev)"}
	}
	pid := int(proc.child.pid.Load())
	s.PIDs = append(s.PIDs, pid)
	s.Waiting += proc.client.Waiting()
	s.Queued += proc.line.queued()
	if s.InForce == nil {
		s.InForce = append(inForce(pid, &w.plugin.spec), "contents above 64 KiB: "+map[bool]string{true: "by descriptor", false: "in chunks"}[proc.post != nil])
	}
}
