//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pabal-mta/mta/cmd/mtabench/meter"
	"github.com/pabal-mta/mta/cmd/mtabench/peer"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
	"github.com/pabal-mta/mta/cmd/mtabench/scenario"
	"github.com/pabal-mta/mta/cmd/mtabench/sink"
	"github.com/pabal-mta/mta/cmd/mtabench/testbed"
)

const sinkPort = 2600

// errInterrupted ends a run before its time. What was measured is kept, but for what was under way.
var errInterrupted = errors.New("interrupted")

// measure is the command without a name. Outside it builds our server and enters the testbed, where it runs again.
func (o *options) measure(ctx context.Context, stdout, stderr io.Writer) (int, error) {
	peers, scenarios, err := o.chosen()
	if err != nil {
		return exitUsage, err
	}
	if testbed.Inside() {
		return o.inside(ctx, peers, scenarios, stdout, stderr)
	}
	if testbed.Outside() {
		if err := testbed.Permitted(); err != nil {
			return exitWrong, err
		}
		unlock, err := o.prepare(ctx, peers, stderr)
		if err != nil {
			return exitWrong, err
		}
		defer unlock()
	}
	return testbed.Enter(testbed.Plan{Dir: o.dir, Usr: peer.Usr(o.dir), Users: peer.Users()})
}

func (o *options) chosen() ([]*peer.Peer, []scenario.Scenario, error) {
	names := strings.Split(o.peers, ",")
	if o.peers == "all" {
		names = peer.Names()
	}
	var peers []*peer.Peer
	for _, name := range names {
		p, err := peer.Find(name)
		if err != nil {
			return nil, nil, err
		}
		peers = append(peers, p)
	}
	names = strings.Split(o.scenarios, ",")
	if o.scenarios == "all" {
		names = nil
		for _, s := range scenario.All(o.count) {
			if !slices.Contains(scenario.Long, s.Name) {
				names = append(names, s.Name)
			}
		}
	}
	scenarios, err := scenario.Find(names, o.count)
	return peers, scenarios, err
}

// prepare makes the folder, for this run alone, and builds our server.
func (o *options) prepare(ctx context.Context, peers []*peer.Peer, stderr io.Writer) (unlock func(), err error) {
	for _, d := range []string{"bin", "run"} {
		if err := os.MkdirAll(filepath.Join(o.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(o.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another mtabench works in %s; wait for it, or give another -dir", o.dir)
	}
	if slices.ContainsFunc(peers, func(p *peer.Peer) bool { return p.Kit == "mta" }) {
		err = build(ctx, filepath.Join(o.dir, "bin"), stderr)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// build builds our server, and the plugin that does nothing, from the clone that we are in.
func build(ctx context.Context, bin string, stderr io.Writer) error {
	const module = "github.com/pabal-mta/mta"
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin+"/", module+"/cmd/mta", module+"/cmd/mtabench/noop")
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("our server can't be built (%w): is this a clone of it? mtabench is to be run inside one", err)
	}
	return nil
}

// inside measures.
func (o *options) inside(ctx context.Context, peers []*peer.Peer, scenarios []scenario.Scenario, stdout, stderr io.Writer) (int, error) {
	progress := func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	peers = slices.DeleteFunc(peers, func(p *peer.Peer) bool {
		err := p.Missing(o.dir)
		if err != nil {
			progress("left out: %v", err)
		}
		return err != nil
	})
	if err := testbed.Serve(ctx); err != nil {
		return exitWrong, err
	}
	bench := &scenario.Bench{Dir: o.dir, Groups: testbed.Groups(o.dir), SinkPort: sinkPort, Progress: progress,
		Sink: sink.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(sinkPort)))}
	for _, s := range scenarios {
		for _, p := range peers {
			if err := s.Suits(p); err != nil {
				progress("left out: %v", err)
			}
		}
	}
	machine, err := o.describe(peers)
	if err != nil {
		return exitWrong, err
	}
	records := []report.Record{{Machine: machine}}
	if err := o.save(records[0]); err != nil {
		return exitWrong, err
	}
	err = o.eachRound(ctx, peers, scenarios, func(p *peer.Peer, s scenario.Scenario, round int) error {
		r := bench.Run(ctx, p, s, round)
		if ctx.Err() != nil {
			return errInterrupted
		}
		records = append(records, r)
		progress("%s", brief(r))
		return o.save(r)
	})
	err = errors.Join(err, o.print(stdout, records))
	if err == nil && slices.ContainsFunc(records, func(r report.Record) bool { return r.Wrong != "" || r.Error != "" }) {
		err = errors.New("not everything was right: see WRONG above")
	}
	return 0, err
}

// eachRound goes through everything, each second round backwards so that a slow drift of the machine cancels out.
func (o *options) eachRound(ctx context.Context, peers []*peer.Peer, scenarios []scenario.Scenario, do func(*peer.Peer, scenario.Scenario, int) error) error {
	for round := o.first; round < o.first+o.rounds; round++ {
		order := slices.Clone(peers)
		if round%2 == 0 {
			slices.Reverse(order)
		}
		for _, s := range scenarios {
			for _, p := range order {
				if s.Suits(p) != nil {
					continue
				}
				if ctx.Err() != nil {
					return errInterrupted
				}
				if err := do(p, s, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (o *options) describe(peers []*peer.Peer) (*report.Machine, error) {
	run := filepath.Join(o.dir, "run")
	m, err := report.Describe(run)
	if err != nil {
		return nil, err
	}
	m.Command = "go run ./cmd/mtabench " + strings.Join(os.Args[1:], " ")
	for _, p := range peers {
		m.Peers = append(m.Peers, report.About{Name: p.Name, Version: p.Version(o.dir), Notes: p.Notes})
	}
	if _, problem := meter.SyncsOn(run); problem != "" {
		m.Notes = append(m.Notes, "syncs are not counted: "+problem)
	}
	m.Notes = append(m.Notes, "generator and sink run on the same cores; messages go to one domain, over one destination")
	return m, nil
}

// save adds a record to the file of -out.
func (o *options) save(r report.Record) (err error) {
	if o.out == "" {
		return nil
	}
	f, err := os.OpenFile(o.out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return json.NewEncoder(f).Encode(r)
}

// brief is a record in a line, for who watches.
func brief(r report.Record) string {
	line := fmt.Sprintf("round %d %-14s %-14s", r.Round, r.Scenario, r.Peer)
	for _, f := range []struct{ name, format string }{
		{report.AcceptRate, " accepted %.0f/s"}, {report.AcceptP50, " p50 %.1f"}, {report.AcceptP99, " p99 %.1f ms"},
		{report.EndToEndRate, ", through %.0f/s"}, {report.FillShare, ", last tenth %.2f of the first"},
		{report.DrainRate, ", drained at %.0f/s"}, {report.CPU, ", CPU %.3f s/1000"}, {report.Missing, ", missing %.0f"},
		{report.Anon, ", anon %.0f MiB"}, {report.Noise, ", noise %.2f cores"},
	} {
		if v, ok := r.Figures[f.name]; ok {
			line += fmt.Sprintf(f.format, v)
		}
	}
	for _, text := range []string{r.Error, r.Wrong, r.Sample} {
		if text != "" {
			line += " | " + text
		}
	}
	return line
}
