package calls

import (
	"context"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// The methods that a plugin may have. They are those of the kinds in package sdk, which can't be imported from here.
type (
	authenticator interface {
		Authenticate(context.Context, mail.Login) (mail.Identity, error)
	}
	directory interface {
		Lookup(context.Context, []mail.Address) ([]mail.Mailbox, error)
	}
	store interface {
		Store(context.Context, *mail.Delivery) ([]mail.Reply, error)
	}
	converter interface {
		Convert(context.Context, *mail.Conversion) (mail.Converted, error)
	}
	bouncer interface {
		Bounce(context.Context, *mail.Failure) (mail.Notice, error)
	}
	router interface {
		Route(context.Context, *mail.Routing) ([]mail.Hop, error)
	}
	connectFilter interface {
		Connect(context.Context, *mail.Session) (mail.Verdict, error)
	}
	heloFilter interface {
		Helo(context.Context, *mail.Session) (mail.Verdict, error)
	}
	mailFilter interface {
		Mail(context.Context, *mail.Session) (mail.Verdict, error)
	}
	rcptFilter interface {
		Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error)
	}
	messageFilter interface {
		Message(context.Context, *mail.Session, *mail.Message) (mail.Verdict, error)
	}
)

// KindNames returns the kinds that a value has methods of.
func KindNames(v any) []string {
	var out []string
	add := func(name string, ok bool) {
		if ok {
			out = append(out, name)
		}
	}
	_, ok := v.(authenticator)
	add("authenticator", ok)
	_, ok = v.(store)
	add("store", ok)
	_, ok = v.(directory)
	add("directory", ok)
	_, ok = v.(converter)
	add("converter", ok)
	_, ok = v.(bouncer)
	add("bounce", ok)
	_, ok = v.(router)
	add("router", ok)
	_, ok = v.(observer)
	add("observer", ok)
	_, ok = v.(connectFilter)
	add("connect", ok)
	_, ok = v.(heloFilter)
	add("helo", ok)
	_, ok = v.(mailFilter)
	add("mail", ok)
	_, ok = v.(rcptFilter)
	add("rcpt", ok)
	_, ok = v.(messageFilter)
	add("message", ok)
	return out
}

// dispatch calls the method that a request asks for.
func dispatch(ctx context.Context, v any, r *pb.Request, content mail.Content, streams bool) (*answer, error) {
	switch c := r.GetCall().(type) {
	case *pb.Request_Rcpt:
		return callRcpt(ctx, v, c.Rcpt)
	case *pb.Request_Message:
		return callMessage(ctx, v, c.Message, content, streams)
	case *pb.Request_Connect:
		if f, ok := v.(connectFilter); ok {
			return callSession(ctx, f.Connect, c.Connect)
		}
	case *pb.Request_Helo:
		if f, ok := v.(heloFilter); ok {
			return callSession(ctx, f.Helo, c.Helo)
		}
	case *pb.Request_Mail:
		if f, ok := v.(mailFilter); ok {
			return callSession(ctx, f.Mail, c.Mail)
		}
	case *pb.Request_Authenticate:
		return callAuthenticate(ctx, v, c.Authenticate)
	case *pb.Request_Lookup:
		return callLookup(ctx, v, c.Lookup)
	case *pb.Request_Store:
		return callStore(ctx, v, c.Store, content)
	case *pb.Request_Convert:
		return callConvert(ctx, v, c.Convert, content, streams)
	case *pb.Request_Bounce:
		return callBounce(ctx, v, c.Bounce)
	case *pb.Request_Route:
		return callRoute(ctx, v, c.Route)
	case *pb.Request_Observe:
		return callObserve(ctx, v, c.Observe)
	}
	return nil, ErrUnsupported
}

func callSession(ctx context.Context, f func(context.Context, *mail.Session) (mail.Verdict, error), p *pb.SessionCall) (*answer, error) {
	s, err := takeSession(p.GetSession())
	if err != nil {
		return nil, err
	}
	v, err := f(ctx, s)
	if err != nil {
		return nil, err
	}
	return answerVerdict(v, false)
}

func callRcpt(ctx context.Context, v any, p *pb.RcptCall) (*answer, error) {
	f, ok := v.(rcptFilter)
	if !ok {
		return nil, ErrUnsupported
	}
	s, err := takeSession(p.GetSession())
	if err != nil {
		return nil, err
	}
	rcpt, err := takeRecipient(p.GetRecipient())
	if err != nil {
		return nil, err
	}
	verdict, err := f.Rcpt(ctx, s, rcpt)
	if err != nil {
		return nil, err
	}
	return answerVerdict(verdict, false)
}

func callMessage(ctx context.Context, v any, p *pb.MessageCall, content mail.Content, streams bool) (*answer, error) {
	f, ok := v.(messageFilter)
	if !ok {
		return nil, ErrUnsupported
	}
	s, err := takeSession(p.GetSession())
	if err != nil {
		return nil, err
	}
	m, err := takeMessage(p, content)
	if err != nil {
		return nil, err
	}
	verdict, err := f.Message(ctx, s, m)
	if err != nil {
		return nil, err
	}
	return answerVerdict(verdict, streams)
}

func callAuthenticate(ctx context.Context, v any, p *pb.Login) (*answer, error) {
	f, ok := v.(authenticator)
	if !ok {
		return nil, ErrUnsupported
	}
	login, err := takeLogin(p)
	if err != nil {
		return nil, err
	}
	id, err := f.Authenticate(ctx, login)
	if err != nil {
		return nil, err
	}
	return answerIdentity(id), nil
}

func callLookup(ctx context.Context, v any, p *pb.LookupCall) (*answer, error) {
	f, ok := v.(directory)
	if !ok {
		return nil, ErrUnsupported
	}
	list, err := takeAddresses(p.GetAddresses())
	if err != nil {
		return nil, err
	}
	boxes, err := f.Lookup(ctx, list)
	if err != nil {
		return nil, err
	}
	return answerMailboxes(boxes), nil
}

func callStore(ctx context.Context, v any, p *pb.Delivery, content mail.Content) (*answer, error) {
	f, ok := v.(store)
	if !ok {
		return nil, ErrUnsupported
	}
	d, err := takeDelivery(p, content)
	if err != nil {
		return nil, err
	}
	replies, err := f.Store(ctx, d)
	if err != nil {
		return nil, err
	}
	return answerReplies(replies), nil
}

func callConvert(ctx context.Context, v any, p *pb.Conversion, content mail.Content, streams bool) (*answer, error) {
	f, ok := v.(converter)
	if !ok {
		return nil, ErrUnsupported
	}
	conversion, err := takeConversion(p, content)
	if err != nil {
		return nil, err
	}
	out, err := f.Convert(ctx, conversion)
	if err != nil {
		return nil, err
	}
	return answerConverted(out, streams)
}

func callBounce(ctx context.Context, v any, p *pb.Failure) (*answer, error) {
	f, ok := v.(bouncer)
	if !ok {
		return nil, ErrUnsupported
	}
	failure, err := takeFailure(p)
	if err != nil {
		return nil, err
	}
	n, err := f.Bounce(ctx, failure)
	if err != nil {
		return nil, err
	}
	return answerNotice(n), nil
}
