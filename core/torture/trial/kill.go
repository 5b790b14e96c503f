package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
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
	Out         io.Writer     // a line for each batch

	chance  *rand.Rand // the conductor's decisions
	server  *Server
	sinks   [2]*peer.Sink
	next    atomic.Int64
	plugins int // killed
}

// Run does it and returns what was found. An error means that the trial could not be done.
func (k *Kill) Run(ctx context.Context) (v ledger.Verdict, err error) {
	if k.Batch == 0 {
		k.Batch = k.Cycles
	}
	k.chance = rand.New(rand.NewPCG(k.Seed, 0))
	stop, err := k.open()
	if err != nil {
		return v, err
	}
	defer func() { stop(err == nil && len(v.Faults) == 0) }()
	for done := 0; done < k.Cycles && len(v.Faults) == 0; done += k.Batch {
		began := time.Now()
		n := min(k.Batch, k.Cycles-done)
		w, err := k.batch(ctx, n)
		if err != nil {
			return v, err
		}
		v = v.Plus(w)
		fmt.Fprintf(k.Out, "kill: cycles %d to %d of %d in %.0fs: %v; plugins killed so far: %d\n", done+1, done+n, k.Cycles, time.Since(began).Seconds(), w, k.plugins)
	}
	if len(v.Faults) == 0 {
		err = k.server.Stop(ctx)
	}
	return v, err
}

// open makes the home, the sinks and the server, and returns what ends them.
func (k *Kill) open() (stop func(well bool), err error) {
	dir, err := os.MkdirTemp("", "mta-kill-") // short: the paths of sockets have at most 108 bytes
	if err != nil {
		return nil, err
	}
	k.server = &Server{Program: k.Program, Dir: dir, Address: k.Address}
	addresses, err := k.openSinks()
	if err == nil {
		err = k.server.Configure(Settings{DataDir: "var", MinFree: "1MiB", One: addresses[0], Two: addresses[1]})
	}
	stop = func(well bool) {
		_ = k.server.Kill(context.Background())
		for _, s := range k.sinks {
			if s != nil {
				s.Close()
			}
		}
		if well {
			os.RemoveAll(dir)
			return
		}
		fmt.Fprintf(k.Out, "the home is left in %s; the log ends with\n%s\n", dir, k.server.Log())
	}
	if err != nil {
		stop(true)
		return nil, err
	}
	return stop, nil
}

func (k *Kill) openSinks() (addresses [2]string, err error) {
	for i := range k.sinks {
		l, err := listen()
		if err != nil {
			return addresses, err
		}
		addresses[i] = l.Addr().String()
		k.sinks[i] = &peer.Sink{Offers: "8BITMIME", Refuse: refusal, Cut: cutter(k.Seed, uint64(i+1), k.Cuts)}
		k.sinks[i].Serve(l)
	}
	return addresses, nil
}

// cutter decides where a sink cuts: at a share of the messages, at any step.
func cutter(seed, stream uint64, share float64) func() peer.Step {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(seed, stream))
	return func() peer.Step {
		mu.Lock()
		defer mu.Unlock()
		if chance.Float64() >= share {
			return peer.Never
		}
		return peer.Step(1 + chance.IntN(int(peer.Steps)-1))
	}
}

// batch does some cycles under load, lets the server deliver everything, and audits.
func (k *Kill) batch(ctx context.Context, cycles int) (v ledger.Verdict, err error) {
	book := ledger.New()
	k.server.Done = func(queue string) { book.Done(queue, time.Now()) }
	g := &load{address: k.server.Address, next: &k.next, pause: k.Pause, book: book}
	if k.server.Dead() {
		if err := k.server.Start(ctx); err != nil {
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
		err = k.server.Ready(ctx)
	}
	if err == nil {
		pause(ctx, 300*time.Millisecond) // what a start has found is under load too
	}
	g.stop()
	if err != nil {
		return v, err
	}
	if err := k.drain(ctx, book); err != nil {
		return v, err
	}
	for _, s := range k.sinks {
		book.Arrive(classify(s.Forget())...)
	}
	v = book.Audit()
	if v.Acked == 0 {
		return v, errors.New("nothing was acknowledged: there was no load")
	}
	return v, nil
}

// cycle lets the server work for a while, kills it, and starts it again. One in four is killed while it still starts.
func (k *Kill) cycle(ctx context.Context, book *ledger.Ledger) error {
	early, plugin := k.chance.IntN(4) == 0, k.chance.IntN(3) == 0
	which, look := k.chance.IntN(100), k.chance.IntN(10) == 0
	before, after := k.chance.IntN(250), k.chance.IntN(250)
	if !early {
		if err := k.server.Ready(ctx); err != nil {
			return err
		}
	}
	pause(ctx, time.Duration(before)*time.Millisecond)
	if pids := k.server.Plugins(ctx); plugin && len(pids) > 0 {
		_ = syscall.Kill(pids[which%len(pids)], syscall.SIGKILL)
		k.plugins++
	}
	pause(ctx, time.Duration(after)*time.Millisecond)
	o := ledger.Outage{}
	for _, s := range k.sinks {
		o.Open += s.Open()
	}
	if k.server.Dead() {
		return fmt.Errorf("the server died by itself; its log ends with\n%s", k.server.Log())
	}
	o.Killed = time.Now()
	if err := k.server.Kill(ctx); err != nil {
		return err
	}
	if look { // from the files that the dead server left
		if out, err := k.server.Command("queue", "list").CombinedOutput(); err != nil {
			return fmt.Errorf("mta queue list: %w\n%s", err, out)
		}
	}
	o.Back = time.Now()
	book.Outage(o)
	return k.server.Launch()
}

// drain waits until the queue is empty. What is still there when it makes no progress any more is noted as queued.
func (k *Kill) drain(ctx context.Context, book *ledger.Ledger) error {
	patience := k.Settle
	if patience == 0 {
		patience = Patience
	}
	left, since := -1, time.Now()
	for time.Since(since) < patience {
		st, err := k.server.Status(ctx)
		if err != nil {
			return fmt.Errorf("the server does not answer: %w; its log ends with\n%s", err, k.server.Log())
		}
		n := st.Queue.Waiting + st.Queue.Active + st.Queue.Held
		if n == 0 {
			return nil
		}
		if n != left {
			left, since = n, time.Now()
		}
		pause(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	list, err := k.server.Queued(ctx)
	for _, m := range list {
		var n int
		if _, err := fmt.Sscanf(m.From, "m%d@back.example", &n); err == nil {
			book.Queued(fmt.Sprint(n))
		}
	}
	return err
}

// Build builds the server program from the module that this process was built from.
func Build(ctx context.Context, module, to string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", to}, args...), "./cmd/mta")...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// Module finds the folder of the module's go.mod at or above dir.
func Module(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not within a Go module: run this from a clone", dir)
		}
	}
}
