// Package mailtest is a mail system in memory for tests of a mail program: an IMAP server with some accounts, and a
// submission server that puts what it takes into their inboxes. Both listen on loopback only. It refuses wrong passwords
// and unknown recipients, as a real one would; nothing of it is left behind after Close.
package mailtest

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Password is that of every account.
const Password = "correct horse"

// SentFolder and TrashFolder are known by their special use only, as where people speak other languages. There is no
// folder for drafts until someone makes one.
const (
	SentFolder  = "보낸 편지함"
	TrashFolder = "Papierkorb"
)

// Server is the mail system.
type Server struct {
	IMAP, SMTP string // where they listen

	users map[string]*imapmemserver.User
	imap  *imapserver.Server
	smtp  *smtp.Server

	mu   sync.Mutex
	sent []Sent
}

// Sent is a message as it came over the wire.
type Sent struct {
	From string
	To   []string
	UTF8 bool
	Data []byte
}

// Start begins to serve the accounts.
func Start(accounts ...string) (*Server, error) {
	s := &Server{users: map[string]*imapmemserver.User{}}
	store := imapmemserver.New()
	for _, name := range accounts {
		u := imapmemserver.NewUser(name, Password)
		for _, folder := range []string{"INBOX", SentFolder, TrashFolder} {
			if err := u.Create(folder, nil); err != nil {
				return nil, err
			}
		}
		s.users[name] = u
		store.AddUser(u)
	}
	s.imap = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &mailSession{SessionIMAP4rev2: store.NewSession().(imapserver.SessionIMAP4rev2)}, nil, nil
		},
		InsecureAuth: true,
		Logger:       log.New(io.Discard, "", 0),
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}, imap.CapSpecialUse: {}, imap.CapListExtended: {},
			imap.CapUIDPlus: {}, imap.CapMove: {}, imap.CapIdle: {},
		},
	})
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{server: s}, nil }))
	s.smtp.AllowInsecureAuth = true
	s.smtp.EnableSMTPUTF8 = true
	s.smtp.Domain = "localhost"
	s.smtp.ErrorLog = log.New(io.Discard, "", 0)
	var err error
	if s.IMAP, err = listen(s.imap.Serve); err != nil {
		return nil, err
	}
	s.SMTP, err = listen(s.smtp.Serve)
	return s, err
}

func listen(serve func(net.Listener) error) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = serve(l) }() // it ends when the server is closed
	return l.Addr().String(), nil
}

// Close ends both servers.
func (s *Server) Close() error { return errors.Join(s.smtp.Close(), s.imap.Close()) }

// Sent returns what came over the wire.
func (s *Server) Sent() []Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// Deliver puts a message into the inbox of an account.
func (s *Server) Deliver(account string, message []byte) error {
	u := s.users[account]
	if u == nil {
		return errors.New("no account " + account)
	}
	_, err := u.Append("INBOX", literal{bytes.NewReader(message)}, &imap.AppendOptions{Time: time.Now()})
	return err
}

type literal struct{ *bytes.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

// mailSession is one IMAP conversation. It adds special uses, which the memory server does not keep.
type mailSession struct {
	imapserver.SessionIMAP4rev2
}

// List lists the folders that a test may have.
func (s *mailSession) List(w *imapserver.ListWriter, ref string, patterns []string, _ *imap.ListOptions) error {
	use := map[string][]imap.MailboxAttr{SentFolder: {imap.MailboxAttrSent}, TrashFolder: {imap.MailboxAttrTrash}}
	for _, name := range []string{"INBOX", SentFolder, TrashFolder, "Drafts", "Archive"} {
		matches := slices.ContainsFunc(patterns, func(p string) bool { return imapserver.MatchList(name, '/', ref, p) })
		if _, err := s.Status(name, &imap.StatusOptions{UIDNext: true}); err != nil || !matches {
			continue
		}
		if err := w.WriteList(&imap.ListData{Mailbox: name, Delim: '/', Attrs: use[name]}); err != nil {
			return err
		}
	}
	return nil
}

// Idle looks again and again: the memory server tells nothing of what came between the last command and the IDLE.
func (s *mailSession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-look.C:
			if err := s.Poll(w, true); err != nil {
				return err
			}
		}
	}
}

// session is one SMTP conversation.
type session struct {
	server   *Server
	loggedIn bool
	now      Sent
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if s.server.users[user] == nil || password != Password {
			return smtp.ErrAuthFailed
		}
		s.loggedIn = true
		return nil
	}), nil
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if !s.loggedIn {
		return smtp.ErrAuthRequired
	}
	s.now = Sent{From: from, UTF8: opts != nil && opts.UTF8}
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	}
	s.now.To = append(s.now.To, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.now.Data = data
	s.server.mu.Lock()
	s.server.sent = append(s.server.sent, s.now)
	s.server.mu.Unlock()
	for _, to := range s.now.To {
		if s.server.users[to] == nil {
			continue
		}
		if err := s.server.Deliver(to, data); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) Reset()        { s.now = Sent{} }
func (s *session) Logout() error { return nil }
