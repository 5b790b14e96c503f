package smtpd

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// What a login may be long, in octets. Longer ones are wrong without anybody being asked.
const (
	maxUser     = 320
	maxPassword = 1024
)

// mayLogIn reports whether a password would travel safely.
func (d *desk) mayLogIn() bool { return d.info.TLS != nil || d.server.cfg.InsecureAuth }

// AuthMechanisms makes desk a smtp.AuthSession.
func (d *desk) AuthMechanisms() []string {
	if d.server.deps.Authenticator == nil || !d.mayLogIn() {
		return nil
	}
	return []string{"PLAIN", "LOGIN"}
}

// Auth makes desk a smtp.AuthSession.
func (d *desk) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case "PLAIN":
		return strict{d, sasl.NewPlainServer(func(identity, user, password string) error {
			if identity != "" && identity != user { // nobody acts for somebody else
				password, user = "", ""
			}
			return d.logIn(user, password, "PLAIN")
		})}, nil
	case "LOGIN":
		return strict{d, &loginServer{check: func(user, password string) error { return d.logIn(user, password, "LOGIN") }}}, nil
	}
	return nil, d.answer(refusal(504, "5.5.4", "that mechanism is not offered")) // RFC 4954, 4
}

// strict turns a response that the mechanism can't read into the client's mistake, which go-smtp takes for ours.
type strict struct {
	d *desk
	sasl.Server
}

// Next makes strict a sasl.Server.
func (s strict) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = s.Server.Next(response)
	if smtpErr := (*smtp.SMTPError)(nil); err != nil && !errors.As(err, &smtpErr) {
		err = s.d.answer(refusal(501, "5.5.2", "that response makes no sense")) // RFC 4954, 4
	}
	return challenge, done, err
}

// logIn asks whether the login is right. Its error is ready for go-smtp.
func (d *desk) logIn(user, password, mechanism string) error {
	identity, err := mail.Identity{}, mail.ErrBadLogin
	if isUser(user) && password != "" && len(password) <= maxPassword && !strings.ContainsRune(password, 0) {
		identity, err = d.server.deps.Authenticator.Authenticate(d.ctx, mail.Login{
			User: user, Password: password, Mechanism: mechanism, Remote: d.info.Remote, Service: "smtp",
		})
	}
	if err == nil && identity.User == "" {
		err = errors.New("the authenticator named no user")
	}
	if err == nil {
		d.info.User, d.identity, d.trusted = identity.User, identity, true
		d.logins = 0
		d.emitLogin(event.LoginOK, identity.User, mechanism, nil)
		return nil
	}
	d.emitLogin(event.LoginFailed, user, mechanism, err)
	return d.answer(d.loginError(err))
}

// loginError turns a failed login into its reply, late: the more have failed, the later.
func (d *desk) loginError(err error) *mail.Reply {
	var r *mail.Reply
	switch {
	case errors.Is(err, mail.ErrBadLogin):
		r = refusal(535, "5.7.8", "wrong account or password")
	case errors.As(err, &r) && r.Code >= 400 && r.Check() == nil:
	default:
		return &mail.Reply{Code: 454, Enhanced: mail.EnhancedCode{4, 7, 0}, Text: "logins can't be checked now, try again later"}
	}
	pause(d.ctx, d.server.cfg.Limits.AuthDelay<<d.logins)
	d.logins++
	return r
}

func (d *desk) emitLogin(name event.Name, user, mechanism string, err error) {
	if !isUser(user) {
		user = "" // what is no name is not logged as one
	}
	d.server.deps.Events.Emit(event.Event{
		Name: name, Session: d.info.ID, Listener: d.info.Listener, Remote: d.remote(), User: user, Reason: mechanism, Err: err,
	})
}

func isUser(user string) bool {
	return user != "" && len(user) <= maxUser && utf8.ValidString(user) && !strings.ContainsFunc(user, unicode.IsControl)
}

// maySendAs reports whether the account may use a reverse-path: the null one (a read receipt has it), its own name, its
// addresses, and these with a tag (user+tag).
func maySendAs(id mail.Identity, from mail.Address) bool {
	if id.AnySender || from.IsNull() {
		return true
	}
	own := id.Addresses
	if a, err := mail.ParseAddress(id.User); err == nil {
		own = append([]mail.Address{a}, own...)
	}
	untagged, _, _ := strings.Cut(from.Local(), "+")
	for _, a := range own {
		if a.Domain() == from.Domain() && (strings.EqualFold(a.Local(), from.Local()) || strings.EqualFold(a.Local(), untagged)) {
			return true
		}
	}
	return false
}

// loginServer is the server side of LOGIN (draft-murchison-sasl-login-00), which go-sasl lacks.
type loginServer struct {
	check func(user, password string) error
	user  string
	step  int
}

// Next makes loginServer a sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if l.step == 0 && response == nil {
		l.step = 1
		return []byte("Username:"), false, nil
	}
	switch l.step {
	case 0, 1:
		l.user, l.step = string(response), 2
		return []byte("Password:"), false, nil
	case 2:
		l.step = 3
		return nil, true, l.check(l.user, string(response))
	}
	return nil, true, sasl.ErrUnexpectedClientResponse
}

var _ smtp.AuthSession = (*desk)(nil)
