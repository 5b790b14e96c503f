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
	"slices"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
	"github.com/pabal-mta/mta/core/torture/powercut"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Power is a trial in which the power of the queue's disk is cut. The server runs under load on a disk that remembers its
// past; afterwards the disk is made again as it may have been at moments chosen by chance, the queue is opened in it, and
// what is there is held against what had been acknowledged by then. Root is needed.
type Power struct {
	Program     Program
	Address     string
	Seed        uint64
	Points      int           // moments at which the power is cut
	Each        int           // of these in one run of the server; 0: 100
	Length      time.Duration // of one run under load; 0: 8s, in which the journal is full at least once
	Connections int
	Pause       time.Duration // between two messages of a connection
	Out         io.Writer     // a line for each run

	chance *rand.Rand
	next   atomic.Int64
}

// mountOptions are those of ext4 that matter for what a cut leaves.
var mountOptions = []string{"data=ordered", "data=writeback"}

const diskSize = 256 << 20

// Run does it and returns what was found. It is ErrNotHere where disks can't be mounted.
func (p *Power) Run(ctx context.Context) (v ledger.Verdict, err error) {
	if p.Each == 0 {
		p.Each = 100
	}
	if p.Length == 0 {
		p.Length = 8 * time.Second
	}
	if err := possible(); err != nil {
		return v, err
	}
	p.chance = rand.New(rand.NewPCG(p.Seed, 0))
	for done := 0; done < p.Points && len(v.Faults) == 0; done += p.Each {
		n := min(p.Each, p.Points-done)
		w, err := p.one(ctx, n, mountOptions[done/p.Each%len(mountOptions)])
		if err != nil {
			return v, err
		}
		v = v.Plus(w)
	}
	return v, nil
}

func possible() error {
	if err := powercut.Possible(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	return nil
}

// one runs the server once and cuts the power at some moments of that run.
func (p *Power) one(ctx context.Context, points int, options string) (v ledger.Verdict, err error) {
	dir, err := os.MkdirTemp("", "mta-cut-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	r := &recording{history: ledger.NewHistory()}
	if err := r.record(ctx, p, dir, options); err != nil {
		return v, err
	}
	ran := time.Since(began)
	losses := map[string]int{}
	if v, err = r.cut(ctx, p.chance, points, dir, options, losses); err != nil {
		return v, err
	}
	fmt.Fprintf(p.Out, "power: %d cuts (%s; what was not safe: %v) of a run with %d acknowledged, %d writes and syncs: recorded in %.0fs, judged in %.0fs: "+
		"%d messages held against their queue, %d would come again with an excuse, %d faults\n",
		points, options, losses, r.acked, r.disk.Position(), ran.Seconds(), (time.Since(began) - ran).Seconds(), v.Acked, v.Excused, len(v.Faults))
	return v, nil
}

// recording is one run of the server on a disk that remembers.
type recording struct {
	history *ledger.History
	disk    *powercut.Disk
	from    int // the moment when the load began
	acked   int64
}

// makeExt4 returns an empty file system.
func makeExt4(ctx context.Context, dir string, size int64) ([]byte, error) {
	name := filepath.Join(dir, "empty.img")
	defer os.Remove(name)
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
		name, fmt.Sprintf("%dK", size>>10)).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w\n%s", err, out)
	}
	return os.ReadFile(name)
}

// record runs the server under load.
func (r *recording) record(ctx context.Context, p *Power, dir, options string) (err error) {
	empty, err := makeExt4(ctx, dir, diskSize)
	if err != nil {
		return err
	}
	r.disk = powercut.NewDisk(empty)
	at, unmount, err := powercut.Mount(r.disk, dir, options)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	defer func() { err = errors.Join(err, unmount()) }()
	server := &Server{Program: p.Program, Dir: dir, Address: p.Address}
	server.Done = func(queue string) { r.history.Done(queue, r.disk.Position()) }
	sinks, addresses, err := r.sinks(p)
	for _, s := range sinks {
		defer s.Close()
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Kill(context.WithoutCancel(ctx))) }()
	if err := server.Configure(Settings{DataDir: filepath.Join(at, "var"), MinFree: "1MiB", One: addresses[0], Two: addresses[1]}); err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	r.from = r.disk.Position()
	return r.load(ctx, p)
}

func (r *recording) load(ctx context.Context, p *Power) error {
	g := &load{address: p.Address, next: &p.next, pause: p.Pause, book: stamped{r}}
	g.start(p.Connections)
	pause(ctx, p.Length)
	g.stop()
	if r.acked = g.taken.Load(); r.acked == 0 {
		return errors.New("nothing was acknowledged: there was no load")
	}
	return ctx.Err()
}

// stamped writes the history with the moments of the disk.
type stamped struct{ *recording }

// Offer notes a message.
func (s stamped) Offer(m ledger.Message) { s.history.Offer(m) }

// Ack notes that it was acknowledged.
func (s stamped) Ack(id string) { s.history.Ack(id, s.disk.Position()) }

// Deny notes nothing.
func (s stamped) Deny(string, string) {}

func (r *recording) sinks(p *Power) (list []*peer.Sink, addresses [2]string, err error) {
	for i := range addresses {
		l, err := listen()
		if err != nil {
			return list, addresses, err
		}
		s := &peer.Sink{Offers: "8BITMIME", Refuse: refusal, Cut: cutter(p.Seed, uint64(i+1), 0.01)}
		s.Taken = func(a ledger.Arrival, to []string) {
			for _, a := range classify(a.For(to)) {
				r.history.Take(a, r.disk.Position())
			}
		}
		s.Serve(l)
		list, addresses[i] = append(list, s), l.Addr().String()
	}
	return list, addresses, nil
}

// cut makes the disk again as it may have been at some moments, and judges each.
func (r *recording) cut(ctx context.Context, chance *rand.Rand, points int, dir, options string, losses map[string]int) (v ledger.Verdict, err error) {
	moments := make([]int, points)
	for i := range moments {
		moments[i] = r.from + chance.IntN(r.disk.Position()-r.from+1)
	}
	slices.Sort(moments)
	replay := powercut.NewReplay(r.disk)
	for _, at := range moments {
		if err := ctx.Err(); err != nil {
			return v, err
		}
		loss := powercut.Loss(chance.IntN(int(powercut.Losses)))
		losses[loss.String()]++
		w, err := r.judge(ctx, replay, at, loss, chance, dir, options)
		if err != nil {
			return v, fmt.Errorf("a cut at %d, of what was not safe %v: %w", at, loss, err)
		}
		for i := range w.Faults {
			w.Faults[i].Why += fmt.Sprintf(" (%v of what was not safe)", loss)
		}
		v = v.Plus(w)
	}
	return v, nil
}

// judge cuts once.
func (r *recording) judge(ctx context.Context, replay *powercut.Replay, at int, loss powercut.Loss, chance *rand.Rand, dir, options string) (v ledger.Verdict, err error) {
	image, err := newImage(dir, r.disk.Size())
	if err != nil {
		return v, err
	}
	defer os.Remove(image.Name())
	defer image.Close()
	if _, err := replay.Image(image, at, loss, chance); err != nil {
		return v, err
	}
	then := filepath.Join(dir, "then")
	unmount, err := mountMended(ctx, image.Name(), then, options)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	held, err := holds(filepath.Join(then, "var", "queue"))
	v = r.history.Cut(at, held)
	if err != nil {
		v.Faults = append(v.Faults, ledger.Fault{Kind: ledger.Lost, ID: "-", Why: fmt.Sprintf("and all others: the queue can't be opened: %v", err)})
	}
	return v, nil
}

// mountMended mounts a file system. One whose own first block was torn is mended before, as its operator would.
func mountMended(ctx context.Context, image, at, options string) (unmount func() error, err error) {
	if unmount, err = powercut.MountFile(image, at, options); err == nil {
		return unmount, nil
	}
	out, failure := exec.CommandContext(ctx, "e2fsck", "-fy", image).CombinedOutput()
	if exit := new(exec.ExitError); failure != nil && (!errors.As(failure, &exit) || exit.ExitCode() > 2) {
		return nil, fmt.Errorf("%w; e2fsck: %w\n%s", err, failure, out)
	}
	return powercut.MountFile(image, at, options)
}

// newImage makes an empty file, in memory where that can be.
func newImage(dir string, size int64) (*os.File, error) {
	const memory = "/dev/shm"
	f, err := os.CreateTemp(memory, "mta-cut-*")
	if err != nil {
		f, err = os.CreateTemp(dir, "cut-*")
	}
	if err != nil {
		return nil, err
	}
	return f, f.Truncate(size)
}

// holds opens a queue as a server would, and reads all that is in it.
func holds(dir string) (held []ledger.Held, err error) {
	q, err := queue.Open(dir, queue.Options{MinFree: -1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	var ids []queue.ID
	if err := q.Recover(context.Background(), func(rec *queue.Record) error {
		ids = append(ids, rec.ID)
		return nil
	}); err != nil {
		return nil, err
	}
	if n := q.Stats().Damaged; n > 0 {
		held = append(held, ledger.Held{ID: "-", Damage: fmt.Sprintf("%d records", n)})
	}
	for _, id := range ids {
		held = append(held, read(q, id))
	}
	return held, nil
}

// read reads one message.
func read(q *queue.Queue, id queue.ID) ledger.Held {
	rec, content, err := q.Load(id)
	if err != nil {
		return ledger.Held{ID: id.String(), Damage: err.Error()}
	}
	raw, err := io.ReadAll(mail.Reader(content))
	if err != nil {
		return ledger.Held{ID: id.String(), Damage: err.Error()}
	}
	a := classify(peer.Read(raw).For([]string{rec.Recipients[0].Address.String()}))[0]
	return ledger.Held{ID: a.ID, Sum: a.Sum, Report: a.Report}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
