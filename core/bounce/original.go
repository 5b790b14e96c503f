package bounce

import (
	"bytes"
	"io"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxHeader bounds how much of an original's header goes back, in bytes.
const maxHeader = 64 << 10

// header returns the original's header, at most maxHeader of it, whole lines.
func (r *Report) header() []byte {
	raw := r.Failure.Header
	if raw == nil && r.Original != nil {
		h, _, err := mail.RawHeader(r.Original)
		if err == nil {
			raw = h
		}
	}
	if len(raw) <= maxHeader {
		return raw
	}
	return raw[:bytes.LastIndexByte(raw[:maxHeader], '\n')+1]
}

// original returns the part that gives the message back (RFC 3461, 6.3; RFC 6522, 3), or false when nothing can be read.
// A message that can't be read must not keep its sender from hearing of the failure.
func (r *Report) original() (part, bool) {
	if content, ok := r.whole(); ok {
		p := part{description: "Undelivered message", contentType: "message/rfc822", encoding: widthOf(content), body: content}
		if h, _, err := mail.RawHeader(mail.Bytes(content)); r.UTF8 && err == nil && !isASCII(h) {
			p.contentType, p.global = "message/global", true // RFC 6533, 5
		}
		return p, true
	}
	h := r.Failure.Header
	if len(h) == 0 {
		return part{}, false
	}
	p := part{description: "Headers of the message", contentType: "text/rfc822-headers", encoding: widthOf(h), body: h}
	switch {
	case !isLines(h):
		p.encoding, p.body = quotedPrintable, asQuotedPrintable(h)
	case r.UTF8 && !isASCII(h):
		p.contentType, p.global = "message/global-headers", true // RFC 6533, 6
	}
	return p, true
}

// whole reads the original if all of it is to go back: a failure, asked for with RET=FULL, not too large, and made of
// lines, since a message/rfc822 can't be encoded (RFC 2046, 5.2.1).
func (r *Report) whole() ([]byte, bool) {
	if r.Failure.Kind == mail.FailureDelayed || r.Failure.Kind == mail.FailureDelivered || r.Ret != mail.RetFull {
		return nil, false
	}
	if r.Original == nil || r.Original.Size() > r.Limit {
		return nil, false
	}
	content, err := io.ReadAll(mail.Reader(r.Original))
	if err != nil || int64(len(content)) != r.Original.Size() || !isLines(content) {
		return nil, false
	}
	return content, true
}

func widthOf(b []byte) encoding {
	if isASCII(b) {
		return sevenBit
	}
	return eightBit
}
