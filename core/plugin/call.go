package plugin

import (
	"context"
	"errors"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// call makes one call. When the process dies in it, and the call may be repeated, it is asked once more, of the next
// process, if half of the time is left: a caller would rather wait than fail, and a peer rather than come again.
func call[T any](ctx context.Context, p *Plugin, kind string, repeat bool, timeout time.Duration, ask func(context.Context, *calls.Client) (T, error)) (T, error) {
	return callIn(ctx, p, "", kind, repeat, timeout, ask)
}

// callIn is call for what belongs to a session: in a pool one process hears of all of it.
func callIn[T any](ctx context.Context, p *Plugin, session, kind string, repeat bool, timeout time.Duration, ask func(context.Context, *calls.Client) (T, error)) (T, error) {
	if p.spec.Timeout > 0 {
		timeout = p.spec.Timeout
	}
	if p.spec.Dev != nil {
		var cancel context.CancelFunc
		ctx, cancel = detached(ctx)
		defer cancel()
	}
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > timeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	p.calls.Add(1)
	if !p.breaker.allow() {
		var none T
		p.errs.Add(1)
		return none, p.spec.fail(ErrOpen)
	}
	v, err := attempt(ctx, p, session, kind, repeat, ask)
	if err == nil {
		p.breaker.note(false)
		return v, nil
	}
	return v, p.failure(ctx, err)
}

func attempt[T any](ctx context.Context, p *Plugin, session, kind string, repeat bool, ask func(context.Context, *calls.Client) (T, error)) (v T, err error) {
	deadline, _ := ctx.Deadline()
	patience := time.Now().Add(time.Until(deadline) / 2)
	var proc *process
	for range 2 {
		if proc, err = p.ready(ctx, session, patience, proc); err != nil {
			return v, err
		}
		if !proc.client.Handles(kind) {
			return v, calls.ErrUnsupported
		}
		if err = proc.line.enter(ctx, patience); err != nil {
			return v, err
		}
		v, err = ask(ctx, proc.client)
		proc.line.leave()
		if !errors.Is(err, calls.ErrLost) || !repeat || time.Now().After(patience) {
			break
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		select {
		case proc.worker.suspect <- proc: // is it hung?
		default:
		}
	}
	return v, err
}

// failure makes an error fit for the caller: an answer of the plugin stays what it is, a failure gets the plugin's name.
func (p *Plugin) failure(ctx context.Context, err error) error {
	var reply *mail.Reply
	if errors.As(err, &reply) || errors.Is(err, mail.ErrBadLogin) {
		p.breaker.note(false)
		return err
	}
	p.errs.Add(1)
	if errors.Is(err, calls.ErrBusy) {
		err = ErrOverload // the client's own limit
	}
	if errors.Is(err, ErrOverload) {
		p.refused.Add(1)
		p.breaker.forget() // it works as much as it can
		return p.spec.fail(err)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil || errors.Is(err, calls.ErrUnsupported) {
		p.breaker.forget() // the caller gave up, or asked what it should not: the plugin may be well
	} else {
		p.breaker.note(true)
	}
	return p.spec.fail(err)
}

// Authenticate asks whether a login is right; see sdk.Authenticator.
func (p *Plugin) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	return call(ctx, p, "authenticator", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) (mail.Identity, error) {
		return c.Authenticate(ctx, login)
	})
}

// Lookup asks which mailboxes exist; see sdk.Directory.
func (p *Plugin) Lookup(ctx context.Context, addresses []mail.Address) ([]mail.Mailbox, error) {
	return call(ctx, p, "directory", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) ([]mail.Mailbox, error) {
		return c.Lookup(ctx, addresses)
	})
}

// Store puts a message into mailboxes; see sdk.Store. It may be repeated, because a store knows a Delivery by its ID.
func (p *Plugin) Store(ctx context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	return call(ctx, p, "store", true, calls.StoreTimeout, func(ctx context.Context, c *calls.Client) ([]mail.Reply, error) {
		return c.Store(ctx, d)
	})
}

// Convert asks for another form of a message; see sdk.Converter.
func (p *Plugin) Convert(ctx context.Context, v *mail.Conversion) (mail.Converted, error) {
	return call(ctx, p, "converter", true, calls.MessageTimeout, func(ctx context.Context, c *calls.Client) (mail.Converted, error) {
		return c.Convert(ctx, v)
	})
}

// Bounce asks for the words of a report; see sdk.BounceNotifier. It is not repeated: a notifier may have told somebody.
func (p *Plugin) Bounce(ctx context.Context, f *mail.Failure) (mail.Notice, error) {
	return call(ctx, p, "bounce", false, calls.MessageTimeout, func(ctx context.Context, c *calls.Client) (mail.Notice, error) {
		return c.Bounce(ctx, f)
	})
}

// Route asks for the next hop of each recipient; see sdk.Router.
func (p *Plugin) Route(ctx context.Context, r *mail.Routing) ([]mail.Hop, error) {
	return call(ctx, p, "router", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) ([]mail.Hop, error) {
		return c.Route(ctx, r)
	})
}

// Observe tells what happened; see sdk.Observer. It is repeated: events may come twice.
func (p *Plugin) Observe(ctx context.Context, events []mail.Event) error {
	_, err := call(ctx, p, "observer", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) (struct{}, error) {
		return struct{}{}, c.Observe(ctx, events)
	})
	return err
}

// Connect asks before the greeting; see sdk.ConnectFilter.
func (p *Plugin) Connect(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return callIn(ctx, p, s.ID, "connect", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) (mail.Verdict, error) {
		return c.Connect(ctx, s)
	})
}

// Helo asks at HELO; see sdk.HeloFilter.
func (p *Plugin) Helo(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return callIn(ctx, p, s.ID, "helo", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) (mail.Verdict, error) {
		return c.Helo(ctx, s)
	})
}

// Mail asks at MAIL; see sdk.MailFilter.
func (p *Plugin) Mail(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return callIn(ctx, p, s.ID, "mail", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) (mail.Verdict, error) {
		return c.Mail(ctx, s)
	})
}

// Rcpt asks about one recipient; see sdk.RcptFilter.
func (p *Plugin) Rcpt(ctx context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error) {
	return callIn(ctx, p, s.ID, "rcpt", true, calls.QuickTimeout, func(ctx context.Context, c *calls.Client) (mail.Verdict, error) {
		return c.Rcpt(ctx, s, rcpt)
	})
}

// Message asks about a message; see sdk.MessageFilter.
func (p *Plugin) Message(ctx context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error) {
	return callIn(ctx, p, s.ID, "message", true, calls.MessageTimeout, func(ctx context.Context, c *calls.Client) (mail.Verdict, error) {
		return c.Message(ctx, s, m)
	})
}
