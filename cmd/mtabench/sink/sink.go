// Package sink is an SMTP server at the end of the line: it takes everything, keeps nothing, and writes each transaction
// into a ledger. It is made to cost little: it shares the machine with what is measured.
package sink

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/pabal-mta/mta/cmd/mtabench/ledger"
)

// Sink is the server. It can be taken down, as a dead host is, and brought up again.
type Sink struct {
	address string
	ledger  atomic.Pointer[ledger.Ledger]

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	serving  sync.WaitGroup
}

// New makes a sink for an address. It does not listen yet.
func New(address string) *Sink { return &Sink{address: address, conns: map[net.Conn]bool{}} }

// Book makes the sink write into l what begins to arrive from now on.
func (s *Sink) Book(l *ledger.Ledger) { s.ledger.Store(l) }

// Addr is where the sink listens; a port 0 is known once it is up.
func (s *Sink) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Up makes the sink listen. It does nothing when it does already.
func (s *Sink) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.listener, s.address = l, l.Addr().String()
	s.serving.Go(func() { s.accept(l) })
	return nil
}

// Down closes the listener and every connection, and returns when all has ended.
func (s *Sink) Down() {
	s.mu.Lock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *Sink) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !s.enter(l, c) {
			c.Close()
			return
		}
		s.serving.Go(func() {
			defer s.leave(c)
			newSession(s, c).serve()
		})
	}
}

func (s *Sink) enter(l net.Listener, c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != l {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Sink) leave(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}
