package mime

import (
	"bytes"
	"context"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

// goal is what the walk is to reach.
type goal struct {
	takes  class  // no octets of a greater class may stay
	ascii  bool   // header fields are to be ASCII
	decode string // for a mailbox: mailbox8Bit or mailboxBinary
}

// walk goes through the entities of a message and collects them, changed where they must be.
type walk struct {
	goal
	ctx        context.Context
	out        rope
	changes    int      // made so far
	parts      int      // met so far
	limit      int      // of the result, in bytes
	boundaries [][]byte // of the multiparts around, as delimiters
}

// place is where an entity stands.
type place struct {
	depth   int
	message bool // it is a message, not a part of one
	root    bool // it is the message itself
	final   bool // it reaches to the end of all, where a line must end
	digest  bool // it stands in a multipart/digest, where message/rfc822 is the default (RFC 2046, 5.1.5)
}

// entity collects one entity and returns the class of what was collected.
func (w *walk) entity(b []byte, at place) (class, error) {
	if w.parts++; w.parts > maxParts || at.depth > maxDepth {
		return 0, errLimit
	}
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	raw, blank, body := splitEntity(b)
	if len(raw) > mail.MaxHeader {
		return 0, errLimit
	}
	h := parseHeader(raw)
	slot, before := w.out.reserve(), w.changes // the header is known when the body is
	c, err := w.body(h, body, at)
	if err != nil {
		return 0, err
	}
	if err := w.downgrade(h, at); err != nil {
		return 0, err
	}
	// Without an empty line below it, the header would take in the one that the body has got.
	if open := len(blank) == 0 && len(body) > 0 && w.changes > before; !h.changed && !open {
		w.out.fill(slot, b[:len(raw)+len(blank)])
	} else {
		w.changes++
		if len(blank) == 0 && len(body) > 0 {
			blank = []byte("\r\n")
		}
		w.out.fill(slot, append(h.bytes(), blank...))
	}
	if hasHigh(w.out.parts[slot]) {
		c = max(c, class8Bit)
	}
	if w.out.size > w.limit {
		return 0, errLimit
	}
	return c, nil
}

// body collects the body of an entity, by its type.
func (w *walk) body(h *header, body []byte, at place) (class, error) {
	kind, boundary := h.media(defaultKind(at))
	plain := isIdentity(h.encoding())
	inside := place{depth: at.depth + 1, final: at.final}
	var collect func() (class, error)
	switch {
	case kind == "multipart/signed" || kind == "multipart/encrypted":
		return w.sealed(body)
	case strings.HasPrefix(kind, "multipart/") && boundary != "" && plain:
		inside.digest = kind == "multipart/digest"
		collect = func() (class, error) { return w.multipart(body, boundary, inside) }
	case (kind == "message/rfc822" || kind == "message/news") && plain:
		inside.message = true
		collect = func() (class, error) { return w.entity(body, inside) }
	default:
		return w.leaf(h, kind, body, at)
	}
	before := w.changes
	c, err := collect()
	if err == nil && w.changes > before && h.encoding() != c.String() {
		// Only a label may stand here, that of the greatest class inside (RFC 2045, 6.4).
		h.set("Content-Transfer-Encoding", c.String())
	}
	return c, err
}

func defaultKind(at place) string {
	if at.digest {
		return "message/rfc822"
	}
	return "text/plain"
}

// sealed collects a signed or encrypted body, untouched (RFC 1847, 2.1).
func (w *walk) sealed(body []byte) (class, error) {
	s := scanBytes(body)
	if s.class() > w.takes && !s.onlyLong(w.takes) {
		return 0, errSealed
	}
	w.out.add(body)
	return s.class(), nil
}

// multipart collects preamble, parts and epilogue with the delimiters between them (RFC 2046, 5.1.1).
func (w *walk) multipart(body []byte, boundary string, at place) (class, error) {
	delimiter := []byte("--" + boundary)
	w.boundaries = append(w.boundaries, delimiter)
	defer func() { w.boundaries = w.boundaries[:len(w.boundaries)-1] }()
	d, ok := nextDelimiter(body, delimiter, 0)
	if !ok {
		return w.without(body)
	}
	c := w.ignored(body[:d.start])
	for !d.closing {
		w.out.add(body[d.start:d.end])
		next, ok := nextDelimiter(body, delimiter, d.end)
		if !ok {
			// It is never closed: the last part goes to the end.
			last, err := w.entity(body[d.end:], at)
			return max(c, last), err
		}
		part := at
		part.final = false
		inner, err := w.entity(body[d.end:next.start], part)
		if err != nil {
			return 0, err
		}
		c, d = max(c, inner), next
	}
	w.out.add(body[d.start:d.end])
	return max(c, w.ignored(body[d.end:])), nil
}

// without collects a multipart in which its boundary is not found: there is nothing that could be converted by rule.
func (w *walk) without(body []byte) (class, error) {
	s := scanBytes(body)
	if s.class() > w.takes && !s.onlyLong(w.takes) {
		return 0, errUnknown
	}
	w.out.add(body)
	return s.class(), nil
}

// ignored collects text that is no part, and that mail programs don't show. What can't go as it is becomes question marks.
func (w *walk) ignored(b []byte) class {
	s := scanBytes(b)
	if s.class() <= w.takes || s.onlyLong(w.takes) {
		w.out.add(b)
		return s.class()
	}
	clean := bytes.Clone(b)
	for i, c := range clean {
		lone := c == '\r' && (i+1 == len(b) || b[i+1] != '\n') || c == '\n' && (i == 0 || b[i-1] != '\r')
		if c == 0 || c >= 0x80 && w.takes == class7Bit || lone {
			clean[i] = '?'
		}
	}
	w.changes++
	w.out.add(clean)
	s = scanBytes(clean)
	return s.class()
}

// delimiter is a line between parts, with the line end before it, which belongs to it.
type delimiter struct {
	start, end int
	closing    bool
}

// nextDelimiter finds the next delimiter line.
func nextDelimiter(b, line []byte, from int) (delimiter, bool) {
	for at := from; ; at++ {
		i := bytes.Index(b[at:], line)
		if i < 0 {
			return delimiter{}, false
		}
		at += i
		if at > 0 && b[at-1] != '\n' {
			continue
		}
		end := at + len(line)
		closing := bytes.HasPrefix(b[end:], []byte("--"))
		if closing {
			end += 2
		}
		rest := bytes.TrimLeft(b[end:], " \t")
		n := len(b) - len(rest)
		switch {
		case len(rest) == 0:
		case rest[0] == '\n':
			n++
		case bytes.HasPrefix(rest, []byte("\r\n")):
			n += 2
		default:
			continue
		}
		start := len(bytes.TrimSuffix(bytes.TrimSuffix(b[:at], []byte("\n")), []byte("\r")))
		return delimiter{max(start, from), n, closing}, true
	}
}

// leaf collects the body of a part that holds no others.
func (w *walk) leaf(h *header, kind string, body []byte, at place) (class, error) {
	encoding := h.encoding()
	if w.decode != "" {
		if plain, c, ok := w.decoded(kind, encoding, body, at); ok {
			h.set("Content-Transfer-Encoding", c.String())
			w.out.add(plain)
			return c, nil
		}
	}
	s := scanBytes(body)
	if s.class() <= w.takes {
		w.out.add(body)
		return s.class(), nil
	}
	if strings.HasPrefix(kind, "message/") && !strings.HasPrefix(kind, "message/global") &&
		!encodable[kind] || !isIdentity(encoding) && encoding != "quoted-printable" && encoding != "base64" {
		if !s.onlyLong(w.takes) {
			return 0, errUnknown
		}
		w.out.add(body)
		return s.class(), nil
	}
	switch {
	case encoding == "base64":
		w.out.add(wrapBase64(body, at.final))
	case encoding == "quoted-printable":
		w.out.add(appendQP(nil, repairQP(body), at.final))
	case strings.HasPrefix(kind, "text/") && needsQuoting(body) <= len(body)/6 || strings.HasPrefix(kind, "message/"):
		h.set("Content-Transfer-Encoding", "quoted-printable")
		w.out.add(appendQP(nil, body, at.final))
	default:
		h.set("Content-Transfer-Encoding", "base64")
		w.out.add(appendBase64(body, at.final))
	}
	w.changes++
	if at.message {
		w.declare(h, body)
	}
	return class7Bit, nil
}

// encodable are the message types that may not be encoded (RFC 2046, 5.2; RFC 3464, 2.1), yet are when octets got in that
// should not be there: every reader decodes them, and the other way is to lose a report.
var encodable = map[string]bool{"message/delivery-status": true, "message/disposition-notification": true, "message/feedback-report": true}

// declare makes a message one of MIME, so that its encoding is understood (RFC 2045, 4). Of text without a charset we say
// what can be seen, else that it is not known (RFC 1428).
func (w *walk) declare(h *header, body []byte) {
	if _, ok := h.get("MIME-Version"); !ok {
		h.set("MIME-Version", "1.0")
	}
	if _, ok := h.get("Content-Type"); !ok {
		h.set("Content-Type", "text/plain; charset="+charsetOf(body))
	}
}

func charsetOf(b []byte) string {
	if utf8.Valid(b) {
		return "utf-8"
	}
	return "unknown-8bit"
}

// decoded returns what an encoded part holds, if a mailbox may have it so.
func (w *walk) decoded(kind, encoding string, body []byte, at place) ([]byte, class, bool) {
	if w.decode == mailbox8Bit && !strings.HasPrefix(kind, "text/") || strings.HasPrefix(kind, "multipart/") ||
		strings.HasPrefix(kind, "message/") || strings.HasSuffix(kind, "pkcs7-mime") {
		return nil, 0, false
	}
	var plain []byte
	var ok bool
	switch encoding {
	case "quoted-printable":
		plain, ok = decodeQP(body)
	case "base64":
		plain, ok = decodeBase64(body)
	}
	if !ok || w.imitatesDelimiter(plain) {
		return nil, 0, false
	}
	s := scanBytes(plain)
	if w.decode == mailbox8Bit && (s.class() > class8Bit || at.final && s.line > 0) {
		return nil, 0, false
	}
	return plain, s.class(), true
}

// imitatesDelimiter says whether a line of b would be taken for the end of a part around it.
func (w *walk) imitatesDelimiter(b []byte) bool {
	for _, d := range w.boundaries {
		if bytes.HasPrefix(b, d) || bytes.Contains(b, append([]byte("\n"), d...)) {
			return true
		}
	}
	return false
}

// rope is the pieces of the result; most are pieces of the message.
type rope struct {
	parts [][]byte
	size  int
}

func (r *rope) add(b []byte) {
	r.parts = append(r.parts, b)
	r.size += len(b)
}

func (r *rope) reserve() int {
	r.parts = append(r.parts, nil)
	return len(r.parts) - 1
}

func (r *rope) fill(slot int, b []byte) {
	r.parts[slot] = b
	r.size += len(b)
}

func (r *rope) bytes() []byte { return bytes.Join(r.parts, nil) }
