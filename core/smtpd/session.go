package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-smtp"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// desk serves one connection: it is go-smtp's Session, and it sees each command before go-smtp does.
type desk struct {
	server   *Server
	edge     *edge
	ctx      context.Context // ends with the connection
	cancel   context.CancelFunc
	info     mail.Session
	identity mail.Identity
	trusted  bool              // may relay
	meta     map[string]string // info.Meta outside of a transaction
	marks    marks             // of the connection
	tx       transaction

	path       path   // of the command that go-smtp is parsing
	scratch    []byte // its line
	introduced bool   // the first line of the EHLO reply is out

	junk, errors, deferrals, logins int

	opened   time.Time
	messages int
	octets   int64
	reason   string // why the connection ends
	abrupt   bool   // it is we who end it
	parted   bool   // 421 has been said
}

// transaction is what MAIL opened and RSET, EHLO or the end of the message closes.
type transaction struct {
	open    bool
	env     mail.Envelope
	promise int64 // SIZE=
	lowered bool  // it wanted more priority than it gets
	rcpts   int   // RCPT commands that were accepted
	marks   marks
	edits   []mail.Edit // of the content, by stages before there was one
	body    *body
	pace    *pace
}

func newDesk(s *Server, e *edge) *desk {
	d := &desk{server: s, edge: e, opened: time.Now()}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.info = mail.Session{
		ID: newToken(), Listener: s.cfg.Name,
		Remote: addrPort(e.raw.RemoteAddr()), Local: addrPort(e.raw.LocalAddr()),
	}
	// A client on a unix socket was let in by the socket's permissions.
	_, unix := e.raw.LocalAddr().(*net.UnixAddr)
	d.trusted = unix || s.inNetworks(d.info.Remote.Addr())
	return d
}

// remote is the client's address for events.
func (d *desk) remote() string {
	if !d.info.Remote.IsValid() {
		return ""
	}
	return d.info.Remote.Addr().String()
}

func (d *desk) utf8() bool { return d.tx.env.SMTPUTF8 }

func (d *desk) canStartTLS() bool { return d.server.cfg.TLS != nil && d.info.TLS == nil }

// secured notes that TLS is active. What the client said before is forgotten (RFC 3207, 4.2).
func (d *desk) secured(s tls.ConnectionState) {
	d.info.TLS = &mail.TLS{
		Version: tls.VersionName(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite), ServerName: s.ServerName,
	}
	d.info.Helo, d.info.ESMTP = "", false
}

// hangUp ends the connection after the next reply.
func (d *desk) hangUp(reason string) {
	d.edge.hangup, d.abrupt, d.reason = true, true, reason
}

// ended notes why the client's commands came to an end.
func (d *desk) ended(err error) {
	if d.reason == "" && !errors.Is(err, io.EOF) {
		d.reason = err.Error()
	}
	d.abrupt = d.abrupt || errors.Is(err, errLineTooLong)
}

// closed tells that the connection is no more.
func (d *desk) closed() {
	if !d.edge.admitted {
		return
	}
	d.server.deps.Events.Emit(event.Event{
		Name: event.SessionClosed, Session: d.info.ID, Listener: d.info.Listener, Remote: d.remote(), User: d.info.User,
		Count: d.messages, Size: d.octets, Took: time.Since(d.opened), Reason: d.reason,
	})
}

// answer makes a failure ready for go-smtp. What the client is not told, the operator is.
func (d *desk) answer(err error) error {
	if err == nil {
		return nil
	}
	r := publicReply(err)
	if reply := (*mail.Reply)(nil); !errors.As(err, &reply) || *reply != r {
		d.server.deps.Events.Emit(event.Event{
			Name: event.Warning, Session: d.info.ID, Listener: d.info.Listener, Remote: d.remote(),
			Stage: d.edge.verb, Reply: r.String(), Err: err,
		})
	}
	return smtpError(r, d.utf8())
}

// Reset makes desk a smtp.Session. It ends the transaction.
func (d *desk) Reset() {
	if d.tx.body != nil {
		d.tx.body.release()
	}
	d.tx = transaction{}
	d.info.From, d.info.To = mail.Address{}, nil
	d.info.Meta = d.meta
}

// Logout makes desk a smtp.Session. go-smtp does not survive a panic in it.
func (d *desk) Logout() error {
	defer func() {
		if p := recover(); p != nil {
			d.server.panicked(d.edge, p)
		}
	}()
	d.Reset()
	return nil
}

// Mail makes desk a smtp.Session. The path is the one that the desk has read itself.
func (d *desk) Mail(_ string, o *smtp.MailOptions) error {
	err := d.mail(o)
	if err != nil {
		err = d.answer(err)
		d.Reset()
	}
	return err
}

func (d *desk) mail(o *smtp.MailOptions) error {
	from := d.path.address
	switch {
	case d.server.cfg.AuthRequired && d.info.User == "":
		return refusal(530, "5.7.0", "log in first") // RFC 4954, 6
	case d.path.utf8 && !o.UTF8:
		return refusal(553, "5.6.7", "that address needs SMTPUTF8") // RFC 6531, 3.5
	case o.RequireTLS && d.info.TLS == nil:
		return refusal(530, "5.7.0", "REQUIRETLS needs TLS") // RFC 8689, 3
	case d.info.User != "" && !maySendAs(d.identity, from):
		return refusal(553, "5.7.1", "that sender's address is not yours")
	}
	if refuses := d.server.deps.Refuses; refuses != nil {
		if r := refuses(o.Size); r != nil {
			return r
		}
	}
	d.tx = transaction{open: true, promise: o.Size, marks: d.marks}
	d.tx.env = mail.Envelope{From: from, EnvID: o.EnvelopeID, SMTPUTF8: o.UTF8, RequireTLS: o.RequireTLS}
	switch o.Return {
	case smtp.DSNReturnFull:
		d.tx.env.Ret = mail.RetFull
	case smtp.DSNReturnHeaders:
		d.tx.env.Ret = mail.RetHeaders
	}
	d.prioritize()
	d.info.From = from
	if p := d.pipeline(); p != nil {
		if r := d.judge(p.Mail(d.ctx, &d.info), &d.tx.marks); r != nil {
			return r
		}
	}
	return nil
}

// Rcpt makes desk a smtp.Session.
func (d *desk) Rcpt(_ string, o *smtp.RcptOptions) error {
	if err := d.rcpt(o); err != nil {
		return d.answer(err)
	}
	d.tx.rcpts++
	return nil
}

func (d *desk) rcpt(o *smtp.RcptOptions) error {
	if d.path.utf8 && !d.tx.env.SMTPUTF8 {
		return refusal(553, "5.6.7", "that address needs SMTPUTF8")
	}
	r, err := recipient(d.path.address, o)
	if err != nil {
		return err
	}
	aliases, err := d.allowed(r.Address)
	if err != nil {
		return err
	}
	if len(d.tx.env.To)+max(1, len(aliases)) > maxEnvelope {
		return refusal(452, "4.5.3", "too many recipients")
	}
	m := marks{}
	edits := []mail.Edit(nil)
	if p := d.pipeline(); p != nil {
		result := p.Rcpt(d.ctx, &d.info, r)
		edits, result.Edits = result.Edits, nil
		if reply := d.judge(result, &m); reply != nil {
			return reply
		}
	}
	if m.held != "" {
		d.tx.marks.held = m.held
	}
	if !m.discard { // taken, and thrown away
		d.take(r, aliases)
	}
	d.stage(edits)
	return nil
}

// take puts the recipient, or what stands for it, into the envelope.
func (d *desk) take(r mail.Recipient, aliases []mail.Address) {
	if len(aliases) == 0 {
		d.addRecipient(r)
	}
	for _, a := range aliases {
		d.addRecipient(replaced(r, a))
	}
}

// allowed asks whether mail for the address is taken from this client, and what stands for the address.
func (d *desk) allowed(a mail.Address) ([]mail.Address, error) {
	if d.server.deps.Policy == nil {
		if !d.trusted {
			return nil, refusal(550, "5.7.1", "relaying denied")
		}
		return nil, nil
	}
	reply, aliases, err := d.server.deps.Policy.Rcpt(d.ctx, &d.info, d.trusted, a)
	switch {
	case err != nil:
		return nil, err
	case reply.Code == 0 || reply.Positive():
		return aliases, nil
	}
	return nil, &reply
}

// recipient makes a Recipient of what RCPT said (RFC 3461, 4).
func recipient(a mail.Address, o *smtp.RcptOptions) (mail.Recipient, error) {
	r := mail.Recipient{Address: a}
	for _, n := range o.Notify {
		switch n {
		case smtp.DSNNotifyNever:
			r.Notify |= mail.NotifyNever
		case smtp.DSNNotifySuccess:
			r.Notify |= mail.NotifySuccess
		case smtp.DSNNotifyFailure:
			r.Notify |= mail.NotifyFailure
		case smtp.DSNNotifyDelayed:
			r.Notify |= mail.NotifyDelay
		}
	}
	if o.OriginalRecipient != "" {
		if strings.ContainsFunc(o.OriginalRecipient, unicode.IsControl) {
			return r, refusal(501, "5.5.4", "ORCPT holds control characters")
		}
		r.Original = strings.ToLower(string(o.OriginalRecipientType)) + ";" + o.OriginalRecipient
	}
	return r, nil
}

// Data makes desk a smtp.Session. The body is read from the edge, unless BDAT has brought it; go-smtp's reader is given
// nothing but the end.
func (d *desk) Data(io.Reader) error {
	b := d.tx.body
	if b == nil {
		b = d.server.newBody(d.tx.promise)
		d.tx.body = b
		if err := d.edge.readDots(b); err != nil {
			return smtpError(d.broken(b, err), false)
		}
	}
	d.edge.hand = []byte(endOfData)
	id, err := d.accept(b)
	if err != nil {
		return d.answer(err)
	}
	d.messages++
	d.octets += b.size
	d.errors, d.deferrals, d.junk = 0, 0, 0
	return smtpError(d.queuedReply(id), true)
}

// broken ends the connection: a body has not come to its end, and what would be read next could be part of it.
func (d *desk) broken(b *body, err error) mail.Reply {
	d.hangUp("in a body: " + err.Error())
	var timeout net.Error
	switch {
	case b.refusal != nil && b.refusal.Code != 503:
		return *b.refusal
	case errors.As(err, &timeout) && timeout.Timeout():
		return mail.NewReply(421, "4.4.2", "timeout")
	}
	return mail.NewReply(421, "4.4.2", "connection lost")
}

// accept turns a body that came to its end into a queued message.
func (d *desk) accept(b *body) (id string, err error) {
	if b.refusal != nil {
		if b.hostile {
			d.hangUp(b.refusal.Text)
		}
		return "", b.refusal
	}
	a, err := d.compose(b)
	if err != nil {
		return "", err
	}
	m, err := d.filter(&mail.Message{ID: a.ID, Envelope: a.Envelope, Content: a.Content})
	if err != nil {
		return "", err
	}
	a.Envelope, a.Content, a.Held = m.Envelope, m.Content, d.tx.marks.held
	for k, v := range d.info.Meta {
		a.Meta[k] = v
	}
	if d.tx.marks.discard || len(a.Envelope.To) == 0 {
		d.server.deps.Events.Emit(event.Event{
			Name: event.FilterVerdict, Session: d.info.ID, ID: a.ID, Listener: d.info.Listener, Remote: d.remote(),
			From: a.Envelope.From.String(), Stage: "message", Class: mail.ActionDiscard.String(), Size: a.Content.Size(),
		})
		return a.ID, nil
	}
	return d.queue(a, b)
}

// compose puts our fields on top of a body.
func (d *desk) compose(b *body) (*Accepted, error) {
	f, err := b.facts()
	if err != nil {
		return nil, err
	}
	if f.received >= d.server.cfg.Limits.Received {
		return nil, refusal(554, "5.4.6", "the message has come by too many servers; is there a loop?") // RFC 5321, 6.3
	}
	a := &Accepted{Session: d.info.ID, Client: &d.info, Envelope: d.tx.env, Received: time.Now()}
	if a.Envelope.Body = mail.Body7Bit; b.eight {
		a.Envelope.Body = mail.Body8Bit
	}
	if a.ID = d.info.ID + "." + strconv.Itoa(d.messages+1); d.server.deps.NewID != nil {
		a.ID = d.server.deps.NewID()
	}
	a.Meta = map[string]string{"listener": d.info.Listener, "remote": d.remote(), "helo": d.info.Helo}
	if d.info.User != "" {
		a.Meta["user"] = d.info.User
	}
	a.Content, err = b.under(d.topFields(a.ID, a.Received, f))
	return a, err
}

// queue hands the message over. When the queue has it, the memory is the queue's to count, and the file its to release.
func (d *desk) queue(a *Accepted, b *body) (string, error) {
	if f := b.file; f != nil {
		a.release = func() { f.Close() }
	}
	taken := b.taken
	b.taken = 0
	defer b.budget.give(taken)
	a.Envelope.To = slices.Clip(a.Envelope.To)
	id, err := d.server.deps.Queue(d.ctx, a)
	if err != nil {
		a.Release()
		return "", err
	}
	d.tx.body = nil // it is no longer ours to release
	return id, nil
}
