//go:build linux

// Package scenario is what is measured: each scenario sends a load to a peer that was started afresh, waits until it has
// arrived, and makes a record of it. Every wait has an end.
package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pabal-mta/mta/cmd/mtabench/load"
	"github.com/pabal-mta/mta/cmd/mtabench/peer"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
	"github.com/pabal-mta/mta/cmd/mtabench/sink"
)

// Scenario is one of the things that are measured.
type Scenario struct {
	Name string
	Doc  string

	load  load.Spec
	drain time.Duration // how long we wait for the rest
	run   func(context.Context, *trial) error
	who   wants
}

// wants says whom a scenario is for.
type wants int

const (
	anyone  wants = iota
	servers       // not the direct way
	ourOwn
)

// Suits says in words why the peer is not measured in the scenario; nil when it is.
func (s Scenario) Suits(p *peer.Peer) error {
	switch {
	case s.who == servers && p.Name == peer.Direct:
		return fmt.Errorf("%s is for servers, not for %s", s.Name, p.Name)
	case s.who == ourOwn && p.Kit != "mta":
		return fmt.Errorf("%s is for our own server alone: a queue of a file a message takes hours", s.Name)
	}
	return nil
}

// Long are the scenarios that "all" leaves out.
var Long = []string{"million", "dead"}

// All are the scenarios that there are; count is how many messages the long ones queue.
func All(count int) []Scenario {
	list := []Scenario{{Name: "idle", Doc: "memory and CPU of a server that has nothing to do, and its start", run: idle, who: servers}}
	for _, connections := range []int{1, 20, 100} {
		for _, perConn := range []int{1, 100} {
			list = append(list, Scenario{
				Name: fmt.Sprintf("acc-c%d-p%d", connections, perConn),
				Doc:  fmt.Sprintf("a burst of 3 s: 4 KiB, %d connections, %d messages on each", connections, perConn),
				load: load.Spec{Connections: connections, PerConn: perConn, Size: 4 << 10, Recipients: 1, Time: 3 * time.Second},
				run:  through, drain: 15 * time.Second,
			})
		}
	}
	e2e := func(name, doc string, connections, size, recipients int) Scenario {
		return Scenario{Name: name, Doc: doc, run: through, drain: 30 * time.Second,
			load: load.Spec{Connections: connections, PerConn: 100, Size: size, Recipients: recipients, Time: 8 * time.Second}}
	}
	queued := func(name, doc string, who wants, n int, limit time.Duration, run func(context.Context, *trial) error) Scenario {
		return Scenario{Name: name, Doc: doc, run: run, who: who, drain: 2 * time.Minute,
			load: load.Spec{Connections: 20, PerConn: 100, Size: 4 << 10, Recipients: 1, Messages: n, Time: limit}}
	}
	return append(list,
		e2e("e2e-4k", "8 s of 4 KiB on 20 connections, until all has arrived", 20, 4<<10, 1),
		e2e("e2e-4k-c100", "the same on 100 connections", 100, 4<<10, 1),
		e2e("e2e-100k", "8 s of 100 KiB on 20 connections", 20, 100<<10, 1),
		e2e("e2e-50rcpt", "8 s of 4 KiB for 50 recipients on 20 connections", 20, 4<<10, 50),
		queued("queue50k", "the sink is down: 50,000 are queued; it comes back, and they leave", servers, 50_000, 3*time.Minute, backlog),
		queued("million", fmt.Sprintf("ours only: %d are queued, the server restarts, the sink comes back", count), ourOwn, count, time.Hour, million),
		queued("dead", fmt.Sprintf("ours only: e2e-4k beside %d that wait for a dead host", count), ourOwn, count, time.Hour, besideDead),
	)
}

// Find returns the scenarios of these names, in this order.
func Find(names []string, count int) ([]Scenario, error) {
	all := All(count)
	var found []Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.Name)
			}
			return nil, fmt.Errorf("there is no scenario %q; there are: %s", name, strings.Join(known, ", "))
		}
		found = append(found, all[i])
	}
	return found, nil
}

// Bench is where scenarios are run.
type Bench struct {
	Dir, Groups string // of the testbed
	Sink        *sink.Sink
	SinkPort    int
	Progress    func(format string, args ...any) // of long work

	runs int
}

// Run starts the peer, measures, stops it, and removes what it kept.
func (b *Bench) Run(ctx context.Context, p *peer.Peer, s Scenario, round int) report.Record {
	rec := report.Record{Peer: p.Name, Scenario: s.Name, Round: round, Figures: map[string]float64{}}
	t := &trial{Bench: b, scenario: s, rec: &rec}
	err := s.Suits(p)
	if err == nil {
		err = t.whole(ctx, p)
	}
	if err != nil {
		rec.Error, rec.Figures = err.Error(), nil
	}
	return rec
}
