package calls

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// The words that go both ways: each is put onto the wire by the one function and taken from it by the other.

func putAddresses(list []mail.Address) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

func takeAddresses(list []string) ([]mail.Address, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]mail.Address, len(list))
	for i, s := range list {
		var err error
		if out[i], err = mail.ParseAddress(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// takePath reads an address that may be the null reverse-path.
func takePath(s string) (mail.Address, error) {
	if s == "" {
		return mail.Address{}, nil
	}
	return mail.ParseAddress(s)
}

func putAddrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func takeAddrPort(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	return netip.ParseAddrPort(s)
}

func putTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func takeTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

var notifyBits = [...]struct {
	bit  mail.Notify
	wire pb.Notify
}{
	{mail.NotifyNever, pb.Notify_NOTIFY_NEVER},
	{mail.NotifySuccess, pb.Notify_NOTIFY_SUCCESS},
	{mail.NotifyFailure, pb.Notify_NOTIFY_FAILURE},
	{mail.NotifyDelay, pb.Notify_NOTIFY_DELAY},
}

func putNotify(n mail.Notify) (out []pb.Notify) {
	if n == 0 {
		return nil
	}
	for _, b := range notifyBits {
		if n&b.bit != 0 {
			out = append(out, b.wire)
		}
	}
	return out
}

func takeNotify(list []pb.Notify) (n mail.Notify, err error) {
	for _, w := range list {
		if w < pb.Notify_NOTIFY_NEVER || w > pb.Notify_NOTIFY_DELAY {
			return 0, fmt.Errorf("%v is no value of NOTIFY", w)
		}
		n |= notifyBits[w-1].bit
	}
	if n&mail.NotifyNever != 0 && n != mail.NotifyNever {
		return 0, fmt.Errorf("NOTIFY=NEVER stands alone (RFC 3461, 4.1)")
	}
	return n, nil
}

func putRecipient(r mail.Recipient) *pb.Recipient {
	p := &pb.Recipient{}
	fillRecipient(p, r)
	return p
}

func fillRecipient(p *pb.Recipient, r mail.Recipient) {
	p.Address, p.Notify, p.Original = r.Address.String(), putNotify(r.Notify), text(r.Original)
}

func takeRecipient(p *pb.Recipient) (r mail.Recipient, err error) {
	if r.Address, err = mail.ParseAddress(p.GetAddress()); err != nil {
		return r, err
	}
	if r.Notify, err = takeNotify(p.GetNotify()); err != nil {
		return r, err
	}
	r.Original = p.GetOriginal()
	if len(r.Original) > 500 || hasControl(r.Original) {
		return r, fmt.Errorf("the original recipient of %s is too long or holds a control character", r.Address)
	}
	return r, nil
}

func putRecipients(list []mail.Recipient) []*pb.Recipient {
	if len(list) == 0 {
		return nil
	}
	out := make([]*pb.Recipient, len(list))
	for i, r := range list {
		out[i] = putRecipient(r)
	}
	return out
}

func takeRecipients(list []*pb.Recipient) ([]mail.Recipient, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]mail.Recipient, len(list))
	for i, p := range list {
		var err error
		if out[i], err = takeRecipient(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// hasControl reports ASCII controls: CR, LF and NUL above all.
func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

func putReply(r mail.Reply) *pb.Reply {
	if r == (mail.Reply{}) {
		return nil
	}
	p := &pb.Reply{Code: uint32(max(r.Code, 0)), Text: text(r.Text)}
	if r.Enhanced != (mail.EnhancedCode{}) {
		p.Enhanced = r.Enhanced.String()
	}
	return p
}

func takeReply(p *pb.Reply) (r mail.Reply, err error) {
	r.Code = int(min(p.GetCode(), 1000)) // out of range stays out of range, also where int is short
	r.Text = p.GetText()
	if e := p.GetEnhanced(); e != "" {
		if r.Enhanced, err = mail.ParseEnhanced(e); err != nil {
			return mail.Reply{}, err
		}
	}
	return r, r.Check()
}

func putBody(b mail.BodyType) pb.BodyType { return pb.BodyType(b) + pb.BodyType_BODY_TYPE_7BIT }

func takeBody(p pb.BodyType) (mail.BodyType, error) {
	if p < pb.BodyType_BODY_TYPE_7BIT || p > pb.BodyType_BODY_TYPE_BINARYMIME {
		return 0, fmt.Errorf("%v is no body type", p)
	}
	return mail.BodyType(p - pb.BodyType_BODY_TYPE_7BIT), nil
}

func putEnvelope(e *mail.Envelope) *pb.Envelope {
	return &pb.Envelope{
		From: e.From.String(), To: putRecipients(e.To), Envid: text(e.EnvID), Ret: pb.Ret(e.Ret), Body: putBody(e.Body),
		Smtputf8: e.SMTPUTF8, RequireTls: e.RequireTLS, Priority: int32(e.Priority),
	}
}

func takeEnvelope(p *pb.Envelope) (e mail.Envelope, err error) {
	if e.From, err = takePath(p.GetFrom()); err != nil {
		return e, err
	}
	if e.To, err = takeRecipients(p.GetTo()); err != nil {
		return e, err
	}
	if e.Body, err = takeBody(p.GetBody()); err != nil {
		return e, err
	}
	e.EnvID, e.Ret, e.SMTPUTF8, e.RequireTLS = p.GetEnvid(), mail.Ret(p.GetRet()), p.GetSmtputf8(), p.GetRequireTls()
	e.Priority = int8(min(max(p.GetPriority(), -mail.MaxPriority), mail.MaxPriority))
	return e, nil
}

func putSession(s *mail.Session) *pb.Session {
	p := &pb.Session{}
	fillSession(p, s)
	return p
}

func fillSession(p *pb.Session, s *mail.Session) {
	p.Id, p.Listener, p.Remote, p.Local = text(s.ID), text(s.Listener), putAddrPort(s.Remote), putAddrPort(s.Local)
	p.Helo, p.Esmtp, p.User, p.From, p.To = text(s.Helo), s.ESMTP, text(s.User), s.From.String(), putRecipients(s.To)
	if s.TLS != nil {
		p.Tls = &pb.Tls{Version: s.TLS.Version, Cipher: s.TLS.Cipher, ServerName: text(s.TLS.ServerName)}
	}
	p.Meta = putMeta(s.Meta)
}

func putMeta(meta map[string]string) map[string]string {
	if len(meta) == 0 {
		return nil
	}
	out := make(map[string]string, len(meta))
	for k, v := range meta {
		out[text(k)] = text(v)
	}
	return out
}

func takeSession(p *pb.Session) (*mail.Session, error) {
	s := &mail.Session{
		ID: p.GetId(), Listener: p.GetListener(), Helo: p.GetHelo(), ESMTP: p.GetEsmtp(), User: p.GetUser(), Meta: p.GetMeta(),
	}
	if t := p.GetTls(); t != nil {
		s.TLS = &mail.TLS{Version: t.GetVersion(), Cipher: t.GetCipher(), ServerName: t.GetServerName()}
	}
	var err error
	if s.Remote, err = takeAddrPort(p.GetRemote()); err != nil {
		return nil, err
	}
	if s.Local, err = takeAddrPort(p.GetLocal()); err != nil {
		return nil, err
	}
	if s.From, err = takePath(p.GetFrom()); err != nil {
		return nil, err
	}
	s.To, err = takeRecipients(p.GetTo())
	return s, err
}

func putHeader(h mail.Header) []*pb.Field {
	out := make([]*pb.Field, len(h))
	fields := make([]pb.Field, len(h))
	for i, f := range h {
		p := &fields[i]
		p.Id, p.Name, p.Value = f.ID, text(f.Name), f.Value
		out[i] = p
	}
	return out
}

func takeHeader(list []*pb.Field) mail.Header {
	if len(list) == 0 {
		return nil
	}
	h := make(mail.Header, len(list))
	for i, p := range list {
		h[i] = mail.Field{ID: p.GetId(), Name: p.GetName(), Value: p.GetValue()}
	}
	return h
}

// isLanguage tells a language tag of RFC 5646 closely enough to be safe in a header.
func isLanguage(s string) bool {
	return len(s) <= 35 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}) < 0
}
