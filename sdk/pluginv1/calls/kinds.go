package calls

import (
	"context"
	"fmt"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// Time-outs of calls where nobody sets a shorter one.
const (
	QuickTimeout   = 5 * time.Second
	MessageTimeout = time.Minute
	StoreTimeout   = 2 * time.Minute
)

// ask makes a call and returns its response once that is no error.
func (c *Client) ask(ctx context.Context, q *question) (*pb.Response, mail.Content, error) {
	r, content, err := c.call(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	if e := r.GetError(); e != nil {
		return nil, nil, c.checked(q, takeError(e))
	}
	return r, content, nil
}

// checked makes a BadAnswer of what was found wrong with an answer, and lets through what the plugin may say.
func (c *Client) checked(q *question, err error) error {
	switch err.(type) {
	case *Failed, *mail.Reply:
		return err
	}
	if err == mail.ErrBadLogin && callName(q.req) == "authenticate" || err == ErrUnsupported || err == context.DeadlineExceeded {
		return err
	}
	return bad(q, err)
}

func bad(q *question, err error) error { return &BadAnswer{callName(q.req), err} }

// want returns an error that says what came when it was not what was wanted.
func want(q *question, r *pb.Response) error {
	return bad(q, fmt.Errorf("an answer of the wrong kind (%T)", r.GetResult()))
}

// Authenticate asks whether a login is right; see sdk.Authenticator.
func (c *Client) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	q := askAuthenticate(login)
	r, _, err := c.ask(ctx, q)
	if err != nil {
		return mail.Identity{}, err
	}
	if r.GetIdentity() == nil {
		return mail.Identity{}, want(q, r)
	}
	id, err := takeIdentity(r.GetIdentity())
	if err != nil {
		return mail.Identity{}, bad(q, err)
	}
	return id, nil
}

// Lookup asks which mailboxes exist; see sdk.Directory.
func (c *Client) Lookup(ctx context.Context, addresses []mail.Address) ([]mail.Mailbox, error) {
	q := askLookup(addresses)
	r, _, err := c.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	if r.GetMailboxes() == nil {
		return nil, want(q, r)
	}
	list, err := takeMailboxes(r.GetMailboxes(), len(addresses))
	if err != nil {
		return nil, bad(q, err)
	}
	return list, nil
}

// Store puts a message into mailboxes; see sdk.Store.
func (c *Client) Store(ctx context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	q, err := askStore(d)
	if err != nil {
		return nil, err
	}
	r, _, err := c.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	if r.GetReplies() == nil {
		return nil, want(q, r)
	}
	list, err := takeReplies(r.GetReplies(), len(d.To))
	if err != nil {
		return nil, bad(q, err)
	}
	return list, nil
}

// Convert asks for another form of a message; see sdk.Converter.
func (c *Client) Convert(ctx context.Context, v *mail.Conversion) (mail.Converted, error) {
	q, err := askConvert(v)
	if err != nil {
		return mail.Converted{}, err
	}
	r, content, err := c.ask(ctx, q)
	if err != nil {
		return mail.Converted{}, err
	}
	if r.GetConverted() == nil {
		return mail.Converted{}, want(q, r)
	}
	out, err := takeConverted(r.GetConverted(), content)
	if err != nil {
		return mail.Converted{}, bad(q, err)
	}
	return out, nil
}

// Bounce asks for the words of a report; see sdk.BounceNotifier.
func (c *Client) Bounce(ctx context.Context, f *mail.Failure) (mail.Notice, error) {
	q := askBounce(f)
	r, _, err := c.ask(ctx, q)
	if err != nil {
		return mail.Notice{}, err
	}
	if r.GetNotice() == nil {
		return mail.Notice{}, want(q, r)
	}
	n, err := takeNotice(r.GetNotice())
	if err != nil {
		return mail.Notice{}, bad(q, err)
	}
	return n, nil
}

// Connect asks a filter before the greeting; see sdk.ConnectFilter.
func (c *Client) Connect(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return c.verdict(ctx, askConnect(s))
}

// Helo asks a filter at HELO; see sdk.HeloFilter.
func (c *Client) Helo(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return c.verdict(ctx, askHelo(s))
}

// Mail asks a filter at MAIL; see sdk.MailFilter.
func (c *Client) Mail(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return c.verdict(ctx, askMail(s))
}

// Rcpt asks a filter about one recipient; see sdk.RcptFilter.
func (c *Client) Rcpt(ctx context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error) {
	return c.verdict(ctx, askRcpt(s, rcpt))
}

// Message asks a filter about a message, of which it gets as much as it said that it needs; see sdk.MessageFilter.
func (c *Client) Message(ctx context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error) {
	q, err := askMessage(s, m, c.needs)
	if err != nil {
		return mail.Verdict{}, err
	}
	return c.verdict(ctx, q)
}

func (c *Client) verdict(ctx context.Context, q *question) (mail.Verdict, error) {
	r, content, err := c.ask(ctx, q)
	if err != nil {
		return mail.Verdict{}, err
	}
	if r.GetVerdict() == nil {
		return mail.Verdict{}, want(q, r)
	}
	v, err := takeVerdict(r.GetVerdict(), content)
	if err != nil {
		return mail.Verdict{}, bad(q, err)
	}
	return v, nil
}
