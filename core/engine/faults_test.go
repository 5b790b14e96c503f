package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The matrix: what a plugin can do wrong, what it is asked for, and when it happens.
var (
	faults     = []string{"exit", "kill", "stop", "slow", "panic", "handshake", "garbage", "huge", "hostile", "leak"}
	faultKinds = []string{"authenticator", "store", "converter", "bounce", "filter"}
	moments    = []string{"idle", "call", "start"}
)

var allFaults = flag.Bool("faults", false, "the whole matrix of faults, not a selection")

// chosen tells whether a cell is made. A plain run has each fault in each kind at one of the moments; with the race
// detector, where all takes ten times as long, each fault in one of the kinds.
func chosen(fault, moment, kind int) bool {
	return *allFaults || (fault+kind)%len(moments) == moment && (!raceDetector || fault%len(faultKinds) == kind)
}

// faultPatience bounds every wait. It is long because a loaded machine is slow, not because it is needed.
const faultPatience = 2 * time.Minute

// TestFaults has plugins of every kind do everything that a plugin can do wrong, at every moment, and wants the server to
// stay up, others to be served, the policy of each kind to be kept, the plugin to come back, each message to arrive once,
// and nothing to be left behind. With -v it prints the table; times are from the end of the fault to the first good answer.
func TestFaults(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it looks into /proc, and listens on many loopback addresses")
	}
	results := map[string]string{}
	var mu sync.Mutex
	rigs := make([]*faultRig, len(faultKinds))
	for i, kind := range faultKinds {
		rigs[i] = newFaultRig(t, kind, i)
	}
	if *allFaults {
		for _, r := range rigs { // how it is without a fault
			stop := r.others()
			time.Sleep(2 * time.Second)
			stop()
			r.calm, r.took = percentile(r.took, 99), nil
		}
	}
	var wg sync.WaitGroup
	atOnce := make(chan struct{}, 16) // most of them only wait
	if *allFaults {
		atOnce = make(chan struct{}, 4) // for the figures
	}
	for i, r := range rigs {
		stop := r.others()
		var cells sync.WaitGroup
		for n, f := range faults {
			cells.Go(func() {
				for j, m := range moments {
					if !chosen(n, j, i) {
						continue
					}
					atOnce <- struct{}{}
					words := (&cell{faultRig: r, fault: f, moment: m}).run()
					<-atOnce
					mu.Lock()
					results[f+" "+m+" "+r.kind] = words
					mu.Unlock()
				}
			})
		}
		wg.Go(func() {
			cells.Wait()
			stop()
			r.end()
		})
	}
	wg.Wait()
	t.Log(faultTable(results))
	for _, r := range rigs {
		t.Logf("%-13s %d other sessions: p50 %v, p99 %v; p99 without a fault %v", r.kind, len(r.took), percentile(r.took, 50), percentile(r.took, 99), r.calm)
	}
	var stats runtime.MemStats
	if runtime.ReadMemStats(&stats); stats.Sys > 1<<30 {
		t.Errorf("the server took %d MiB", stats.Sys>>20)
	}
}

func faultTable(results map[string]string) string {
	var b strings.Builder
	row := func(first string, list []string) {
		fmt.Fprintf(&b, "\n%-18s", first)
		for _, s := range list {
			fmt.Fprintf(&b, " %-14s", s)
		}
	}
	row("", faultKinds)
	for _, f := range faults {
		for _, m := range moments {
			var list []string
			for _, k := range faultKinds {
				list = append(list, results[f+" "+m+" "+k])
			}
			row(f+", "+m, list)
		}
	}
	return b.String()
}

func percentile(list []time.Duration, n int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)*n/100].Round(100 * time.Microsecond)
}

// others keeps a client busy that has nothing to do with the plugins under test, until stop.
func (r *faultRig) others() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.Tick(50 * time.Millisecond); ; <-tick {
			select {
			case <-done:
				return
			default:
			}
			began := time.Now()
			s := r.session("plain")
			if _, _, code := r.send(s, "bob@else.example", "ann@here.example", 1000); code != 250 {
				r.t.Errorf("%s: another session was answered %s", r.kind, s)
			}
			s.close()
			r.mu.Lock()
			r.took = append(r.took, time.Since(began))
			r.mu.Unlock()
		}
	}()
	return func() { close(done); <-ended }
}

// end wants every message to have arrived once, and nothing to be left of the server.
func (r *faultRig) end() {
	if !until(func() bool {
		r.hurry()
		return r.queued() == 0
	}) {
		r.t.Errorf("%s: %d messages are still in the queue", r.kind, r.queued())
	}
	for tag := range r.accepted {
		if got := len(r.stored(tag)) + len(r.sink.got(tag)); got != 1 {
			r.t.Errorf("%s: message %s arrived %d times: %q", r.kind, tag, got, r.stored(tag))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), faultPatience)
	defer cancel()
	r.engine.Close(ctx)
	if !until(func() bool { return len(r.alive()) == 0 }) {
		r.t.Errorf("%s: processes are left: %v", r.kind, r.alive())
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "var", "run", "room-*")); len(left) > 0 {
		r.t.Errorf("%s: left in the run directory: %v", r.kind, left)
	}
}

// alive returns the processes that have our directory in their environment, as all children of the plugins have.
func (r *faultRig) alive() (list []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		if env, err := os.ReadFile(f); err == nil && strings.Contains(string(env), r.dir+"/") {
			list = append(list, f)
		}
	}
	return list
}

// until asks until the answer is yes.
func until(ask func() bool) bool {
	for end := time.Now().Add(faultPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return false
}

// cell is one field of the matrix.
type cell struct {
	*faultRig
	fault, moment string
}

func (c *cell) file() string { return filepath.Join(c.dir, c.fault, "fault") }

// able reports that the plugin can answer in spite of the fault; must, that it can't.
func (c *cell) able() bool { return c.fault == "handshake" && c.moment != "start" }

func (c *cell) must() bool {
	return !c.able() && (c.moment != "idle" || c.fault == "slow" || c.fault == "stop")
}

// run makes the fault happen and returns how long the plugin took to come back after it, in words.
func (c *cell) run() string {
	fail := func(err error) string {
		c.t.Errorf("%s, %s, %s: %v", c.fault, c.moment, c.kind, err)
		_ = os.Remove(c.file())
		return "FAILED"
	}
	if err := c.back(); err != nil {
		return fail(fmt.Errorf("before the fault: %w", err))
	}
	before := c.status(c.fault)
	if err := os.WriteFile(c.file(), []byte(c.moment+" "+c.fault), 0o600); err != nil {
		return fail(err)
	}
	if err := c.provoke(before.PID, before.Restarts); err != nil {
		return fail(err)
	}
	err := c.probe()
	if c.able() {
		err = c.back() // while the fault lasts
	}
	if err == nil {
		err = c.printable()
	}
	_ = os.Remove(c.file())
	began := time.Now()
	if err != nil {
		return fail(err)
	}
	if err := c.back(); err != nil {
		return fail(fmt.Errorf("after the fault: %w", err))
	}
	return fmt.Sprintf("ok %.1fs", time.Since(began).Seconds())
}

// provoke makes the moment come, and waits for the fault where it comes by itself.
func (c *cell) provoke(pid, restarts int) error {
	switch {
	case c.moment == "start":
		return syscall.Kill(pid, syscall.SIGKILL)
	case c.moment == "call" || c.able() || c.fault == "slow":
		return nil
	case c.fault == "stop":
		if !until(func() bool { return stopped(pid) || c.status(c.fault).Restarts > restarts }) {
			return errors.New("the plugin did not stop")
		}
	case !until(func() bool { return c.status(c.fault).Restarts > restarts }):
		return errors.New("the server did not see it")
	}
	return nil
}

func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") T ")
}

// printable wants nothing that a plugin says of itself to reach an operator as it is.
func (c *cell) printable() error {
	s := c.status(c.fault)
	for _, text := range append(s.Kinds, s.Program, s.Version, s.Error) {
		if strings.ContainsAny(text, "\r\x00\x1b") || len(text) > 100<<10 {
			return fmt.Errorf("the status holds %.200q", text)
		}
	}
	return nil
}

// back waits until the plugin works.
func (c *cell) back() error {
	var err error
	if until(func() bool { err = c.good(); return err == nil }) {
		return nil
	}
	return fmt.Errorf("the plugin did not come back: %w; %+v", err, c.status(c.fault))
}

// judge compares what came of a probe with what has to.
func (c *cell) judge(what, reply string, good, kept bool) error {
	switch {
	case good && !c.must(), kept:
		return nil
	}
	return fmt.Errorf("%s: %s", what, reply)
}

// probe asks the plugin in its fault, and wants the policy of its kind.
func (c *cell) probe() error {
	switch c.kind {
	case "authenticator":
		return c.probeLogin()
	case "filter":
		return c.probeFilter()
	case "bounce":
		return c.probeReport()
	default:
		return c.probeDelivery()
	}
}

// good returns an error unless the plugin does its work.
func (c *cell) good() error {
	switch c.kind {
	case "authenticator":
		return c.goodLogin()
	case "filter":
		return c.goodFilter()
	case "bounce":
		return c.goodReport()
	default:
		return c.goodDelivery()
	}
}
