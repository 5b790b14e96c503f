package engine

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The matrix: what a plugin can do wrong, what it is asked for, and when it happens.
var (
	faults     = []string{"exit", "kill", "stop", "slow", "panic", "handshake", "garbage", "huge", "hostile", "leak"}
	faultKinds = []string{"authenticator", "store", "converter", "bounce", "filter"}
	moments    = []string{"idle", "call", "start"}
)

var (
	allFaults = flag.Bool("faults", false, "the whole matrix of faults with its figures, not a selection")
	onlyCells = flag.String("cells", "", "of the matrix, only the cells whose names hold this, such as 'hostile, call, store'")
)

// chosen tells whether a cell is made. A plain run has each fault in each kind at one of the moments; with the race
// detector, where all takes ten times as long, each fault in one of the kinds.
func chosen(fault, moment, kind int) bool {
	return *allFaults || (fault+kind)%len(moments) == moment && (!raceDetector || fault%len(faultKinds) == kind)
}

const (
	// faultPatience bounds every wait. It is long because a loaded machine is slow, not because it is needed.
	faultPatience = 2 * time.Minute
	// restartBound is what a plugin may take from the death of the process that misbehaved to the first good answer.
	restartBound = 2 * time.Second
	// maxAgain is how many cells are tried once more. Where more fail, it is not the machine.
	maxAgain = 10
)

// TestFaults has plugins of every kind do everything that a plugin can do wrong, at every moment, and wants the server to
// stay up, others to be served, the policy of each kind to be kept, the plugin to come back, each message to arrive once,
// and nothing to be left behind. With -v it prints the table.
//
// With -faults it also measures, and a cell fails whose plugin took more than two seconds to be back, or in which the 99th
// percentile of other sessions was more than twice the calm one, and that of a server beside it. Such a cell is then tried
// once more, alone, and the table says so: on a busy machine one figure may be anybody's fault.
func TestFaults(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it looks into /proc, and listens on many loopback addresses")
	}
	rigs := make([]*faultRig, len(faultKinds))
	for i, kind := range faultKinds {
		rigs[i] = newFaultRig(t, kind, i)
	}
	atOnce, clients, every := 16, 1, 50*time.Millisecond // most of them only wait
	if *allFaults {
		atOnce, clients, every = 4, otherClients, otherEvery
	}
	all := rigs
	if *allFaults {
		beside := newFaultRig(t, quiet, len(rigs))
		for _, r := range rigs {
			r.beside = beside
		}
		all = append(all[:len(all):len(all)], beside)
	}
	var stops []func()
	for _, r := range all {
		stops = append(stops, r.serveOthers(clients, every))
		if *allFaults {
			r.rest()
		}
		if !*allFaults || r.kind == quiet {
			r.others.wanted.Add(1)
		}
	}
	cells := runCells(rigs, make(chan struct{}, atOnce))
	again := tryAgain(cells)
	results := map[string]string{}
	for _, c := range cells {
		results[c.name()] = c.words(again[c.name()])
		if c.err != nil {
			t.Errorf("%s: %v", c.name(), c.err)
		}
	}
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() {
			stops[i]()
			r.end()
		})
	}
	wg.Wait()
	t.Log(faultTable(results))
	for _, r := range all {
		list := r.since(time.Time{})
		t.Logf("%-13s %d other sessions: p50 %v, p99 %v; without a fault (%d): p50 %v, p99 %v", r.kind, len(list),
			percentile(list, 50), percentile(list, 99), len(r.others.calm), percentile(r.others.calm, 50), percentile(r.others.calm, 99))
	}
	var stats runtime.MemStats
	if runtime.ReadMemStats(&stats); stats.Sys > 1<<30 {
		t.Errorf("the server took %d MiB", stats.Sys>>20)
	}
}

// runCells runs the chosen cells, as many at once as there is room; of those that need a processor, half as many.
func runCells(rigs []*faultRig, room chan struct{}) (cells []*cell) {
	busy := make(chan struct{}, (cap(room)+1)/2)
	var wg sync.WaitGroup
	for n, f := range faults {
		for i, r := range rigs {
			var row []*cell // of one plugin: one after the other
			for j, m := range moments {
				c := &cell{faultRig: r, fault: f, moment: m}
				if chosen(n, j, i) && strings.Contains(c.name(), *onlyCells) {
					row = append(row, c)
				}
			}
			cells = append(cells, row...)
			wg.Go(func() {
				for _, c := range row {
					if f != "stop" && f != "slow" {
						busy <- struct{}{}
					}
					room <- struct{}{}
					c.run()
					<-room
					if f != "stop" && f != "slow" {
						<-busy
					}
				}
			})
		}
	}
	wg.Wait()
	return cells
}

// tryAgain runs what has failed once more, alone and measured against the quiet before it.
func tryAgain(cells []*cell) (again map[string]error) {
	again = map[string]error{}
	for _, c := range cells {
		if c.err == nil || !c.timing {
			continue
		}
		if again[c.name()] = c.err; len(again) > maxAgain {
			return again
		}
		c.others.calm = nil
		c.rest()
		c.run()
	}
	return again
}

func faultTable(results map[string]string) string {
	var b strings.Builder
	row := func(first string, list []string) {
		fmt.Fprintf(&b, "\n%-18s", first)
		for _, s := range list {
			fmt.Fprintf(&b, " %-20s", s)
		}
	}
	row("", faultKinds)
	for _, f := range faults {
		for _, m := range moments {
			var list []string
			for _, k := range faultKinds {
				list = append(list, results[f+", "+m+", "+k])
			}
			row(f+", "+m, list)
		}
	}
	return b.String()
}

// end wants every message to have arrived once, and nothing to be left of the server.
func (r *faultRig) end() {
	if !until(func() bool {
		r.hurry()
		return r.queued() == 0
	}) {
		r.t.Errorf("%s: %d messages are still in the queue", r.kind, r.queued())
	}
	repeats := 0
	for tag := range r.accepted {
		stored, repeated := r.ledger.of(tag)
		if got := len(stored) + len(r.sink.got(tag)); got != 1 {
			r.t.Errorf("%s: message %s arrived %d times: %+v", r.kind, tag, got, stored)
		}
		repeats += repeated
	}
	for _, complaint := range r.ledger.complaints() {
		r.t.Errorf("%s: %s", r.kind, complaint)
	}
	r.t.Logf("%-13s %d messages arrived once; a store was asked %d times more, with the same ID, after a call that it had not answered", r.kind, len(r.accepted), repeats)
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
