package imap

import (
	"errors"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-sasl"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Login logs in.
func (s *session) Login(user, password string) error {
	remote := s.under.Remote()
	identity, err := s.server.guard.Login(s.server.ctx, mail.Login{
		User: user, Password: password, Mechanism: "PLAIN", Remote: remote, Service: "imap",
	})
	switch {
	case errors.Is(err, mail.ErrBadLogin):
		if s.wrong++; s.wrong >= gate.MaxPerSession {
			s.under.End()
		}
		return no(imap.ResponseCodeAuthenticationFailed, "Wrong account or password")
	case errors.Is(err, gate.ErrTooMany):
		s.under.End()
		return no(imap.ResponseCodeLimit, "Too many wrong logins, try again later")
	case err != nil:
		s.server.log.Warn("a login can't be checked", "remote", remote.String(), "error", err)
		return no(imap.ResponseCodeUnavailable, "Logins can't be checked now, try again later")
	}
	account, err := s.server.store.Account(identity.User)
	if err != nil {
		s.server.log.Warn("a mailbox can't be opened", "account", identity.User, "error", err, "hint", box.Hint(err))
		return errTrouble()
	}
	if !s.under.Enter(account.Key()) {
		account.Close()
		s.under.End()
		return no(imap.ResponseCodeLimit, "Too many connections of this account")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account = account
	return nil
}

// AuthenticateMechanisms returns what AUTHENTICATE can.
func (s *session) AuthenticateMechanisms() []string { return []string{sasl.Plain} }

// Authenticate begins a login by SASL PLAIN (RFC 4616).
func (s *session) Authenticate(mechanism string) (sasl.Server, error) {
	if !strings.EqualFold(mechanism, sasl.Plain) {
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Text: "There is no such mechanism"}
	}
	return plain{sasl.NewPlainServer(func(as, user, password string) error {
		if as != "" && as != user {
			return no(imap.ResponseCodeAuthorizationFailed, "Nobody can act for another account")
		}
		return s.Login(user, password)
	})}, nil
}

// plain is the server's side of PLAIN as IMAP has it: its first challenge is empty, for which the library would write the "="
// that is a client's alone (RFC 9051, 6.2.2), and a response that is none is the client's mistake.
type plain struct{ sasl.Server }

// Next takes a response; nil: there has been none yet.
func (p plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return nil, false, nil
	}
	var told *imap.Error
	challenge, done, err = p.Server.Next(response)
	if err != nil && !errors.As(err, &told) {
		err = &imap.Error{Type: imap.StatusResponseTypeBad, Text: "That is no response for PLAIN"}
	}
	return challenge, done, err
}
