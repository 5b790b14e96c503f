package sdk

import (
	"context"

	"github.com/pabal-mta/mta/sdk/mail"
)

// The kinds of plugin. A plugin implements one or several; implementing a method is subscribing to it, and the core calls
// nothing else. Every call has a deadline in its context. An error means that the plugin could not do its work: the
// message stays in the queue, or the peer is told to try again. A *mail.Reply returned as the error is passed on as the
// answer. A panic is an error of that one call.

// Authenticator says whether a login is right.
type Authenticator interface {
	// Authenticate returns who logged in, or ErrBadLogin. Any other error is trouble of ours: the client is answered
	// 454 and nobody is logged in.
	Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error)
}

// Store puts messages into mailboxes.
type Store interface {
	// Store returns one reply for each recipient, in their order. A store that is given the same Delivery.ID twice for
	// a recipient stores the message once.
	Store(ctx context.Context, d *mail.Delivery) ([]mail.Reply, error)
}

// Directory says which mailboxes exist. It is asked at RCPT time, so it should answer within milliseconds.
type Directory interface {
	// Lookup returns one Mailbox for each address, in their order.
	Lookup(ctx context.Context, addresses []mail.Address) ([]mail.Mailbox, error)
}

// Converter gives a message the form that its next hop takes.
type Converter interface {
	// Convert returns a Converted with a nil Content when the message can go as it is. A message that can't be
	// converted is a *mail.Reply error (554 5.6.3).
	Convert(ctx context.Context, c *mail.Conversion) (mail.Converted, error)
}

// BounceNotifier hears of every report before it is sent, and may word, redirect or suppress it.
type BounceNotifier interface {
	Bounce(ctx context.Context, f *mail.Failure) (mail.Notice, error)
}

// Router says where mail for a recipient goes next. Who may send mail through the server is decided before, by the server
// alone.
type Router interface {
	// Route returns one Hop for each recipient of r.Envelope.To, in their order. An error keeps all of them in the queue;
	// a Hop with a Reply answers for one of them.
	Route(ctx context.Context, r *mail.Routing) ([]mail.Hop, error)
}

// Observer hears of what happens, in batches and in order. An error makes the server tell the same batch again, so that
// each event comes at least once as long as the server lives; nothing in the flow of mail waits for it. While an observer
// is down or slow the server keeps the 10,000 events that wait longest for it, and counts those that it could not keep.
type Observer interface {
	Observe(ctx context.Context, events []mail.Event) error
}

// ConnectFilter is asked before the greeting.
type ConnectFilter interface {
	Connect(ctx context.Context, s *mail.Session) (mail.Verdict, error)
}

// HeloFilter is asked at each HELO, EHLO or LHLO.
type HeloFilter interface {
	Helo(ctx context.Context, s *mail.Session) (mail.Verdict, error)
}

// MailFilter is asked at MAIL. The reverse-path is s.From.
type MailFilter interface {
	Mail(ctx context.Context, s *mail.Session) (mail.Verdict, error)
}

// RcptFilter is asked once for each recipient.
type RcptFilter interface {
	Rcpt(ctx context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error)
}

// MessageFilter is asked once for each message, after its last line has come in and before it is accepted.
type MessageFilter interface {
	Message(ctx context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error)
}
