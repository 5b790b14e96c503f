// Package pop3 serves the inboxes of package box by POP3 (RFC 1939) with CAPA, UIDL, TOP, STLS and AUTH PLAIN.
//
// It refuses lines that are too long, a second session of an account, and commands beyond a number of wrong ones; the gate
// bounds the rest. Messages are removed at QUIT and at no other time.
package pop3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// Refuse is what a client above a limit is told.
const Refuse = "-ERR [SYS/TEMP] too many connections, try again later\r\n"

var errInUse = errors.New("the mailbox is in use")

// Server serves one block of the configuration.
type Server struct {
	gate   *gate.Gate
	guard  *gate.Guard
	store  *box.Store
	log    *slog.Logger
	ctx    context.Context // until Close
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	in     map[string]bool // accounts that have a session
	closed bool
}

// Serve begins to serve what the gate accepts; Close ends it.
func Serve(g *gate.Gate, guard *gate.Guard, store *box.Store, log *slog.Logger) *Server {
	s := &Server{gate: g, guard: guard, store: store, log: log, open: make(map[net.Conn]struct{}), in: make(map[string]bool)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, l := range g.Listeners() {
		s.wait.Go(func() { s.listen(l) })
	}
	return s
}

// acceptPause is how long to wait after an Accept that failed, such as for want of descriptors.
const acceptPause = 100 * time.Millisecond

func (s *Server) listen(l net.Listener) {
	for s.ctx.Err() == nil {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.log.Warn("a POP3 connection can't be accepted", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if !s.add(conn) {
			conn.Close()
			return
		}
		s.wait.Go(func() { s.serve(conn) })
	}
}

func (s *Server) serve(conn net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a POP3 session", "panic", fmt.Sprint(p))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, conn)
	}()
	newSession(s, conn).run()
}

func (s *Server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[conn] = struct{}{}
	return true
}

// claim makes an account's inbox one session's.
func (s *Server) claim(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in[key] {
		return false
	}
	s.in[key] = true
	return true
}

func (s *Server) release(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.in, key)
}

// Addresses returns where it listens.
func (s *Server) Addresses() (all []string) {
	for _, l := range s.gate.Listeners() {
		all = append(all, l.Addr().String())
	}
	return all
}

// Close ends all sessions.
func (s *Server) Close() {
	s.cancel()
	s.gate.Close()
	s.mu.Lock()
	s.closed = true
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}
