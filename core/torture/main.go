// Torture runs the server under faults and shows that it keeps its promise: after the 250 to a message it is on stable
// storage, and it ends delivered, reported, or visible in the queue, whatever is killed or unplugged.
//
//	go run ./core/torture [flags] [part ...]
//
// README.md beside the rooms says what each part does and what it has found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/trial"
)

// errFaults says that a promise was broken, which was printed already.
var errFaults = errors.New("the server broke its promise, or the harness is blind")

// torture is one run of the command.
type torture struct {
	out     io.Writer
	seed    uint64
	kills   int
	clocks  int
	cuts    int
	fulls   int
	errs    int
	calls   string
	dir     string // for what is built
	module  string
	program string // the server; "" until it is built
	mutated string // the server with all mutants, and a wall clock that can be set; "" until it is built
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 4 && os.Args[1] == handCommand {
		if err := trial.Hand(ctx, os.Args[2], os.Args[3], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "torture:", err)
		}
		stop()
		os.Exit(1)
	}
}

// handCommand makes this program the process that uses the queue while system calls fail under it.
const handCommand = "hand"

// full fills the disk and empties it.
func (t *torture) full(ctx context.Context) error {
	program, err := t.server(ctx)
	if err != nil {
		return err
	}
	f := &trial.Full{Program: program, Address: trial.Loopback(), Seed: t.seed, Cycles: t.fulls, Out: t.out}
	v, err := f.Run(ctx)
	return t.judge(v, err)
}

// steps has the peers cut.
func (t *torture) steps(ctx context.Context) error {
	program, err := t.server(ctx)
	if err != nil {
		return err
	}
	c := &trial.Cuts{Program: program, Address: trial.Loopback(), Rounds: 5, Out: t.out}
	v, err := c.Run(ctx)
	return t.judge(v, err)
}

// errors lets system calls fail.
func (t *torture) errors(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f := &trial.Fail{Hand: []string{self, handCommand}, Calls: trial.Failures(t.calls), Most: t.errs, Out: t.out}
	v, err := f.Run(ctx)
	return t.judge(v, err)
}

// part is a part of the torture.
type part struct {
	name, what string
	run        func(*torture, context.Context) error
}

var parts = []part{
	{"mutants", "deliberate mistakes in the server, each of which must be caught", (*torture).catch},
	{"power", "cuts of the power under load, at moments of the past of a disk that remembers it (root)", (*torture).power},
	{"full", "the disk is filled by somebody else under load, and emptied again (root)", (*torture).full},
	{"cuts", "peers that cut the connection at every step of the dialogue", (*torture).steps},
	{"errors", "each system call that the queue makes fails once", (*torture).errors},
	{"kill", "SIGKILL of the server and of plugins under load, and peers that cut", (*torture).kill},
	{"clock", "the same, and the wall clock is set by seconds, hours and 30 days, forward and back", (*torture).clock},
}

func run(ctx context.Context, args []string) (err error) {
	t := &torture{out: os.Stdout}
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.Uint64Var(&t.seed, "seed", rand.Uint64()>>32, "of all decisions")
	flags.IntVar(&t.kills, "kills", 20, "cycles of the part kill")
	flags.IntVar(&t.clocks, "clocks", 8, "cycles of the part clock")
	flags.IntVar(&t.cuts, "cuts", 20, "cuts of the part power")
	flags.IntVar(&t.fulls, "fulls", 4, "cycles of the part full")
	flags.StringVar(&t.calls, "calls", "", "only these system calls of the part errors, separated by commas")
	flags.IntVar(&t.errs, "errors", 3, "of each kind of error, how many calls fail in the part errors; 0: each call in its turn")
	flags.StringVar(&t.program, "program", "", "the server program (default: it is built from this module)")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: go run ./core/torture [flags] [part ...]\n\nparts, all in this order unless some are named:")
		for _, p := range parts {
			fmt.Fprintf(flags.Output(), "  %-8s %s\n", p.name, p.what)
		}
		fmt.Fprintln(flags.Output(), "\nflags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(flags.Args())
	if err != nil {
		return err
	}
	if err := t.prepare(); err != nil {
		return err
	}
	defer os.RemoveAll(t.dir)
	var failed []string
	for _, p := range chosen {
		fmt.Fprintf(t.out, "== %s: %s (-seed %d)\n", p.name, p.what, t.seed)
		began := time.Now()
		switch err := p.run(t, ctx); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, trial.ErrNotHere):
			fmt.Fprintf(t.out, "%s: skipped: %v\n", p.name, err)
		case err != nil:
			fmt.Fprintf(t.out, "%s: FAILED after %.0fs: %v\n", p.name, time.Since(began).Seconds(), err)
			failed = append(failed, p.name)
		default:
			fmt.Fprintf(t.out, "%s: well, in %.0fs\n", p.name, time.Since(began).Seconds())
		}
	}
	if failed != nil {
		return fmt.Errorf("%w: %s", errFaults, strings.Join(failed, ", "))
	}
	return nil
}

// choose finds the parts by their names.
func choose(names []string) (chosen []part, err error) {
	if len(names) == 0 {
		return parts, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no part %q; -h lists them", name)
		}
		chosen = append(chosen, parts[i])
	}
	return chosen, nil
}

func (t *torture) prepare() error {
	at, err := os.Getwd()
	if err != nil {
		return err
	}
	if t.module, err = trial.Module(at); err != nil {
		return err
	}
	t.dir, err = os.MkdirTemp("", "mta-torture-")
	return err
}

// server returns the server program, and builds it first where it has to.
func (t *torture) server(ctx context.Context) (trial.Program, error) {
	if t.program == "" {
		at := filepath.Join(t.dir, "mta")
		if err := trial.Build(ctx, t.module, at); err != nil {
			return trial.Program{}, err
		}
		t.program = at
	}
	return trial.Program{Path: t.program}, nil
}

// kill does the cycles in batches, with an audit after each.
func (t *torture) kill(ctx context.Context) error {
	program, err := t.server(ctx)
	if err != nil {
		return err
	}
	k := &trial.Kill{Program: program, Address: trial.Loopback(), Seed: t.seed, Cycles: t.kills, Batch: 50, Connections: 8, Cuts: 0.01, Out: t.out}
	v, err := k.Run(ctx)
	return t.judge(v, err)
}

// clock does the same while the wall clock is set.
func (t *torture) clock(ctx context.Context) error {
	program, err := t.mutants(ctx)
	if err != nil {
		return err
	}
	k := &trial.Kill{
		Program: trial.Program{Path: program}, Address: trial.Loopback(), Seed: t.seed, Cycles: t.clocks, Batch: 50, Connections: 8, Cuts: 0.01, Wall: true, Out: t.out,
	}
	v, err := k.Run(ctx)
	return t.judge(v, err)
}

// judge prints what a part has found.
func (t *torture) judge(v ledger.Verdict, err error) error {
	if err != nil {
		return err
	}
	const enough = 20
	for i, f := range v.Faults {
		if i == enough {
			fmt.Fprintf(t.out, "  and %d more\n", len(v.Faults)-enough)
			break
		}
		fmt.Fprintln(t.out, "  "+f.String())
	}
	fmt.Fprintf(t.out, "in all: %v\n", v)
	if len(v.Faults) > 0 {
		return errFaults
	}
	return nil
}

// power cuts the power of the queue's disk.
func (t *torture) power(ctx context.Context) error {
	program, err := t.server(ctx)
	if err != nil {
		return err
	}
	p := &trial.Power{Program: program, Address: trial.Loopback(), Seed: t.seed, Points: t.cuts, Connections: 8, Out: t.out}
	v, err := p.Run(ctx)
	return t.judge(v, err)
}

// mutants returns the server program with all mutants in it, and builds it first where it has to.
func (t *torture) mutants(ctx context.Context) (program string, err error) {
	if t.mutated == "" {
		t.mutated, err = trial.BuildMutants(ctx, t.module, t.dir)
	}
	return t.mutated, err
}

// catch shows that each mistake is caught by a short run of the fault that shows it.
func (t *torture) catch(ctx context.Context) error {
	program, err := t.mutants(ctx)
	if err != nil {
		return err
	}
	if err := t.control(ctx, program); err != nil {
		return err
	}
	var missed []string
	for i := range trial.Mutants {
		m := &trial.Mutants[i]
		began := time.Now()
		v, err := t.provoke(ctx, m, program, 12, 20)
		if errors.Is(err, trial.ErrNotHere) {
			fmt.Fprintf(t.out, "mutant %-50q skipped: %v\n", m.Name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("mutant %q: %w", m.Name, err)
		}
		kinds := v.Kinds()
		caught := slices.ContainsFunc(m.Caught, func(k ledger.Kind) bool { return kinds[k] > 0 })
		fmt.Fprintf(t.out, "mutant %-50q caught: %-5v by %d outages in %.0fs: %v\n", m.Name, caught, v.Outages, time.Since(began).Seconds(), kinds)
		if !caught {
			missed = append(missed, m.Name)
		}
	}
	if missed != nil {
		return fmt.Errorf("the harness is blind to %q", missed)
	}
	return nil
}

// control runs the faults that show mistakes with all of them asleep: who accuses everybody has caught nobody.
func (t *torture) control(ctx context.Context, program string) error {
	for _, m := range []trial.Mutant{{By: trial.ByCut}, {By: trial.ByWall}, {}} {
		v, err := t.provoke(ctx, &m, program, 4, 6)
		if errors.Is(err, trial.ErrNotHere) {
			continue
		}
		if err != nil {
			return fmt.Errorf("no mutant: %w", err)
		}
		if kinds := v.Kinds(); len(kinds) > 0 {
			return fmt.Errorf("the harness accuses a server without a mistake of %v", kinds)
		}
	}
	fmt.Fprintln(t.out, "no mutant: nothing is found")
	return nil
}

// provoke runs a mutant under the fault that shows its mistake, until it shows: so many kills or cuts at most.
func (t *torture) provoke(ctx context.Context, m *trial.Mutant, program string, kills, cuts int) (ledger.Verdict, error) {
	if m.By == trial.ByCut {
		p := &trial.Power{Program: m.Arm(program), Address: trial.Loopback(), Seed: t.seed, Points: cuts, Each: 5, Length: time.Second, Connections: 8, Out: io.Discard}
		return p.Run(ctx)
	}
	k := &trial.Kill{
		Program: m.Arm(program), Address: trial.Loopback(), Seed: t.seed, Cycles: kills, Batch: 3, Connections: 8, Cuts: 0.02,
		Wall: m.By == trial.ByWall, Pause: 2 * time.Millisecond, Settle: 5 * time.Second, Out: io.Discard,
	}
	return k.Run(ctx)
}
