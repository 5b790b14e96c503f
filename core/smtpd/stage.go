package smtpd

import (
	"slices"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/sdk/mail"
)

// maxEnvelope bounds the recipients of one message after aliases and filters have added theirs.
const maxEnvelope = 10_000

// marks is what filters said before there was a message that it could be done to.
type marks struct {
	discard bool
	held    string
}

func (d *desk) pipeline() *pipeline.Pipeline {
	if d.server.deps.Pipeline == nil {
		return nil
	}
	return d.server.deps.Pipeline()
}

// connect asks the connect stage; it returns the reply that takes the place of the greeting when the client is refused.
func (d *desk) connect() *mail.Reply {
	d.server.deps.Events.Emit(event.Event{
		Name: event.SessionOpened, Session: d.info.ID, Listener: d.info.Listener, Remote: d.remote(),
	})
	p := d.pipeline()
	if p == nil {
		return nil
	}
	r := d.judge(p.Connect(d.ctx, &d.info), &d.marks)
	d.meta = d.info.Meta
	if r == nil {
		return nil
	}
	// RFC 5321, 3.1: a server that refuses greets with 554, or 421.
	if d.abrupt = true; r.Permanent() {
		r.Code = 554
	} else {
		r.Code = 421
	}
	return r
}

// helo asks the helo stage.
func (d *desk) helo() *mail.Reply {
	p := d.pipeline()
	if p == nil {
		return nil
	}
	r := d.judge(p.Helo(d.ctx, &d.info), &d.marks)
	d.meta = d.info.Meta
	return r
}

// judge turns a stage's result into the reply that refuses, if it does, and keeps what it says for later.
func (d *desk) judge(r pipeline.Result, m *marks) *mail.Reply {
	switch v := r.Verdict; v.Action {
	case mail.ActionContinue, mail.ActionAccept:
	case mail.ActionDiscard:
		m.discard = true
	case mail.ActionQuarantine:
		m.held = or0(v.Reason, "quarantined by a filter")
	case mail.ActionReject, mail.ActionTempFail, mail.ActionDisconnect:
		reply := publicReply(&v.Reply)
		if v.Action == mail.ActionDisconnect {
			reply.Code = 421
			if reply.Enhanced[0] != 4 {
				reply.Enhanced = mail.EnhancedCode{4, 7, 0}
			}
		}
		return &reply
	default: // a defect of ours: a pipeline's verdict is always one of those
		reply := publicReply(nil)
		return &reply
	}
	d.stage(r.Edits)
	return nil
}

func or0(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// stage applies the edits of a stage before the message: those of the envelope at once, those of the content when there
// is one.
func (d *desk) stage(edits []mail.Edit) {
	for _, edit := range edits {
		switch e := edit.(type) {
		case mail.SetMeta: // the pipeline has done it
		case mail.SetSender:
			d.tx.env.From, d.info.From = e.Address, e.Address
		case mail.AddRecipient:
			d.addRecipient(e.Recipient)
		case mail.DropRecipient:
			d.dropRecipient(e.Address)
		case mail.RewriteRecipient:
			d.rewriteRecipient(e.Old, e.New)
		default:
			d.tx.edits = append(d.tx.edits, edit)
		}
	}
	d.info.To = d.tx.env.To
}

// dropRecipient and rewriteRecipient leave the old list as it was: a filter that is late may still read it.
func (d *desk) dropRecipient(a mail.Address) {
	to := slices.Clone(d.tx.env.To)
	d.tx.env.To = slices.DeleteFunc(to, func(r mail.Recipient) bool { return r.Address == a })
}

func (d *desk) rewriteRecipient(old, a mail.Address) {
	to := d.tx.env.To
	d.tx.env.To = nil
	for _, r := range to {
		if r.Address == old {
			r = replaced(r, a)
		}
		d.addRecipient(r)
	}
}

// replaced is the recipient at another address. What the sender called it stays known (RFC 3461, 4.2).
func replaced(r mail.Recipient, a mail.Address) mail.Recipient {
	if r.Original == "" {
		kind := "rfc822;"
		if !r.Address.IsASCII() {
			kind = "utf-8;" // RFC 6533, 3
		}
		r.Original = kind + r.Address.String()
	}
	r.Address = a
	return r
}

// addRecipient adds a recipient that is not there yet.
func (d *desk) addRecipient(r mail.Recipient) {
	if !slices.ContainsFunc(d.tx.env.To, func(o mail.Recipient) bool { return o.Address == r.Address }) {
		d.tx.env.To = append(d.tx.env.To, r)
	}
}

// filter runs the message stage over m. It returns the message with all edits, or the reply that refuses it.
func (d *desk) filter(m *mail.Message) (*mail.Message, error) {
	p := d.pipeline()
	if p == nil && len(d.tx.edits) == 0 {
		return m, nil
	}
	m, err := pipeline.Apply(m, d.tx.edits)
	if err != nil {
		return nil, err
	}
	d.tx.edits = nil
	if p == nil {
		return m, nil
	}
	result := p.Message(d.ctx, &d.info, m)
	result.Edits = nil // they are made in result.Message
	if r := d.judge(result, &d.tx.marks); r != nil {
		return nil, r
	}
	return result.Message, nil
}
