package trial

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
)

// Cuts is a trial in which nothing is killed, and the sinks cut connections at every step of the dialogue, in turn. What a
// sink had not taken comes again; what it had taken comes again once for each reply that was cut.
type Cuts struct {
	Program Program
	Address string
	Rounds  int // cuts at each step
	Out     io.Writer
}

// Run does it and returns what was found.
func (c *Cuts) Run(ctx context.Context) (v ledger.Verdict, err error) {
	s, err := open(c.Program, c.Address, 0, c.Out, inTurn(), inTurn())
	if err != nil {
		return v, err
	}
	defer func() { s.close(err == nil && len(v.Faults) == 0) }()
	if err := s.configure("var", "1MiB"); err != nil {
		return v, err
	}
	if err := s.server.Start(ctx); err != nil {
		return v, err
	}
	book := s.begin()
	g := &load{address: c.Address, next: &s.next, pause: 10 * time.Millisecond, book: book}
	g.start(4)
	err = Poll(ctx, Patience, func() bool { return c.least(s) >= c.Rounds })
	g.stop()
	if err != nil {
		return v, fmt.Errorf("the sinks have cut %v, %d at each are wanted: %w", cutsOf(s), c.Rounds, err)
	}
	if v, err = s.end(ctx, book); err != nil {
		return v, err
	}
	fmt.Fprintf(c.Out, "cuts: %s: %v\n", cutsOf(s), v)
	return v, s.server.Stop(ctx)
}

// inTurn cuts every third time that it is asked, at the next step each time.
func inTurn() func() peer.Step {
	var asked atomic.Int64
	return func() peer.Step {
		n := int(asked.Add(1))
		if n%3 != 0 {
			return peer.Never
		}
		return peer.Step(1 + n/3%(int(peer.Steps)-1))
	}
}

func (c *Cuts) least(s *stage) int {
	n := cutsOf(s)
	least := n[1]
	for _, m := range n[2:] {
		least = min(least, m)
	}
	return least
}

// counts are cuts by their step.
type counts [peer.Steps]int

// String names the steps.
func (n counts) String() (text string) {
	for step := peer.Step(1); step < peer.Steps; step++ {
		text += fmt.Sprintf("%d at %s, ", n[step], step)
	}
	return text[:len(text)-2]
}

func cutsOf(s *stage) (n counts) {
	for _, k := range s.sinks {
		for step, m := range k.Cuts() {
			n[step] += m
		}
	}
	return n
}
