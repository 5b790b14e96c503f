package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Serve takes connections from l until Shutdown, which makes it return nil, or until l fails for good. It may be called
// for several listeners at once.
func (s *Server) Serve(l net.Listener) error {
	if err := s.listening(l); err != nil {
		return err
	}
	defer s.unlisten(l)
	s.start.Do(func() { go s.smtp.Serve(s.hatch) }) //nolint:errcheck // it ends when the hatch is closed
	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.admit(conn)
		case s.draining.Load():
			return nil
		case errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF):
			return fmt.Errorf("accepting connections: %w", err)
		default:
			// Out of descriptors, or a connection that died in the backlog: neither is worth stopping for.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.deps.Events.Emit(event.Event{Name: event.Warning, Listener: s.cfg.Name, Reason: "a connection could not be accepted", Err: err})
			time.Sleep(pause)
		}
	}
}

func (s *Server) listening(l net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	return nil
}

func (s *Server) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// admit counts the connection in, or tells it to come again.
func (s *Server) admit(conn net.Conn) {
	e := newEdge(s, conn)
	reply := s.count(e)
	if reply == nil {
		go s.receive(e)
		return
	}
	go e.turnAway(*reply)
}

// count admits the connection, or says why not.
func (s *Server) count(e *edge) *mail.Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining.Load():
		return tempfail("4.3.2", "shutting down")
	case s.open >= s.cfg.Limits.Connections:
		return tempfail("4.3.2", "too many connections, try again later")
	case s.perIP[e.network] >= s.cfg.Limits.ConnectionsPerIP:
		return tempfail("4.7.0", "too many connections from your address")
	}
	if e.network.IsValid() {
		s.perIP[e.network]++
	}
	s.open++
	s.edges[e] = struct{}{}
	e.admitted = true
	return nil
}

// left counts the connection out.
func (s *Server) left(e *edge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.edges, e)
	if e.network.IsValid() {
		if s.perIP[e.network]--; s.perIP[e.network] <= 0 {
			delete(s.perIP, e.network)
		}
	}
	if s.open--; s.open == 0 && s.draining.Load() {
		close(s.empty)
	}
}

// receive brings a connection to its greeting and hands it to go-smtp.
func (s *Server) receive(e *edge) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(e, p)
			e.end()
		}
	}()
	if s.cfg.Implicit {
		if err := e.handshake(); err != nil {
			e.end()
			return
		}
	}
	if r := e.desk.connect(); r != nil {
		e.verb = "connect"
		e.say(*r)
		e.hangup = true
		e.end()
		return
	}
	if !s.hatch.pass(e) {
		e.end()
	}
}

// panicked tells of a defect of ours that one connection met.
func (s *Server) panicked(e *edge, p any) {
	s.deps.Events.Emit(event.Event{
		Name: event.Warning, Listener: s.cfg.Name, Session: e.desk.info.ID, Remote: e.desk.remote(),
		Reason: fmt.Sprintf("panic: %v\n%s", p, debug.Stack()),
	})
}

// turnAway answers a connection that was not admitted.
func (e *edge) turnAway(r mail.Reply) {
	defer e.end()
	defer func() { _ = recover() }()
	e.verb = "connect"
	if !e.server.cfg.Implicit { // nobody pays for a handshake to be told no
		e.say(r)
	}
}

// networkOf is what a client is counted by: its IPv4 address or its IPv6 /64. Clients in the configured networks, and
// those without an address, are not counted.
func (s *Server) networkOf(a netip.Addr) netip.Prefix {
	if !a.IsValid() || s.inNetworks(a) {
		return netip.Prefix{}
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (s *Server) inNetworks(a netip.Addr) bool {
	for _, n := range s.cfg.Networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// addrPort is the address of a TCP connection, the zero AddrPort for others.
func addrPort(a net.Addr) netip.AddrPort {
	ap, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	p := ap.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// hatch is the net.Listener that go-smtp serves: connections that have been admitted, shaken hands with and let in by
// the connect stage come through it.
type hatch struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHatch() *hatch { return &hatch{conns: make(chan net.Conn), done: make(chan struct{})} }

func (h *hatch) pass(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

// Accept makes hatch a net.Listener.
func (h *hatch) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close makes hatch a net.Listener.
func (h *hatch) Close() error {
	h.shut()
	return nil
}

func (h *hatch) shut() { h.once.Do(func() { close(h.done) }) }

// Addr makes hatch a net.Listener.
func (h *hatch) Addr() net.Addr { return &net.UnixAddr{Name: "hatch", Net: "unix"} }

// pause waits, unless the connection is cut first.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
