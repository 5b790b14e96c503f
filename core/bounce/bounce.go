// Package bounce writes the report that tells a sender what became of a message: an RFC 3464 delivery status
// notification inside an RFC 6522 multipart/report, as RFC 3461 asks for it.
//
// It only writes: who is told, and whether at all, is decided by its caller, which never has a report written about a
// message with a null sender. What other servers said is hostile text and is cleaned, cut and folded before it becomes
// part of a header. Nothing is sent or stored here; when Write fails there is no report, and the caller still has the
// failure.
package bounce

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// DefaultLimit is up to how many bytes of an original go back whole; of a larger one only the headers do. Postfix's
// bounce_size_limit is the same.
const DefaultLimit = 50 << 10

// Action is the value of a recipient's Action field (RFC 3464, 2.3.3).
type Action string

// The actions. The zero value means the one that the kind of the report implies.
const (
	Failed    Action = "failed"
	Delayed   Action = "delayed"
	Delivered Action = "delivered"
	Relayed   Action = "relayed"  // passed on to a server that will not report
	Expanded  Action = "expanded" // delivered to a list or an alias with several members
)

// Report is what a report is made of.
type Report struct {
	Failure    mail.Failure
	Notice     mail.Notice  // the human part, where a notifier rendered one
	Original   mail.Content // nil when it can't be read: then Failure.Header goes back
	Ret        mail.Ret     // unset is taken as RetHeaders: a forged sender is spared the rest (RFC 3461, 4.3 leaves it to us)
	Actions    []Action     // one for each recipient of Failure, or nil
	UTF8       bool         // the original came with SMTPUTF8, so its sender can read UTF-8 headers (RFC 6533)
	RequireTLS bool         // the original came with REQUIRETLS (RFC 8689)
	Limit      int64        // in bytes; 0 is DefaultLimit
	Time       time.Time    // of the report; zero is now
}

// Write returns the whole report, lines ended by CRLF, and the envelope to queue it with: null sender, and the body type
// that its content needs.
func Write(r Report) ([]byte, mail.Envelope, error) {
	if err := r.fill(); err != nil {
		return nil, mail.Envelope{}, err
	}
	parts := []part{r.human(), r.status()}
	if p, ok := r.original(); ok {
		parts = append(parts, p)
	}
	boundary := newBoundary(parts)
	var b bytes.Buffer
	r.writeHeader(&b, boundary, parts)
	for _, p := range parts {
		fmt.Fprintf(&b, "\r\n--%s\r\n", boundary)
		p.writeTo(&b)
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	return b.Bytes(), r.envelope(parts), nil
}

// fill puts in what was left open and refuses what no report can be made of.
func (r *Report) fill() error {
	if len(r.Failure.Recipients) == 0 {
		return errors.New("a report needs a recipient to report on")
	}
	if r.Actions != nil && len(r.Actions) != len(r.Failure.Recipients) {
		return fmt.Errorf("%d actions for %d recipients", len(r.Actions), len(r.Failure.Recipients))
	}
	if r.to().IsNull() {
		return errors.New("a report can't go to the null address")
	}
	host, err := mail.ParseDomain(r.Failure.Hostname)
	if err != nil {
		return fmt.Errorf("the reporting host: %w", err)
	}
	r.Failure.Hostname = host
	if r.Failure.Postmaster.IsNull() {
		if r.Failure.Postmaster, err = mail.NewAddress("postmaster", host); err != nil {
			return err
		}
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	if r.Limit <= 0 {
		r.Limit = DefaultLimit
	}
	r.Failure.Header = r.header()
	if r.RequireTLS { // RFC 8689, 5: as if RET=HDRS had been said.
		r.Ret = mail.RetHeaders
	}
	return nil
}

// to returns who is told: the sender, unless a notifier chose another.
func (r *Report) to() mail.Address {
	if !r.Notice.To.IsNull() {
		return r.Notice.To
	}
	return r.Failure.From
}

// action returns the Action of the i-th recipient.
func (r *Report) action(i int) Action {
	if r.Actions != nil {
		switch a := r.Actions[i]; a {
		case Failed, Delayed, Delivered, Relayed, Expanded:
			return a
		}
	}
	switch r.Failure.Kind {
	case mail.FailureDelayed:
		return Delayed
	case mail.FailureDelivered:
		return Delivered
	default:
		return Failed
	}
}

// envelope obeys RFC 3461, 6.1: a report has a null sender, so that nothing ever reports on it.
func (r *Report) envelope(parts []part) mail.Envelope {
	e := mail.Envelope{To: []mail.Recipient{{Address: r.to()}}, RequireTLS: r.RequireTLS}
	e.SMTPUTF8 = !r.to().IsASCII() || !r.Failure.Postmaster.IsASCII()
	for _, p := range parts {
		if p.encoding == eightBit {
			e.Body = mail.Body8Bit
		}
		e.SMTPUTF8 = e.SMTPUTF8 || p.global
	}
	if e.SMTPUTF8 {
		e.Body = mail.Body8Bit // RFC 6531, 3.4: an SMTPUTF8 message has 8-bit headers at least.
	}
	return e
}

func (r *Report) writeHeader(b *bytes.Buffer, boundary string, parts []part) {
	reportType := "delivery-status"
	if r.global() { // RFC 6533, 2
		reportType = "global-delivery-status"
	}
	field(b, "From", `"Mail Delivery System" <`+r.Failure.Postmaster.String()+">")
	field(b, "To", "<"+r.to().String()+">")
	field(b, "Subject", encodeWords(r.subject()))
	field(b, "Date", date(r.Time))
	field(b, "Message-ID", "<"+strings.ToLower(rand.Text())+"@"+r.Failure.Hostname+">")
	if id := r.originalID(); id != "" {
		field(b, "In-Reply-To", id)
		field(b, "References", id)
	}
	field(b, "Auto-Submitted", "auto-replied") // RFC 3834, 5
	field(b, "MIME-Version", "1.0")
	fmt.Fprintf(b, "Content-Type: multipart/report; report-type=%s;\r\n boundary=\"%s\"\r\n", reportType, boundary)
	if slices.ContainsFunc(parts, func(p part) bool { return p.encoding == eightBit }) {
		field(b, "Content-Transfer-Encoding", string(eightBit)) // RFC 2045, 6.4: a multipart declares what its parts hold.
	}
}

func (r *Report) subject() string {
	if s := clean(r.Notice.Subject, maxSubject); r.Notice.Action == mail.NoticeRender && s != "" {
		return s
	}
	switch r.Failure.Kind {
	case mail.FailureDelayed:
		return "Your message is delayed, we are still trying"
	case mail.FailureDelivered:
		return "Your message has been delivered"
	default:
		return "Your message could not be delivered"
	}
}

// originalID returns the Message-ID of the original when it can be repeated in a header without harm.
func (r *Report) originalID() string {
	id := mail.ParseHeader(r.Failure.Header).Get("Message-ID")
	inner, ok := strings.CutPrefix(id, "<")
	inner, end := strings.CutSuffix(inner, ">")
	if !ok || !end || len(id) > 250 || strings.Count(inner, "@") != 1 {
		return ""
	}
	for _, c := range []byte(inner) {
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' || c == '"' {
			return ""
		}
	}
	return id
}

// newBoundary returns a boundary that no part holds. It is random, so that nobody who wrote a part could foresee it
// (RFC 2046, 5.1.1).
func newBoundary(parts []part) string {
	for {
		boundary := "=_" + rand.Text()
		taken := false
		for _, p := range parts {
			taken = taken || bytes.Contains(p.body, []byte(boundary))
		}
		if !taken {
			return boundary
		}
	}
}

// encodedPiece is how many bytes of text go into one encoded word, so that it fits a line of 76 with the name of the field
// (RFC 2047, 2).
const encodedPiece = 39

// encodeWords writes text as a header value: as it is when it is plain, else as encoded words, none of which splits a
// character (RFC 2047, 5).
func encodeWords(text string) string {
	if isASCII(text) && !strings.Contains(text, "=?") {
		return text
	}
	var words []string
	for text != "" {
		piece := cut(text, encodedPiece)
		words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(piece))+"?=")
		text = text[len(piece):]
	}
	return strings.Join(words, " ")
}
