package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/pabal-mta/mta/sdk/mail"
)

// store hands the message to the way's store. This is final delivery, so the reverse-path goes into the message
// (RFC 5321, 4.4).
func (a *attempt) store(ctx context.Context) {
	if !a.convert(ctx, mail.Target{Mailbox: true, EightBit: true, Binary: true, UTF8: true}) {
		return
	}
	content, err := withReturnPath(a.form.content, a.job.Envelope.From)
	if err != nil {
		a.all(ours(TempFail, phaseStore, 451, "4.3.0", "the message can't be read from the queue").because(err))
		return
	}
	ctx, stop := context.WithTimeout(ctx, a.o.Limits.Store)
	defer stop()
	replies, err := a.way.Store.Store(ctx, &mail.Delivery{ID: a.job.ID, From: a.job.Envelope.From, To: a.job.Envelope.To,
		Content: content, Time: a.job.Received})
	if r, ok := replyIn(err); ok {
		a.all(Outcome{Class: classOf(r), Phase: phaseStore, Reply: r, Err: err})
		return
	}
	if err == nil && len(replies) != len(a.outcomes) {
		err = fmt.Errorf("the store gave %d replies for %d recipients", len(replies), len(a.outcomes))
	}
	if err != nil {
		a.all(notStored(err))
		return
	}
	for i, r := range replies {
		if err := checkAnswer(r); err != nil {
			a.outcomes[i] = notStored(fmt.Errorf("the store's reply is no good: %w", err))
			continue
		}
		a.outcomes[i] = Outcome{Class: classOf(r), Phase: phaseStore, Reply: r}
	}
}

func notStored(err error) Outcome {
	return ours(TempFail, phaseStore, 451, "4.3.0", "the mailbox can't be reached now").because(err)
}

// checkAnswer refuses replies that are no answer to a message.
func checkAnswer(r mail.Reply) error {
	if err := r.Check(); err != nil {
		return err
	}
	if !r.Positive() && r.Code < 400 {
		return fmt.Errorf("%d does not answer a message", r.Code)
	}
	return nil
}

// replyIn returns the refusal that a plugin gave as its error, if it is a legal one.
func replyIn(err error) (mail.Reply, bool) {
	var r *mail.Reply
	if !errors.As(err, &r) || r == nil || r.Code < 400 || checkAnswer(*r) != nil {
		return mail.Reply{}, false
	}
	return *r, true
}

// withReturnPath puts a Return-Path on top and takes away others, which are forged or of an earlier delivery.
func withReturnPath(c mail.Content, from mail.Address) (mail.Content, error) {
	head := append(append([]byte("Return-Path: <"), from.String()...), ">\r\n"...)
	raw, body, err := mail.RawHeader(c)
	if err != nil {
		return nil, err
	}
	if !mentions(raw, "return-path") {
		return mail.Splice(head, c, 0), nil
	}
	fields := mail.ParseHeader(raw)
	kept := fields[:0]
	for _, f := range fields {
		if !equalFold(f.Name, "return-path") {
			kept = append(kept, f)
		}
	}
	head = kept.AppendTo(head)
	if body > int64(len(raw)) {
		head = append(head, "\r\n"...)
	}
	return mail.Splice(head, c, body), nil
}

func equalFold(s, t string) bool { return bytes.EqualFold([]byte(s), []byte(t)) }

// mentions looks for a field name at the start of a line.
func mentions(raw []byte, name string) bool {
	for len(raw) > len(name) {
		if bytes.EqualFold(raw[:len(name)], []byte(name)) {
			return true
		}
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			return false
		}
		raw = raw[i+1:]
	}
	return false
}
