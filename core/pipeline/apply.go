package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Apply returns the message with the edits made. The message given stays as it is, and is returned itself when there is
// nothing to change. Bytes that no edit names stay as they are, however strange. An error means that an edit is illegal or
// names a field that is not there; nothing is made of the others then. An edit of a recipient that is not there any more
// does nothing. SetMeta is not about the message and does nothing here.
//
// Fields are numbered as in m.Header, or as ParseHeader does where that is nil; a field that is added gets the next number.
func Apply(m *mail.Message, edits []mail.Edit) (*mail.Message, error) {
	if len(edits) == 0 {
		return m, nil
	}
	d, err := newDraft(m)
	if err != nil {
		return nil, err
	}
	if err := (mail.Verdict{Action: mail.ActionContinue, Edits: edits}).Check(); err != nil {
		return nil, err
	}
	for _, e := range edits {
		if err := StageMessage.check(e, mail.Address{}); err != nil {
			return nil, err
		}
	}
	changed, err := d.apply(edits)
	if err != nil {
		return nil, err
	}
	if changed.msg == d.msg {
		return m, nil
	}
	return changed.msg, nil
}

// draft is a message between two steps. What it points to is never changed.
type draft struct {
	msg  *mail.Message
	next uint32 // the ID of the next new field; it only grows, so that no two fields of a stage ever have the same
}

// newDraft takes a copy of the message that shares no slice with the caller but the header's, and reads the header where
// the caller has not.
func newDraft(m *mail.Message) (draft, error) {
	c := *m
	c.Envelope = m.Envelope.Clone()
	if c.Header == nil {
		var err error
		if c.Header, _, err = mail.ReadHeader(m.Content); err != nil {
			return draft{}, err
		}
	}
	d := draft{msg: &c, next: 1}
	for _, f := range c.Header {
		d.next = max(d.next, f.ID+1)
	}
	return d, nil
}

// apply makes edits that have been checked, all or none.
func (d draft) apply(edits []mail.Edit) (draft, error) {
	c := *d.msg
	w := &work{msg: &c, next: d.next}
	for i, e := range edits {
		if err := w.edit(e); err != nil {
			return draft{}, fmt.Errorf("edit %d (%T): %w", i+1, e, err)
		}
	}
	if !w.changed {
		return d, nil
	}
	w.unique()
	if len(d.msg.Envelope.To) > 0 && len(c.Envelope.To) == 0 {
		return draft{}, errors.New("the edits leave no recipient; a filter that wants that discards the message")
	}
	if err := w.build(); err != nil {
		return draft{}, err
	}
	return draft{msg: &c, next: w.next}, nil
}

// work is the edits of one step being made.
type work struct {
	msg     *mail.Message
	next    uint32
	changed bool
	ownTo   bool    // msg.Envelope.To is a copy already
	header  *fields // nil while no edit has touched the header or the body
	body    []byte
	newBody bool
}

func (w *work) edit(e mail.Edit) error {
	if _, ok := e.(mail.SetMeta); ok {
		return nil
	}
	w.changed = true
	env := &w.msg.Envelope
	switch e := e.(type) {
	case mail.SetSender:
		env.From = e.Address
	case mail.AddRecipient:
		w.recipients()
		env.To = append(env.To, e.Recipient)
	case mail.DropRecipient:
		w.recipients()
		env.To = slices.DeleteFunc(env.To, func(r mail.Recipient) bool { return r.Address == e.Address })
	case mail.RewriteRecipient:
		w.rewrite(e)
	case mail.ReplaceBody:
		return w.replaceBody(e.Body)
	default:
		return w.editHeader(e)
	}
	return nil
}

// recipients makes the list of recipients the work's own.
func (w *work) recipients() {
	if !w.ownTo {
		w.msg.Envelope.To, w.ownTo = slices.Clone(w.msg.Envelope.To), true
	}
}

func (w *work) rewrite(e mail.RewriteRecipient) {
	w.recipients()
	to := w.msg.Envelope.To
	for i := range to {
		if to[i].Address == e.Old {
			to[i].Address = e.New
		}
	}
}

// unique keeps the first of several equal recipients, so that nobody gets a message twice.
func (w *work) unique() {
	if !w.ownTo {
		return
	}
	seen := make(map[mail.Address]bool, len(w.msg.Envelope.To))
	w.msg.Envelope.To = slices.DeleteFunc(w.msg.Envelope.To, func(r mail.Recipient) bool {
		again := seen[r.Address]
		seen[r.Address] = true
		return again
	})
}

func (w *work) replaceBody(body []byte) error {
	if err := w.load(); err != nil {
		return err
	}
	if n := len(body); n > 0 && body[n-1] != '\n' {
		body = append(slices.Clip(body), "\r\n"...)
	}
	w.body, w.newBody = body, true
	if w.msg.Envelope.Body == mail.Body7Bit && bytes.IndexFunc(body, beyondASCII) >= 0 {
		w.msg.Envelope.Body = mail.Body8Bit
	}
	return nil
}

func (w *work) load() (err error) {
	if w.header == nil {
		w.header, err = readFields(w.msg)
	}
	return err
}

func (w *work) editHeader(e mail.Edit) error {
	if err := w.load(); err != nil {
		return err
	}
	switch e := e.(type) {
	case mail.AddHeader:
		if err := w.encoded(e.Value, nil); err != nil {
			return err
		}
		w.header.add(w.next, e)
		w.next++
		return nil
	case mail.ReplaceHeader:
		l, err := w.header.find(e.ID)
		if err != nil {
			return err
		}
		if err := w.encoded(e.Value, l.field.Value); err != nil {
			return err
		}
		return l.replace(e.Value)
	case mail.RemoveHeader:
		return w.header.remove(e.ID)
	default:
		return errors.New("this kind of edit is not known")
	}
}

// encoded refuses text beyond US-ASCII in a message that did not ask for SMTPUTF8 (RFC 6532, 3; RFC 2047 is for such
// text), unless the value that it replaces held some already.
func (w *work) encoded(value string, old []byte) error {
	if bytes.IndexFunc(old, beyondASCII) >= 0 || strings.IndexFunc(value, beyondASCII) < 0 {
		return nil
	}
	if !w.msg.Envelope.SMTPUTF8 {
		return errors.New("the value is not US-ASCII and the message is not an SMTPUTF8 one; encode the value (RFC 2047)")
	}
	if !utf8.ValidString(value) {
		return errors.New("the value is not UTF-8")
	}
	return nil
}

// build puts the content together from the header and the body.
func (w *work) build() error {
	if w.header == nil {
		return nil
	}
	h := w.header
	tail, off := w.msg.Content, h.body
	if w.newBody {
		tail, off = mail.Bytes(w.body), 0
	}
	head, err := h.bytes(w.newBody || off < tail.Size())
	if err != nil {
		return err
	}
	w.msg.Header, w.msg.Content = h.header(), mail.Splice(head, tail, off)
	return nil
}
