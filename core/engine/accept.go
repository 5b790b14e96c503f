package engine

import (
	"context"
	"errors"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/smtpd"
	"github.com/pabal-mta/mta/sdk/mail"
)

// accept puts a received message into the queue. When it returns without an error the message is on stable storage.
func (e *Engine) accept(ctx context.Context, a *smtpd.Accepted) (string, error) {
	if r := e.pressure.refuses(0); r != nil { // since MAIL it may have become so
		return "", r
	}
	id, err := queue.ParseID(a.ID)
	if err != nil {
		return "", err
	}
	if a.Envelope.Priority == 0 {
		a.Envelope.Priority = e.priority(a.Client, &mail.Message{Envelope: a.Envelope, Content: a.Content})
	}
	e.schedule.Pace(ctx)
	rec, err := e.queue.Add(ctx, &queue.Message{ID: id, Envelope: a.Envelope, Content: a.Content, Meta: a.Meta, Held: a.Held, Received: a.Received})
	switch {
	case errors.Is(err, queue.ErrFull):
		return "", &replyFullDisk
	case errors.Is(err, queue.ErrStopped):
		return "", &replyStopped
	case err != nil:
		return "", err
	}
	e.events.Emit(event.Event{
		Name: event.MessageQueued, ID: a.ID, Session: a.Session, Listener: a.Meta["listener"], Remote: a.Meta["remote"], User: a.Meta["user"],
		From: a.Envelope.From.String(), To: firstOf(a.Envelope.To), Count: len(a.Envelope.To), Size: rec.Size, Reason: a.Held,
	})
	content := a.Content
	if a.Spooled() {
		content = nil // the first attempt reads it from the queue
		a.Release()
	}
	e.schedule.Offer(rec, content)
	return a.ID, nil
}

// firstOf names the recipient of a message that has one; a message with more is told by their number.
func firstOf(to []mail.Recipient) string {
	if len(to) == 1 {
		return to[0].Address.String()
	}
	return ""
}
