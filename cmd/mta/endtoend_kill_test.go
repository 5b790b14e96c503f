package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// generator submits messages over some connections until it is told to stop, and writes down which were acknowledged.
type generator struct {
	address string
	next    atomic.Int64
	stopped atomic.Bool
	workers sync.WaitGroup

	mu     sync.Mutex
	ledger *ledger
	acked  int
}

func (g *generator) start(connections int) {
	for range connections {
		g.workers.Go(func() {
			for !g.stopped.Load() {
				if err := g.session(); err != nil {
					time.Sleep(5 * time.Millisecond) // the server is down: a client of flesh and blood waits longer
				}
			}
		})
	}
}

// session sends messages over one connection until that breaks. A message is never sent again: what became of one whose
// answer did not come is not known.
func (g *generator) session() error {
	c, err := dial(g.address)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for !g.stopped.Load() {
		n := int(g.next.Add(1))
		id, to, body := fmt.Sprint(n), recipientOf(n), bodyOf(n)
		g.mu.Lock()
		g.ledger.offer(id, to, sumOf(body))
		g.mu.Unlock()
		if err := c.send("<carol@sender.example>", to, numbered(id, body)); err != nil {
			return err
		}
		g.mu.Lock()
		g.ledger.ack(id)
		g.acked++
		g.mu.Unlock()
	}
	return nil
}

// TestKillUnderLoad kills the server with SIGKILL at random moments under load, 4 times (MTA_E2E_KILLS overrides; the
// seed is printed, MTA_E2E_SEED repeats it). What was acknowledged arrives, nothing else does, and a message comes twice
// only if it was on its way at a kill. No plugin outlives its server.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	kills := sizeFrom(t, "MTA_E2E_KILLS", 4)
	seed := sizeFrom(t, "MTA_E2E_SEED", int(time.Now().UnixNano()))
	t.Logf("MTA_E2E_SEED=%d", seed)
	chance := rand.New(rand.NewPCG(uint64(seed), 0))
	ports := freePorts(t, 3)
	s := newSystem(t, relayConfig, map[string]string{"MX": ports[0], "ONE": ports[1], "TWO": ports[2]})
	sinks := []*sink{openSink(t, ports[1], &sink{offers: "8BITMIME"}), openSink(t, ports[2], &sink{offers: "8BITMIME"})}

	g := &generator{address: ports[0], ledger: &ledger{}}
	s.start()
	g.start(8)
	for range kills {
		time.Sleep(time.Duration(100+chance.IntN(700)) * time.Millisecond) // the load is what takes time here
		g.ledger.maxDoubled = max(g.ledger.maxDoubled, openConnections(sinks))
		s.kill()
		killed := time.Now()
		s.gone()
		s.must("", "queue", "list") // from the files that the dead server left
		g.ledger.kills = append(g.ledger.kills, outage{killed, time.Now()})
		s.start()
	}
	time.Sleep(200 * time.Millisecond)
	g.stopped.Store(true)
	g.workers.Wait()
	s.emptied()
	for _, k := range sinks {
		got, _ := k.arrivals()
		g.ledger.arrived = append(g.ledger.arrived, got...)
	}
	t.Logf("%d messages handed in, %d acknowledged, %d arrived, at most %d on their way at each of %d kills",
		len(g.ledger.entries), g.acked, len(g.ledger.arrived), g.ledger.maxDoubled, kills)
	if g.acked == 0 {
		t.Error("nothing was acknowledged: there was no load")
	}
	for _, wrong := range g.ledger.audit() {
		t.Error(wrong)
	}
	s.stop()
}

func openConnections(sinks []*sink) (n int) {
	for _, k := range sinks {
		k.mu.Lock()
		n += len(k.open)
		k.mu.Unlock()
	}
	return n
}
