package schedule

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/queue"
)

// TestTable plays random moves against a plain map.
func TestTable(t *testing.T) {
	var tb table
	tb.init()
	rnd := rand.New(rand.NewPCG(1, 2))
	due := map[uint32]int64{} // what waits
	all := map[queue.ID]uint32{}
	for step := range 50_000 {
		id := queue.ID(rnd.IntN(3000) + 1)
		at, known := all[id]
		switch op := rnd.IntN(4); {
		case !known:
			at, isNew := tb.add(id)
			if !isNew || at == 0 {
				t.Fatalf("step %d: add %d: %d, %v", step, id, at, isNew)
			}
			all[id] = at
		case op == 0:
			tb.remove(at)
			delete(all, id)
			delete(due, at)
		case op == 1:
			tb.unwait(at)
			tb.become(at, leased)
			delete(due, at)
		default:
			if _, isNew := tb.add(id); isNew {
				t.Fatalf("step %d: %d was added twice", step, id)
			}
			due[at] = rnd.Int64N(1000)
			tb.become(at, waiting)
			tb.wait(at, tb.base.Add(time.Duration(due[at])))
		}
		if first, when, ok := tb.first(); ok != (len(due) > 0) || ok && due[first] != int64(when.Sub(tb.base)) {
			t.Fatalf("step %d: first %d at %v, %v", step, first, when, ok)
		}
	}
	if tb.count[waiting] != len(due) || len(tb.byID) != len(all) || len(tb.heap) != len(due) {
		t.Errorf("%v waiting, want %d", tb.count, len(due))
	}
	last := int64(-1)
	for range len(due) {
		at, when, _ := tb.first()
		after := int64(when.Sub(tb.base))
		if after < last || due[at] != after {
			t.Fatalf("%d after %d", after, last)
		}
		last = after
		tb.unwait(at)
	}
}
