package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// maxReceived is how many Received fields a submitted message may have; more is a loop (RFC 5321, 6.3).
const maxReceived = 50

// maxEnvelope bounds the recipients of a submitted message after aliases have been put in their places.
const maxEnvelope = 10_000

var (
	replyLoop    = mail.NewReply(554, "5.4.6", "too many hops: the message goes in a circle")
	replyLines   = mail.NewReply(554, "5.6.0", "the content has a NUL, or lines that do not end with CRLF")
	replyHeader  = mail.NewReply(554, "5.6.0", "the content does not begin with a header")
	replyTooMany = mail.NewReply(452, "4.5.3", "too many recipients")
	replyTooLate = mail.NewReply(421, "4.3.2", "the server is stopping, try again later")
)

// intake says what happens to a message that does not come from a listener: before the schedule runs, the queue alone
// takes it, and the schedule is offered it at its start; after the schedule has stopped, nobody does.
type intake struct {
	sync.RWMutex
	running, stopped bool

	waiting sync.Mutex // of early
	early   []*queue.Record
}

// begin offers the schedule, which runs now, what came before.
func (i *intake) begin(offer func(*queue.Record, mail.Content)) {
	i.running = true
	for _, rec := range i.early {
		offer(rec, nil)
	}
	i.early = nil
}

// wait keeps a message for the schedule, which does not run yet.
func (i *intake) wait(rec *queue.Record) {
	i.waiting.Lock()
	defer i.waiting.Unlock()
	i.early = append(i.early, rec)
}

// Submit puts a plugin's message into the queue, after the checks that a client's would meet.
func (s *services) Submit(ctx context.Context, m *mail.Message) (string, error) {
	if !s.engine.buckets.take(s.label, time.Now()) {
		return "", fmt.Errorf("%w: a plugin submits at most %d messages a second", sdk.ErrExhausted, submitRate)
	}
	if err := m.Envelope.Check(); err != nil {
		return "", fmt.Errorf("%w: %w", sdk.ErrLimit, err)
	}
	content, err := s.stamped(m)
	if err != nil {
		return "", err
	}
	envelope, err := s.engine.expand(ctx, m.Envelope)
	if err != nil {
		return "", err
	}
	if envelope.Priority == 0 {
		envelope.Priority = s.engine.priority(&mail.Session{}, &mail.Message{Envelope: envelope, Content: mail.Bytes(content)})
	}
	return s.engine.submit(ctx, s.label, &queue.Message{
		Envelope: envelope, Content: mail.Bytes(content), Meta: map[string]string{"plugin": s.label}, Received: time.Now(),
	})
}

// stamped returns the content with a Received field on top, and the fields that it lacks (RFC 6409, 8).
func (s *services) stamped(m *mail.Message) ([]byte, error) {
	content := make([]byte, m.Content.Size())
	if n, err := m.Content.ReadAt(content, 0); n < len(content) {
		return nil, err
	}
	if !wellFormed(content) {
		return nil, &replyLines
	}
	h, _, err := mail.ReadHeader(m.Content)
	switch {
	case errors.Is(err, mail.ErrHeaderTooLong) || err == nil && len(h) == 0:
		return nil, &replyHeader
	case err != nil:
		return nil, err
	case h.Count("Received") >= maxReceived:
		return nil, &replyLoop
	}
	// What has 8-bit bytes is marked so, or it would go unconverted to a host that can't take it.
	if m.Envelope.Body == mail.Body7Bit && bytes.ContainsFunc(content, func(r rune) bool { return r >= 0x80 }) {
		m.Envelope.Body = mail.Body8Bit
	}
	m.Envelope.SMTPUTF8 = m.Envelope.SMTPUTF8 || m.Envelope.NeedsUTF8()
	now := time.Now().Format(time.RFC1123Z)
	top := fmt.Appendf(nil, "Received: by %s (plugin %s);\r\n\t%s\r\n", s.hostname, s.label, now)
	if !h.Has("Date") {
		top = fmt.Appendf(top, "Date: %s\r\n", now)
	}
	if !h.Has("Message-ID") {
		top = fmt.Appendf(top, "Message-ID: <%s@%s>\r\n", rand.Text(), s.hostname)
	}
	return append(top, content...), nil
}

// wellFormed reports that every line ends with CRLF, the last one too, and that there is no NUL: anything else could be
// read as the end of the message by the next hop.
func wellFormed(b []byte) bool {
	n := bytes.Count(b, []byte("\r\n"))
	return n > 0 && bytes.HasSuffix(b, []byte("\r\n")) && bytes.Count(b, []byte("\r")) == n && bytes.Count(b, []byte("\n")) == n && bytes.IndexByte(b, 0) < 0
}

// expand asks the policy about each recipient, as for a client that has logged in, and puts aliases in their place. While
// the server starts there is no policy yet; the schedule will route what it can.
func (e *Engine) expand(ctx context.Context, env mail.Envelope) (mail.Envelope, error) {
	if e.current.Load() == nil {
		return env, nil
	}
	g := e.use()
	defer g.done()
	return g.expand(ctx, env)
}

func (g *generation) expand(ctx context.Context, env mail.Envelope) (mail.Envelope, error) {
	out := env.Clone()
	out.To = nil
	for _, r := range env.To {
		reply, aliases, err := g.rcpt(ctx, true, r.Address)
		if err != nil && reply.Code == 0 {
			return out, err
		}
		if reply.Code != 0 {
			return out, &reply
		}
		if len(out.To)+max(1, len(aliases)) > maxEnvelope {
			return out, &replyTooMany
		}
		if len(aliases) == 0 {
			aliases = []mail.Address{r.Address}
		} else if r.Original == "" && r.Address.IsASCII() {
			r.Original = "rfc822;" + r.Address.String()
		}
		for _, a := range aliases {
			r.Address = a
			if !slices.ContainsFunc(out.To, func(o mail.Recipient) bool { return o.Address == a }) {
				out.To = append(out.To, r)
			}
		}
	}
	return out, nil
}

// submit puts a message into the queue and, when it is running, the schedule.
func (e *Engine) submit(ctx context.Context, label string, m *queue.Message) (string, error) {
	e.intake.RLock()
	defer e.intake.RUnlock()
	if e.intake.stopped {
		return "", &replyTooLate
	}
	if e.intake.running {
		if r := e.pressure.refuses(m.Content.Size()); r != nil {
			return "", r
		}
	}
	rec, err := e.queue.Add(ctx, m)
	switch {
	case errors.Is(err, queue.ErrFull):
		return "", &replyFullDisk
	case errors.Is(err, queue.ErrStopped):
		return "", &replyStopped
	case err != nil:
		return "", err
	}
	e.events.Emit(event.Event{
		Name: event.MessageQueued, ID: rec.ID.String(), Plugin: label, From: m.Envelope.From.String(), To: firstOf(m.Envelope.To),
		Count: len(m.Envelope.To), Size: rec.Size,
	})
	if e.intake.running {
		e.schedule.Offer(rec, m.Content)
	} else {
		e.intake.wait(rec)
	}
	return rec.ID.String(), nil
}
