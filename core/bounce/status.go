package bounce

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// expiredStatus is the code of a recipient that was tried until its time was over (RFC 3463, 3.5).
var expiredStatus = mail.EnhancedCode{4, 4, 7}

// global reports whether the status part must hold UTF-8: an address that is not ASCII, and a sender who can read it
// (RFC 6533, 3). For any other sender such an address is escaped.
func (r *Report) global() bool {
	if !r.UTF8 {
		return false
	}
	for _, f := range r.Failure.Recipients {
		if !f.Recipient.Address.IsASCII() || !isASCII(f.Recipient.Original) {
			return true
		}
	}
	return false
}

// status writes the machine part (RFC 3464, 2).
func (r *Report) status() part {
	p := part{description: "Delivery report", contentType: "message/delivery-status", encoding: sevenBit}
	if r.global() {
		p.contentType, p.encoding, p.global = "message/global-delivery-status", eightBit, true
	}
	var b bytes.Buffer
	field(&b, "Reporting-MTA", "dns; "+r.Failure.Hostname)
	if id := r.text(r.Failure.EnvID); id != "" {
		field(&b, "Original-Envelope-Id", id)
	}
	if !r.Failure.Arrived.IsZero() {
		field(&b, "Arrival-Date", date(r.Failure.Arrived))
	}
	for i := range r.Failure.Recipients {
		b.WriteString("\r\n")
		r.recipient(&b, i)
	}
	p.body = b.Bytes()
	return p
}

// recipient writes the fields about one recipient (RFC 3464, 2.3), in the order of that section.
func (r *Report) recipient(b *bytes.Buffer, i int) {
	f, action := &r.Failure.Recipients[i], r.action(i)
	if kind, address, ok := splitOriginal(f.Recipient.Original); ok {
		field(b, "Original-Recipient", kind+"; "+r.addressText(address))
	}
	field(b, "Final-Recipient", r.address(f.Recipient.Address))
	field(b, "Action", string(action))
	field(b, "Status", status(action, f.Reply).String())
	if host := remoteName(f.Host); host != "" {
		field(b, "Remote-MTA", "dns; "+host)
	}
	if d := r.diagnostic(f); d != "" {
		field(b, "Diagnostic-Code", d)
	}
	if !f.Time.IsZero() && (action == Failed || action == Delayed) {
		field(b, "Last-Attempt-Date", date(f.Time))
	}
	if action == Delayed && !r.Failure.Expires.IsZero() {
		field(b, "Will-Retry-Until", date(r.Failure.Expires))
	}
}

// address writes a Final-Recipient: type and address (RFC 3464, 2.3.2; RFC 6533, 3).
func (r *Report) address(a mail.Address) string {
	if a.IsASCII() {
		return "rfc822; " + a.String()
	}
	return "utf-8; " + r.addressText(a.String())
}

// addressText writes an address as utf-8-addr-unitext where UTF-8 may stand, else as utf-8-addr-xtext (RFC 6533, 3).
func (r *Report) addressText(s string) string {
	s = clean(s, maxDiagnostic)
	if r.global() || isASCII(s) {
		return s
	}
	return escape(s, `+=\`, maxDiagnostic)
}

// text makes somebody's text fit the part that it goes into.
func (r *Report) text(s string) string {
	s = clean(s, maxDiagnostic)
	if r.global() {
		return s
	}
	return escape(s, "", maxDiagnostic)
}

// diagnostic writes the words that were said (RFC 3464, 2.3.6). Only what a server said is of type smtp.
func (r *Report) diagnostic(f *mail.FailedRecipient) string {
	if f.Reply.Code == 0 {
		return ""
	}
	kind := "smtp; "
	if f.Host == "" {
		kind = "X-Pabal; "
	}
	return kind + r.text(f.Reply.String())
}

// status returns the enhanced code of a recipient: that of the reply where it fits the action, else one of the action's
// class (RFC 3464, 2.3.4).
func status(action Action, reply mail.Reply) mail.EnhancedCode {
	e := reply.Enhanced
	switch action {
	case Failed:
		if reply.Temporary() {
			return expiredStatus
		}
		return inClass(5, e)
	case Delayed:
		return inClass(4, e)
	default:
		return inClass(2, e)
	}
}

func inClass(class int, e mail.EnhancedCode) mail.EnhancedCode {
	if e[0] != class || e[1] < 0 || e[1] > 999 || e[2] < 0 || e[2] > 999 {
		return mail.EnhancedCode{class, 0, 0}
	}
	return e
}

// splitOriginal takes an ORCPT apart and refuses one that has no address type (RFC 3461, 4.2).
func splitOriginal(orcpt string) (kind, address string, ok bool) {
	kind, address, ok = strings.Cut(orcpt, ";")
	if !ok || kind == "" || len(kind) > 40 || strings.TrimSpace(address) == "" {
		return "", "", false
	}
	for _, c := range []byte(kind) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", "", false
		}
	}
	return kind, address, true
}

// remoteName returns a host as it may stand after "dns;", or "": what is neither name nor address is left out.
func remoteName(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Is4() {
			return "[" + ip.String() + "]"
		}
		return "[IPv6:" + ip.WithZone("").String() + "]"
	}
	name, err := mail.ParseDomain(strings.TrimSuffix(host, "."))
	if err != nil {
		return ""
	}
	return name
}
