package schedule

import (
	"bytes"
	"errors"
	"time"

	"github.com/pabal-mta/mta/core/bounce"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Keys of a record's Meta that the schedule writes and reads.
const (
	metaParent     = "parent"     // the ID of the message that a report is about
	metaPostmaster = "postmaster" // "1": a report that went to the postmaster since its sender can't be told
)

// Report asks for the message that tells of what became of some recipients. Nobody changes what it points to.
type Report struct {
	Record     *queue.Record // with the states and replies that are told of
	Content    mail.Content  // nil, or one whose reading fails, where it is lost
	Kind       mail.FailureKind
	Recipients []int           // of Record
	Actions    []bounce.Action // one for each of Recipients, or nil for what Kind implies
	To         mail.Address    // the sender, or the postmaster when the sender is null
	Expires    time.Time       // when we give up
}

// maxHeader bounds the header that a notifier is shown, in bytes.
const maxHeader = 64 << 10

// Failure returns the report as a bounce notifier is shown it. A recipient whose reply is temporary in a report of a
// permanent failure is one that was tried until its time was over.
func (r *Report) Failure(hostname string, postmaster mail.Address) mail.Failure {
	f := mail.Failure{
		ID: r.Record.ID.String(), Kind: r.Kind, From: r.To, EnvID: r.Record.Envelope.EnvID, Header: r.header(),
		Arrived: r.Record.Received, Expires: r.Expires, Hostname: hostname, Postmaster: postmaster,
	}
	for _, i := range r.Recipients {
		rcpt := &r.Record.Recipients[i]
		f.Recipients = append(f.Recipients, mail.FailedRecipient{
			Recipient: rcpt.Recipient, Reply: rcpt.Reply, Host: rcpt.Host, Time: rcpt.Time,
		})
	}
	return f
}

func (r *Report) header() []byte {
	if r.Content == nil {
		return nil
	}
	h, _, err := mail.RawHeader(r.Content)
	if err != nil {
		return nil //nolint:nilerr // a report without a header is better than none
	}
	if len(h) > maxHeader {
		h = h[:bytes.LastIndexByte(h[:maxHeader], '\n')+1]
	}
	return h
}

// Write makes the message, in the words of n where a notifier rendered any.
func (r *Report) Write(f mail.Failure, n mail.Notice) (*queue.Message, error) {
	e := &r.Record.Envelope
	raw, envelope, err := bounce.Write(bounce.Report{
		Failure: f, Notice: n, Original: r.Content, Ret: e.Ret, Actions: r.Actions, UTF8: e.SMTPUTF8, RequireTLS: e.RequireTLS,
	})
	if err != nil {
		return nil, err
	}
	envelope.Priority = e.Priority // RFC 6710: as urgent as what it tells of
	return &queue.Message{Envelope: envelope, Content: mail.Bytes(raw)}, nil
}

// tell has the reports made for what the tally holds. A report of failure that can't be made brings its recipients back
// to pending: the failure is found again at the next attempt.
func (s *Schedule) tell(l *lease, t *tally) {
	rec := l.rec
	if len(t.failed) > 0 {
		if err := s.tellFailure(l, t); err != nil {
			t.err = err
			s.warnOf(l, "the report of a failure could not be made; it is tried again later", err)
			for _, i := range t.failed {
				rec.Recipients[i].State = queue.Pending
			}
		}
	}
	if len(t.delivered) > 0 && !rec.Envelope.From.IsNull() {
		r := &Report{Kind: mail.FailureDelivered, Recipients: t.delivered, Actions: t.actions, To: rec.Envelope.From}
		if err := s.report(l, t, r); err != nil {
			s.warnOf(l, "the report of a delivery could not be made", err)
		}
	}
}

// tellFailure reports recipients that have failed for good: to the sender, or when that is null to the postmaster, once.
func (s *Schedule) tellFailure(l *lease, t *tally) error {
	rec := l.rec
	r := &Report{Kind: mail.FailurePermanent, To: rec.Envelope.From}
	for _, i := range t.failed {
		if rec.Recipients[i].Notify.Wants(mail.NotifyFailure) {
			r.Recipients = append(r.Recipients, i)
		}
	}
	if len(r.Recipients) == 0 {
		return nil
	}
	if !r.To.IsNull() {
		return s.report(l, t, r)
	}
	if r.To = s.o.Postmaster; rec.Meta[metaPostmaster] == "1" || r.To.IsNull() {
		for _, i := range t.failed {
			rec.Recipients[i].State = queue.Dropped
		}
		s.warnOf(l, "a report could not be delivered and was dropped: nobody is left to tell", nil)
		return nil
	}
	return s.report(l, t, r)
}

// warn tells the sender that the message is late. It is told once, if it wants to be; a null sender is never told.
func (s *Schedule) warn(l *lease, t *tally) {
	rec := l.rec
	rec.Warned = true
	r := &Report{Kind: mail.FailureDelayed, To: rec.Envelope.From}
	for _, i := range rec.Pending() {
		if rec.Recipients[i].Notify.Wants(mail.NotifyDelay) {
			r.Recipients = append(r.Recipients, i)
		}
	}
	if r.To.IsNull() || len(r.Recipients) == 0 {
		return
	}
	if err := s.report(l, t, r); err != nil {
		s.warnOf(l, "the report of a delay could not be made; it is tried again later", err)
		rec.Warned = false
	}
}

// report has one report made. Whatever made it, its sender is null and it says what it is about: nothing may ever report
// on a report but once, to the postmaster (RFC 5321, 6.1).
func (s *Schedule) report(l *lease, t *tally, r *Report) error {
	policy := &s.settings.Load().retry
	r.Record, r.Content, r.Expires = l.rec, l.content, t.now.Add(policy.Patience()-t.age)
	m, err := s.o.Bounce(s.ctx, r)
	if err != nil || m == nil {
		return err
	}
	if len(m.Envelope.To) == 0 {
		return errors.New("the report has no recipient")
	}
	m.Envelope.From = mail.Address{}
	meta := map[string]string{metaParent: l.name}
	if l.rec.Envelope.From.IsNull() {
		meta[metaPostmaster] = "1"
	}
	for k, v := range m.Meta {
		if _, ours := meta[k]; !ours {
			meta[k] = v
		}
	}
	m.Meta = meta
	t.reports = append(t.reports, m)
	s.o.Events.Emit(event.Event{Name: event.Bounced, ID: l.name, To: r.To.String(), Class: kindName(r.Kind), Count: len(r.Recipients)})
	return nil
}

func kindName(k mail.FailureKind) string {
	switch k {
	case mail.FailureDelayed:
		return "delayed"
	case mail.FailureDelivered:
		return "delivered"
	default:
		return "failed"
	}
}

func (s *Schedule) warnOf(l *lease, reason string, err error) {
	s.o.Events.Emit(event.Event{Name: event.Warning, ID: l.name, Reason: reason, Err: err})
}
