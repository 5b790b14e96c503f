//go:build linux

// Command mtabench measures mail servers side by side: ours, built from this clone, and Postfix, OpenSMTPD, Exim and Haraka
// where they are installed. Each peer relays the same load from the generator to the sink, both of them in this program;
// rounds are interleaved; every message carries a number and a checksum, and each of its recipients has to be reached
// exactly once. Everything happens in namespaces with nothing but loopback, and ends with the command. Linux and root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pabal-mta/mta/cmd/mtabench/peer"
	"github.com/pabal-mta/mta/cmd/mtabench/report"
	"github.com/pabal-mta/mta/cmd/mtabench/scenario"
	"github.com/pabal-mta/mta/cmd/mtabench/testbed"
)

const usage = `mtabench measures mail servers side by side. Linux and root.

  mtabench [FLAGS]           measure, and print a table (Markdown)
  mtabench setup [KIT...]    download peers below -dir: %s
  mtabench table FILE...     the table of the records of earlier runs
  mtabench list              the peers and the scenarios

  mtabench -peers direct,postfix,mta -scenarios e2e-4k -rounds 3
  mtabench -peers mta,mta:/tmp/older -base mta             another build beside this one
  mtabench -peers mta,mta-noop -base mta                   what a plugin costs
  mtabench -peers mta -scenarios million -count 1000000 -rounds 1
  mtabench -peers mta -scenarios dead -count 900000 -rounds 1

FLAGS, before the files:
`

// Exit codes, as those of mta.
const (
	exitWrong = 1
	exitUsage = 2
)

// options are the flags.
type options struct {
	peers, scenarios, dir, out, base string
	rounds, first, count             int
	json                             bool
	maxNoise                         float64
	rest                             []string
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole program.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return exitUsage
	}
	code, err := o.execute(ctx, command, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "mtabench:", err)
		return max(code, exitWrong)
	}
	return code
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("mtabench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintf(stderr, usage, strings.Join(peer.Kits(), ", "))
		f.PrintDefaults()
	}
	f.StringVar(&o.peers, "peers", "direct,postfix,postfix-tuned,mta", "who is measured, or all")
	f.StringVar(&o.scenarios, "scenarios", "acc-c20-p100,acc-c100-p100,e2e-4k,e2e-4k-c100", "what is measured, or all (but million and dead)")
	f.StringVar(&o.dir, "dir", "/var/tmp/mtabench", "a folder on a real disk, for programs and queues")
	f.StringVar(&o.out, "out", "", "add the records to this file")
	f.StringVar(&o.base, "base", "postfix", "the peer that ratios are to")
	f.IntVar(&o.rounds, "rounds", 3, "how often")
	f.IntVar(&o.first, "first", 1, "the number of the first round; each second one goes backwards")
	f.IntVar(&o.count, "count", 1_000_000, "how many messages the scenarios million and dead queue")
	f.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	f.Float64Var(&o.maxNoise, "max-noise", 0, "leave out records during which everything else used more cores than this; 0 keeps all")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.rest = f.Args()
	err := o.check()
	if err != nil {
		fmt.Fprintln(stderr, "mtabench:", err)
	}
	return o, err
}

func (o *options) check() (err error) {
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.rounds < 1 || o.count < 100 {
		return errors.New("-rounds is at least 1, and -count at least 100")
	}
	if under := testbed.Covers(o.dir); under != "" {
		return fmt.Errorf("%s is below %s, which is covered while peers run; give another -dir", o.dir, under)
	}
	return nil
}

func (o *options) execute(ctx context.Context, command string, stdout, stderr io.Writer) (int, error) {
	if len(o.rest) > 0 && (command == "run" || command == "list") {
		return exitUsage, fmt.Errorf("%q is no flag; try: mtabench -help", o.rest[0])
	}
	switch command {
	case "run":
		return o.measure(ctx, stdout, stderr)
	case "setup":
		return 0, o.setup(ctx, stderr)
	case "table":
		return 0, o.table(stdout)
	case "list":
		o.list(stdout)
		return 0, nil
	case "help":
		_, err := parse([]string{"-help"}, stdout)
		return 0, ignoreHelp(err)
	default:
		return exitUsage, fmt.Errorf("there is no command %q; try: mtabench -help", command)
	}
}

func ignoreHelp(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func (o *options) setup(ctx context.Context, stderr io.Writer) error {
	kits := o.rest
	if len(kits) == 0 {
		kits = peer.Kits()
	}
	for _, kit := range kits {
		if !slices.Contains(peer.Kits(), kit) {
			return fmt.Errorf("there is no kit %q; there are: %s", kit, strings.Join(peer.Kits(), ", "))
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root: what is unpacked has to keep its owners and modes; try sudo")
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	var failed []error
	for _, kit := range kits {
		fmt.Fprintln(stderr, "setting up", kit)
		if err := peer.Install(ctx, o.dir, kit, stderr); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", kit, err))
		}
	}
	return errors.Join(failed...)
}

func (o *options) table(stdout io.Writer) error {
	if len(o.rest) == 0 {
		return errors.New("no file is named; try: mtabench table results.jsonl")
	}
	records, err := report.Read(o.rest...)
	if err != nil {
		return err
	}
	return o.print(stdout, records)
}

func (o *options) print(w io.Writer, records []report.Record) error {
	s := report.Summarize(records, o.maxNoise)
	if o.json {
		return s.JSON(w)
	}
	s.Table(w, o.base)
	return nil
}

func (o *options) list(w io.Writer) {
	fmt.Fprintln(w, "peers:")
	for _, name := range peer.Names() {
		if p, err := peer.Find(name); err == nil {
			fmt.Fprintf(w, "  %-16s %s\n", name, p.Notes)
		}
	}
	fmt.Fprintln(w, "scenarios:")
	for _, s := range scenario.All(o.count) {
		fmt.Fprintf(w, "  %-16s %s\n", s.Name, s.Doc)
	}
}
