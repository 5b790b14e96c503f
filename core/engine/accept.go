package engine

import (
	"context"
	"errors"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/core/smtpd"
	"github.com/pabal-mta/mta/sdk/mail"
)

// The replies to a message that can't be kept now. They are always temporary: the trouble is ours.
var (
	replyFullDisk = mail.NewReply(452, "4.3.1", "insufficient system storage, try again later")
	replyBusy     = mail.NewReply(451, "4.3.2", "too much mail is waiting to go out, try again later")
	replyStopped  = mail.NewReply(421, "4.3.2", "the server is stopping, try again later")
)

// maxPressure is how far output may lag behind input before new mail is refused for a while: so many times the memory
// budget of the schedule. It is far beyond what a busy hour brings; it keeps a flood from filling the disk.
const maxPressure = 32

// accept puts a received message into the queue. When it returns without an error the message is on stable storage.
func (e *Engine) accept(ctx context.Context, a *smtpd.Accepted) (string, error) {
	if e.schedule.Pressure() > maxPressure {
		return "", &replyBusy
	}
	id, err := queue.ParseID(a.ID)
	if err != nil {
		return "", err
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
