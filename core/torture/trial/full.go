package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/powercut"
)

// Full is a trial in which somebody else fills the disk of the queue under load and empties it again. The server must say
// 452 and live, and take mail again when there is room. Root is needed.
type Full struct {
	Program Program
	Address string
	Seed    uint64
	Cycles  int
	Out     io.Writer // a line for each tenth cycle
}

const (
	fullDisk    = 384 << 20
	fullMinFree = 64 << 20
	again       = 5 * time.Second // until mail is taken again when there is room
)

// Run does it and returns what was found.
func (f *Full) Run(ctx context.Context) (v ledger.Verdict, err error) {
	if err := possible(); err != nil {
		return v, err
	}
	s, err := open(f.Program, f.Address, 0, f.Out, cutter(f.Seed, 1, 0), cutter(f.Seed, 2, 0))
	if err != nil {
		return v, err
	}
	defer func() { s.close(err == nil && len(v.Faults) == 0) }()
	disk, unmount, err := smallDisk(ctx, s.server.Dir)
	if err != nil {
		return v, err
	}
	defer func() {
		err = errors.Join(err, s.server.Kill(context.WithoutCancel(ctx)), unmount())
	}()
	if err := s.configure(filepath.Join(disk, "var"), fmt.Sprintf("%dMiB", fullMinFree>>20)); err != nil {
		return v, err
	}
	if err := s.server.Start(ctx); err != nil {
		return v, err
	}
	chance := rand.New(rand.NewPCG(f.Seed, 0))
	for done := 0; done < f.Cycles && len(v.Faults) == 0; done += 10 {
		n := min(10, f.Cycles-done)
		book := s.begin()
		g := &load{address: f.Address, next: &s.next, book: book, pause: time.Millisecond}
		g.start(8)
		var slowest time.Duration
		for range n {
			took, err := f.cycle(ctx, s, g, chance, disk)
			if err != nil {
				g.stop()
				return v, err
			}
			slowest = max(slowest, took)
		}
		g.stop()
		w, err := s.end(ctx, book)
		if err != nil {
			return v, err
		}
		v = v.Plus(w)
		fmt.Fprintf(f.Out, "full: cycles %d to %d of %d: %d answers 452, mail was taken again after %v at most: %v\n",
			done+1, done+n, f.Cycles, g.full.Load(), slowest.Round(time.Millisecond), w)
	}
	return v, nil
}

// smallDisk mounts an empty file system of its own.
func smallDisk(ctx context.Context, dir string) (at string, unmount func() error, err error) {
	empty, err := makeExt4(ctx, dir, fullDisk)
	if err != nil {
		return "", nil, err
	}
	image, err := newImage(dir, fullDisk)
	if err != nil {
		return "", nil, err
	}
	defer image.Close()
	if _, err := image.Write(empty); err != nil {
		return "", nil, err
	}
	at = filepath.Join(dir, "disk")
	undo, err := powercut.MountFile(image.Name(), at, "")
	if err != nil {
		os.Remove(image.Name())
		return "", nil, fmt.Errorf("%w: %w", ErrNotHere, err)
	}
	return at, func() error { return errors.Join(undo(), os.Remove(image.Name())) }, nil
}

// cycle fills the disk to below what the server keeps free, every other time to the last block, and keeps it so for a
// while; then it empties it. It returns how long it took until mail was taken again.
func (f *Full) cycle(ctx context.Context, s *stage, g *load, chance *rand.Rand, disk string) (time.Duration, error) {
	left, before, long := chance.Int64N(2)*fullMinFree/2, chance.IntN(200), chance.IntN(1500)
	pause(ctx, time.Duration(50+before)*time.Millisecond)
	full := g.full.Load()
	var fillers []string
	end := time.Now().Add(time.Duration(long) * time.Millisecond)
	err := Poll(ctx, Patience, func() bool {
		if name := filepath.Join(disk, fmt.Sprintf("filler-%d", len(fillers))); fill(name, left) {
			fillers = append(fillers, name)
		}
		return g.full.Load() > full && time.Now().After(end) || s.server.Dead()
	})
	if s.server.Dead() {
		return 0, fmt.Errorf("the server died on a full disk, of which %d bytes were free (%v); its log ends with\n%s", left, s.server.End(), s.server.Log())
	}
	if err != nil {
		return 0, fmt.Errorf("no message was refused with 452: %w", err)
	}
	for _, name := range fillers {
		if err := os.Remove(name); err != nil {
			return 0, err
		}
	}
	taken, began := g.taken.Load(), time.Now()
	if err := Poll(ctx, again, func() bool { return g.taken.Load() > taken || s.server.Dead() }); err != nil || s.server.Dead() {
		return 0, fmt.Errorf("no mail is taken again; the log ends with\n%s", s.server.Log())
	}
	return time.Since(began), nil
}
