package trial

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
)

// Kill is a trial in which the server is killed with SIGKILL under load, again and again on the same queue, and now and
// then one of its plugins, and in which the sinks cut connections. It proves that recovery is right; that each promise
// was synced, only a cut of the power can prove.
type Kill struct {
	Program     Program
	Address     string // where the server is to listen
	Seed        uint64
	Cycles      int
	Batch       int           // cycles between two audits; the server delivers everything before each; 0: all
	Connections int           // of the generator
	Cuts        float64       // the share of messages at which a sink cuts
	Pause       time.Duration // between two messages of a connection of the generator
	Settle      time.Duration // how long the queue may make no progress before an audit; 0: Patience
	Wall        bool          // the wall clock is set again and again, for which the program has to be built: see BuildMutants
	Out         io.Writer     // a line for each batch

	chance  *rand.Rand // the conductor's decisions
	stage   *stage
	wall    *wall // nil: it is left alone
	plugins int   // killed
}

// Run does it and returns what was found. An error means that the trial could not be done.
func (k *Kill) Run(ctx context.Context) (v ledger.Verdict, err error) {
	if k.Batch == 0 {
		k.Batch = k.Cycles
	}
	k.chance = rand.New(rand.NewPCG(k.Seed, 0))
	k.stage, err = open(k.Program, k.Address, k.Settle, k.Out, cutter(k.Seed, 1, k.Cuts), cutter(k.Seed, 2, k.Cuts))
	if err != nil {
		return v, err
	}
	defer func() { k.stage.close(err == nil && len(v.Faults) == 0) }()
	if err := k.stage.configure("var", "1MiB"); err != nil {
		return v, err
	}
	if k.Wall {
		if k.wall, err = newWall(k.stage.server.Dir); err != nil {
			return v, err
		}
		defer k.wall.file.Close()
	}
	for done := 0; done < k.Cycles && len(v.Faults) == 0; done += k.Batch {
		began := time.Now()
		n := min(k.Batch, k.Cycles-done)
		w, err := k.batch(ctx, n)
		if err != nil {
			return v, err
		}
		v = v.Plus(w)
		fmt.Fprintf(k.Out, "kill: cycles %d to %d of %d in %.0fs: %v; plugins killed so far: %d%s\n",
			done+1, done+n, k.Cycles, time.Since(began).Seconds(), w, k.plugins, k.wall)
	}
	if len(v.Faults) == 0 {
		err = k.stage.server.Stop(ctx)
	}
	return v, err
}

// batch does some cycles under load, lets the server deliver everything, and audits.
func (k *Kill) batch(ctx context.Context, cycles int) (v ledger.Verdict, err error) {
	book := k.stage.begin()
	g := &load{address: k.Address, next: &k.stage.next, pause: k.Pause, book: book}
	if k.stage.server.Dead() {
		if err := k.stage.server.Start(ctx); err != nil {
			return v, err
		}
	}
	g.start(k.Connections)
	for range cycles {
		if err = k.cycle(ctx, book); err != nil {
			break
		}
	}
	if err == nil {
		err = k.stage.server.Ready(ctx)
	}
	if err == nil {
		pause(ctx, 300*time.Millisecond) // what a start has found is under load too
	}
	g.stop()
	if err != nil {
		return v, err
	}
	return k.stage.end(ctx, book)
}

// decision is what is done in one cycle.
type decision struct {
	early  bool // the server is killed while it still starts
	plugin int  // which of its plugins is killed before; -1: none
	look   bool // the queue is listed from the files that the dead server left
	twin   bool // a second server is started in the same home, which must not disturb the first
	before time.Duration
	after  time.Duration // a plugin was killed, or would have been
}

func decide(chance *rand.Rand) decision {
	d := decision{early: chance.IntN(4) == 0, plugin: chance.IntN(100), look: chance.IntN(10) == 0}
	if chance.IntN(3) > 0 {
		d.plugin = -1
	}
	d.twin = !d.early && chance.IntN(10) == 0
	d.before = time.Duration(chance.IntN(250)) * time.Millisecond
	d.after = time.Duration(chance.IntN(250)) * time.Millisecond
	return d
}

// cycle lets the server work for a while, kills it, and starts it again.
func (k *Kill) cycle(ctx context.Context, book *ledger.Ledger) error {
	d := decide(k.chance)
	if !d.early {
		if err := k.stage.server.Ready(ctx); err != nil {
			return err
		}
	}
	if d.twin {
		if err := k.stage.server.refusesTwin(ctx); err != nil {
			return err
		}
	}
	if err := k.work(ctx, d.before); err != nil {
		return err
	}
	if pids := k.stage.server.Plugins(ctx); d.plugin >= 0 && len(pids) > 0 {
		_ = syscall.Kill(pids[d.plugin%len(pids)], syscall.SIGKILL)
		k.plugins++
	}
	if err := k.work(ctx, d.after); err != nil {
		return err
	}
	o := ledger.Outage{Open: k.stage.connections()}
	if k.stage.server.Dead() {
		return fmt.Errorf("the server died by itself; its log ends with\n%s", k.stage.server.Log())
	}
	o.Killed = time.Now()
	if err := k.stage.server.Kill(ctx); err != nil {
		return err
	}
	if d.look {
		if out, err := k.stage.server.command(ctx, "queue", "list").CombinedOutput(); err != nil {
			return fmt.Errorf("mta queue list: %w\n%s", err, out)
		}
	}
	if err := k.wall.move(k.chance); err != nil { // now it is wrong from the start
		return err
	}
	o.Back = time.Now()
	book.Outage(o)
	return k.stage.server.Launch()
}

// work lets the server work for a while, in the midst of which the wall clock is set.
func (k *Kill) work(ctx context.Context, d time.Duration) error {
	pause(ctx, d/2)
	err := k.wall.move(k.chance)
	pause(ctx, d/2)
	return err
}
