// Package mime is the plugin that gives a message the form its next hop takes, and the mailbox the form it was written in.
//
// It is the builtin "mime", a Converter. For a host without 8BITMIME or BINARYMIME, every part that needs it becomes
// quoted-printable or base64, header fields become encoded words (RFC 2047) and extended parameters (RFC 2231); for the
// mailbox it goes the other way. What needs no change keeps its bytes: parts, boundaries and fields are copied, never
// written anew, and the content of every part decodes to the same bytes as before. A signed or encrypted part is never
// touched; if one can't go as it is, or an address can't, or a message is too deep or too many-parted to be walked
// (RFC 2045 and 2046 set no limit), the message is refused with 5.6.x and stays what it was.
package mime

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Config is the plugin's block in mta.hcl.
type Config struct {
	Mailbox    string `mta:"mailbox,optional" default:"8bit" oneof:"8bit binary off" doc:"what a mailbox gets: 8bit: text parts as they were written; binary: attachments as well, which few mail programs read; off: every message as it came"`
	KeepSigned bool   `mta:"keep_signed,optional" default:"true" doc:"a message with a DKIM-Signature goes into the mailbox as it came, since a changed one can't be verified again"`
}

// The forms of Config.Mailbox.
const (
	mailbox8Bit   = "8bit"
	mailboxBinary = "binary"
	mailboxOff    = "off"
)

// Limits, against messages made to be expensive.
const (
	maxDepth = 100    // nested multiparts and messages, as Postfix
	maxParts = 10_000 // in all
	// The result is no larger than maxGrowth times the message and slack bytes.
	maxGrowth = 4
	slack     = 1 << 20
)

// Converter converts messages.
type Converter struct {
	cfg Config
}

// New checks the configuration.
func New(cfg Config) (*Converter, error) {
	switch cfg.Mailbox {
	case mailbox8Bit, mailboxBinary, mailboxOff:
		return &Converter{cfg: cfg}, nil
	}
	return nil, fmt.Errorf("mailbox: %q is none of 8bit, binary and off", cfg.Mailbox)
}

// The ways in which a message can't be converted (RFC 3463, 3.7; RFC 6531, 3.5 for 5.6.7).
var (
	errSealed  = refuse(554, "5.6.3", "a signed or encrypted part holds data that the next host does not take, and changing it would break it")
	errUnknown = refuse(554, "5.6.3", "a part holds data that the next host does not take, and its kind or encoding leaves no way to convert it")
	errAddress = refuse(553, "5.6.7", "the header holds a non-ASCII address, and the next host does not take SMTPUTF8")
	errLimit   = refuse(554, "5.6.0", "the message has too many parts, too deep a nesting or too long a header to be converted for the next host")
)

func refuse(code int, enhanced, text string) error {
	r := mail.NewReply(code, enhanced, text)
	return &r
}

// Convert returns the message in the form that the target takes, or a nil Content when it can go as it is.
func (c *Converter) Convert(ctx context.Context, m *mail.Conversion) (mail.Converted, error) {
	if m.Target.Mailbox {
		return c.forMailbox(ctx, m)
	}
	g := goal{takes: takes(m.Target)}
	g.ascii = !m.Target.UTF8 && (g.takes == class7Bit || m.Envelope.SMTPUTF8)
	if g.takes == classBinary && !g.ascii {
		return mail.Converted{Body: m.Envelope.Body}, nil
	}
	found, err := scanContent(ctx, m.Content)
	if err != nil {
		return mail.Converted{}, err
	}
	if found.class() <= g.takes && (!g.ascii || !found.high) {
		return mail.Converted{Body: body(found)}, nil
	}
	return convert(ctx, m.Content, g, found)
}

// forMailbox undoes what was done for the wire.
func (c *Converter) forMailbox(ctx context.Context, m *mail.Conversion) (mail.Converted, error) {
	asIs := mail.Converted{Body: m.Envelope.Body}
	if c.cfg.Mailbox == mailboxOff {
		return asIs, nil
	}
	if c.cfg.KeepSigned {
		h, _, err := mail.ReadHeader(m.Content)
		if err != nil || h.Has("DKIM-Signature") {
			return asIs, nil //nolint:nilerr // a header too long to be read is one more that is left alone
		}
	}
	converted, err := convert(ctx, m.Content, goal{takes: classBinary, decode: c.cfg.Mailbox}, scan{})
	var r *mail.Reply
	if errors.As(err, &r) {
		return asIs, nil // a mailbox takes anything: what can't be undone stays
	}
	if err == nil && converted.Content == nil {
		return asIs, nil
	}
	return converted, err
}

// takes returns which lines a target takes. SMTPUTF8 comes with 8BITMIME (RFC 6531, 3.1).
func takes(t mail.Target) class {
	switch {
	case t.Binary:
		return classBinary
	case t.EightBit || t.UTF8:
		return class8Bit
	}
	return class7Bit
}

// convert walks the message and checks that the result is what was wanted.
func convert(ctx context.Context, c mail.Content, g goal, was scan) (mail.Converted, error) {
	raw, err := readAll(ctx, c)
	if err != nil {
		return mail.Converted{}, err
	}
	w := walk{goal: g, ctx: ctx, limit: len(raw)*maxGrowth + slack}
	if _, err := w.entity(raw, place{message: true, root: true, final: true}); err != nil {
		return mail.Converted{}, err
	}
	if w.changes == 0 {
		if g.takes < classBinary && was.class() > g.takes && !was.onlyLong(g.takes) {
			return mail.Converted{}, errUnknown
		}
		return mail.Converted{Body: body(was)}, nil
	}
	out := w.out.bytes()
	is := scanBytes(out)
	if g.takes < classBinary && is.class() > g.takes && !is.onlyLong(g.takes) {
		return mail.Converted{}, errUnknown
	}
	return mail.Converted{Content: mail.Bytes(out), Body: body(is)}, nil
}

func body(s scan) mail.BodyType {
	switch s.class() {
	case class7Bit:
		return mail.Body7Bit
	case class8Bit:
		return mail.Body8Bit
	default:
		return mail.BodyBinary
	}
}

func readAll(ctx context.Context, c mail.Content) ([]byte, error) {
	b := make([]byte, c.Size())
	const step = 1 << 20
	for at := int64(0); at < c.Size(); at += step {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		piece := b[at:min(at+step, c.Size())]
		if n, err := c.ReadAt(piece, at); n < len(piece) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("reading the message: %w", err)
		}
	}
	return b, nil
}
