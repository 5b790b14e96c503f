package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pabal-mta/mta/sdk/mail"
)

// form is the message as it goes to one kind of peer.
type form struct {
	made     bool
	target   mail.Target
	envelope mail.Envelope
	content  mail.Content
}

// picky is a converter that says itself which messages it is to be asked about.
type picky interface {
	wanted(body mail.BodyType, t mail.Target) bool
}

// WhenNeeded returns a converter that is asked only about messages that their next hop can't take as they are, and not
// about every message, as a signer must be.
func WhenNeeded(c Converter) Converter { return whenNeeded{c} }

type whenNeeded struct{ Converter }

func (whenNeeded) wanted(body mail.BodyType, t mail.Target) bool { return !takes(t, body) }

// takes reports whether a peer takes a content of that type.
func takes(t mail.Target, body mail.BodyType) bool {
	switch body {
	case mail.Body8Bit:
		return t.EightBit
	case mail.BodyBinary:
		return t.Binary
	default:
		return true
	}
}

// plain reports whether the message goes to the peer as it is, and no converter is to be asked.
func (a *attempt) plain(target mail.Target) bool {
	body := a.job.Envelope.Body
	return takes(target, body) && !slices.ContainsFunc(a.way.Converters, func(c Converter) bool {
		p, ok := c.(picky)
		return !ok || p.wanted(body, target)
	})
}

// convert gives the message the form that the peer takes, by the way's converters in their order. It reports false when
// the outcomes are set instead.
func (a *attempt) convert(ctx context.Context, target mail.Target) bool {
	if a.form.made && a.form.target == target {
		return true
	}
	f := form{made: true, target: target, envelope: a.job.Envelope, content: a.job.Content}
	changed := false
	for _, c := range a.way.Converters {
		if p, ok := c.(picky); ok && !p.wanted(f.envelope.Body, target) {
			continue
		}
		did, err := a.ask(ctx, c, &f)
		if err != nil {
			a.unconverted(err)
			return false
		}
		changed = changed || did
	}
	if !takes(target, f.envelope.Body) {
		a.all(ours(PermFail, phaseConvert, 554, "5.6.3", "the next host does not take %s content, and nothing here converts the message", f.envelope.Body))
		return false
	}
	if changed && !target.EightBit {
		if err := check7Bit(f.content); err != nil {
			a.unconverted(err)
			return false
		}
	}
	a.form = f
	return true
}

// ask asks one converter and reports whether it changed the content.
func (a *attempt) ask(ctx context.Context, c Converter, f *form) (bool, error) {
	ctx, stop := context.WithTimeout(ctx, a.o.Limits.Convert)
	defer stop()
	got, err := c.Convert(ctx, &mail.Conversion{ID: a.job.ID, Envelope: f.envelope, Content: f.content, Target: f.target})
	if err != nil || got.Content == nil {
		return false, err
	}
	f.content, f.envelope.Body = got.Content, got.Body
	return true, nil
}

// unconverted sets the outcomes: a refusal is passed on, anything else stays in the queue.
func (a *attempt) unconverted(err error) {
	if r, ok := replyIn(err); ok {
		a.all(Outcome{Class: classOf(r), Phase: phaseConvert, Reply: r, Err: err})
		return
	}
	a.all(ours(TempFail, phaseConvert, 451, "4.3.0", "the message can't be converted for its next host now").because(err))
}

// check7Bit makes sure that a converter has done what it says.
func check7Bit(c mail.Content) error {
	buf := make([]byte, 32<<10)
	r := mail.Reader(c)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b >= 0x80 {
				return errors.New("the converter left 8-bit content for a host that takes none")
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading converted content: %w", err)
		}
	}
}
