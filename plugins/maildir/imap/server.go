// Package imap serves the folders of package box by IMAP4rev1 and IMAP4rev2 (RFC 3501, RFC 9051), with IDLE, MOVE, UIDPLUS,
// SPECIAL-USE, NAMESPACE, LIST-STATUS, SEARCHRES, BINARY and APPENDLIMIT.
//
// The wire is emersion/go-imap's; what that leaves open is closed here and by the gate: bytes and time before the login,
// connections, the cost of a FETCH or a SEARCH, patterns. A message that can't be read is left out of an answer that ends
// in NO; a search does not find it. Nobody's flags, folders or messages are touched without a login, and only those of the login's
// account then.
//
// What the library answers otherwise than the RFC has it, and can't be changed from here: a search key or a message number that
// there is not, a first response that is no base64, and a name that is no modified UTF-7 get NO [SERVERBUG] instead of BAD; a
// SEARCH that returns SAVE alone is answered with what it found; a line that is no command ends the connection.
package imap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// Refuse is what a client above a limit is told.
const Refuse = "* BYE too many connections, try again later\r\n"

// appendLimit is the largest message that a client may put into a folder, in bytes.
const appendLimit = 64 << 20

// Server serves one block of the configuration.
type Server struct {
	gate  *gate.Gate
	guard *gate.Guard
	store *box.Store
	log   *slog.Logger
	imap  *imapserver.Server

	ctx    context.Context // until Close
	cancel context.CancelFunc
	wait   sync.WaitGroup

	look, search time.Duration // lookEvery and searchTime

	mu       sync.Mutex
	closed   bool
	sessions sync.WaitGroup // those that enter has let in
}

// Serve begins to serve what the gate accepts; Close ends it.
func Serve(g *gate.Gate, guard *gate.Guard, store *box.Store, log *slog.Logger) *Server {
	s := newServer(g, guard, store, log)
	s.serveAll()
	return s
}

func newServer(g *gate.Gate, guard *gate.Guard, store *box.Store, log *slog.Logger) *Server {
	s := &Server{gate: g, guard: guard, store: store, log: log, look: lookEvery, search: searchTime}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.imap = imapserver.New(&imapserver.Options{
		NewSession: s.newSession,
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}, imap.CapNamespace: {}, imap.CapUIDPlus: {}, imap.CapESearch: {},
			imap.CapSearchRes: {}, imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapMove: {}, imap.CapStatusSize: {},
			imap.CapBinary: {}, imap.CapChildren: {}, imap.CapSpecialUse: {},
		},
		Logger:       logger{log},
		TLSConfig:    g.TLS(),
		InsecureAuth: g.InsecureAuth(),
	})
	return s
}

func (s *Server) serveAll() {
	for _, l := range s.gate.Listeners() {
		s.wait.Go(func() { s.serve(l) })
	}
}

func (s *Server) serve(l net.Listener) {
	if err := s.imap.Serve(l); err != nil && s.ctx.Err() == nil {
		s.log.Error("the IMAP listener has ended", "address", l.Addr().String(), "error", err)
	}
}

// Addresses returns where it listens.
func (s *Server) Addresses() (all []string) {
	for _, l := range s.gate.Listeners() {
		all = append(all, l.Addr().String())
	}
	return all
}

// enter lets a session begin unless the server ends.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.sessions.Add(1)
	}
	return !s.closed
}

// Close ends all sessions, and returns when the commands that ran in them have ended.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.gate.Close()
	_ = s.imap.Close() // the listeners are closed already, and that is all that it can tell
	s.wait.Wait()
	s.sessions.Wait()
}

// logger takes what the library has to say: a client's mistakes are no business of the operator's.
type logger struct{ log *slog.Logger }

// Printf logs a line.
func (l logger) Printf(format string, args ...any) {
	l.log.Debug("imap: " + fmt.Sprintf(format, args...))
}
