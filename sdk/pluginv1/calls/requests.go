package calls

import (
	"fmt"
	"io"
	"slices"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

const (
	maxInline  = 64 << 10  // content up to here rides in the request
	maxAnswer  = 2 << 20   // content up to here may ride in an answer
	chunkSize  = 255 << 10 // see nextChunk
	frameBytes = 1 << 20   // a batch is closed when it holds this much content
)

// question is a request on its way out.
type question struct {
	req   *pb.Request
	large mail.Content // goes in chunks after the request; nil when all is in it
	bytes int          // of content and headers in req
}

// putContent puts a small content into the question, and marks a large one.
func (q *question) putContent(c mail.Content) (*pb.Content, error) {
	if c == nil {
		c = mail.Bytes(nil)
	}
	size := c.Size()
	p := &pb.Content{Size: uint64(size)}
	if size > maxInline {
		p.Streamed, q.large = true, c
		return p, nil
	}
	p.Data = make([]byte, size)
	q.bytes += int(size)
	if n, err := c.ReadAt(p.Data, 0); int64(n) < size {
		return nil, fmt.Errorf("reading the message: %w", err)
	}
	return p, nil
}

func askAuthenticate(l mail.Login) *question {
	return &question{req: &pb.Request{Call: &pb.Request_Authenticate{Authenticate: &pb.Login{
		User: []byte(l.User), Password: []byte(l.Password), Mechanism: text(l.Mechanism),
		Remote: putAddrPort(l.Remote), Service: text(l.Service),
	}}}}
}

func takeLogin(p *pb.Login) (l mail.Login, err error) {
	l.User, l.Password, l.Mechanism, l.Service = string(p.GetUser()), string(p.GetPassword()), p.GetMechanism(), p.GetService()
	l.Remote, err = takeAddrPort(p.GetRemote())
	return l, err
}

func askLookup(list []mail.Address) *question {
	return &question{req: &pb.Request{Call: &pb.Request_Lookup{Lookup: &pb.LookupCall{Addresses: putAddresses(list)}}}}
}

func askStore(d *mail.Delivery) (*question, error) {
	q := &question{}
	c, err := q.putContent(d.Content)
	q.req = &pb.Request{Call: &pb.Request_Store{Store: &pb.Delivery{
		Id: text(d.ID), From: d.From.String(), To: putRecipients(d.To), Content: c, TimeUnixNs: putTime(d.Time),
	}}}
	return q, err
}

func takeDelivery(p *pb.Delivery, c mail.Content) (d *mail.Delivery, err error) {
	d = &mail.Delivery{ID: p.GetId(), Content: c, Time: takeTime(p.GetTimeUnixNs())}
	if d.From, err = takePath(p.GetFrom()); err != nil {
		return nil, err
	}
	d.To, err = takeRecipients(p.GetTo())
	return d, err
}

func askConvert(v *mail.Conversion) (*question, error) {
	q := &question{}
	c, err := q.putContent(v.Content)
	q.req = &pb.Request{Call: &pb.Request_Convert{Convert: &pb.Conversion{
		Id: text(v.ID), Envelope: putEnvelope(&v.Envelope), Content: c,
		Target: &pb.Target{EightBit: v.Target.EightBit, Binary: v.Target.Binary, Utf8: v.Target.UTF8, Mailbox: v.Target.Mailbox},
	}}}
	return q, err
}

func takeConversion(p *pb.Conversion, c mail.Content) (v *mail.Conversion, err error) {
	t := p.GetTarget()
	v = &mail.Conversion{ID: p.GetId(), Content: c, Target: mail.Target{
		EightBit: t.GetEightBit(), Binary: t.GetBinary(), UTF8: t.GetUtf8(), Mailbox: t.GetMailbox(),
	}}
	v.Envelope, err = takeEnvelope(p.GetEnvelope())
	return v, err
}

func askBounce(f *mail.Failure) *question {
	p := &pb.Failure{
		Id: text(f.ID), Kind: pb.FailureKind(f.Kind), From: f.From.String(), Envid: text(f.EnvID), Header: f.Header,
		ArrivedUnixNs: putTime(f.Arrived), ExpiresUnixNs: putTime(f.Expires), Hostname: text(f.Hostname),
		Postmaster: f.Postmaster.String(),
	}
	for _, r := range f.Recipients {
		p.Recipients = append(p.Recipients, &pb.FailedRecipient{
			Recipient: putRecipient(r.Recipient), Reply: putReply(r.Reply), Host: text(r.Host), TimeUnixNs: putTime(r.Time),
		})
	}
	return &question{req: &pb.Request{Call: &pb.Request_Bounce{Bounce: p}}, bytes: len(f.Header)}
}

func takeFailure(p *pb.Failure) (*mail.Failure, error) {
	f := &mail.Failure{
		ID: p.GetId(), Kind: mail.FailureKind(p.GetKind()), EnvID: p.GetEnvid(), Header: p.GetHeader(),
		Arrived: takeTime(p.GetArrivedUnixNs()), Expires: takeTime(p.GetExpiresUnixNs()), Hostname: p.GetHostname(),
	}
	var err error
	if f.From, err = takePath(p.GetFrom()); err != nil {
		return nil, err
	}
	if f.Postmaster, err = takePath(p.GetPostmaster()); err != nil {
		return nil, err
	}
	for _, r := range p.GetRecipients() {
		failed := mail.FailedRecipient{Host: r.GetHost(), Time: takeTime(r.GetTimeUnixNs())}
		if failed.Recipient, err = takeRecipient(r.GetRecipient()); err != nil {
			return nil, err
		}
		if r.GetReply() != nil {
			if failed.Reply, err = takeReply(r.GetReply()); err != nil {
				return nil, err
			}
		}
		f.Recipients = append(f.Recipients, failed)
	}
	return f, nil
}

func askConnect(s *mail.Session) *question {
	return &question{req: &pb.Request{Call: &pb.Request_Connect{Connect: &pb.SessionCall{Session: putSession(s)}}}}
}

func askHelo(s *mail.Session) *question {
	return &question{req: &pb.Request{Call: &pb.Request_Helo{Helo: &pb.SessionCall{Session: putSession(s)}}}}
}

func askMail(s *mail.Session) *question {
	return &question{req: &pb.Request{Call: &pb.Request_Mail{Mail: &pb.SessionCall{Session: putSession(s)}}}}
}

// rcptQuestion is the question that is asked most, made at one stroke.
type rcptQuestion struct {
	question
	req  pb.Request
	call pb.Request_Rcpt
	body pb.RcptCall
	sess pb.Session
	rcpt pb.Recipient
}

func askRcpt(s *mail.Session, r mail.Recipient) *question {
	q := &rcptQuestion{}
	fillSession(&q.sess, s)
	fillRecipient(&q.rcpt, r)
	q.body.Session, q.body.Recipient = &q.sess, &q.rcpt
	q.call.Rcpt = &q.body
	q.req.Call = &q.call
	q.question.req = &q.req
	return &q.question
}

// askMessage puts as much of the message into the question as the plugin said that it needs.
func askMessage(s *mail.Session, m *mail.Message, n needs) (*question, error) {
	q := &question{}
	p := &pb.MessageCall{Session: putSession(s), Id: text(m.ID), Envelope: putEnvelope(&m.Envelope)}
	q.req = &pb.Request{Call: &pb.Request_Message{Message: p}}
	content := m.Content
	if content == nil {
		content = mail.Bytes(nil)
	}
	var err error
	if p.Content, err = n.putContent(q, content); err != nil {
		return nil, err
	}
	if !n.header {
		return q, nil
	}
	fields := m.Header
	if fields == nil {
		if fields, _, err = mail.ReadHeader(content); err != nil {
			return nil, err
		}
	}
	fields = n.fields(fields)
	p.Header = putHeader(fields)
	for _, f := range fields {
		q.bytes += len(f.Name) + len(f.Value)
	}
	return q, nil
}

func takeMessage(p *pb.MessageCall, c mail.Content) (m *mail.Message, err error) {
	m = &mail.Message{ID: p.GetId(), Header: takeHeader(p.GetHeader()), Content: c}
	m.Envelope, err = takeEnvelope(p.GetEnvelope())
	return m, err
}

// requestContent returns the content of a request, or nil for a call that has none.
func requestContent(r *pb.Request) *pb.Content {
	switch c := r.GetCall().(type) {
	case *pb.Request_Store:
		return c.Store.GetContent()
	case *pb.Request_Convert:
		return c.Convert.GetContent()
	case *pb.Request_Message:
		return c.Message.GetContent()
	}
	return nil
}

// takeContent returns what came with a request: the bytes in it, or the streamed ones, or a content of which only the size or
// only the first bytes are known, because the plugin said that it needs no more.
func takeContent(p *pb.Content, streamed mail.Content) mail.Content {
	switch {
	case streamed != nil:
		return streamed
	case uint64(len(p.GetData())) == p.GetSize():
		return mail.Bytes(p.GetData())
	case len(p.GetData()) > 0 && uint64(len(p.GetData())) < p.GetSize():
		return prefix{p.GetData(), int64(p.GetSize())}
	}
	return absent(p.GetSize())
}

// absent is a content that was not sent.
type absent int64

func (a absent) Size() int64 { return int64(a) }

func (a absent) ReadAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("the content was not sent: the plugin's Needs say that it wants no body: %w", io.ErrUnexpectedEOF)
}

// callName names a request as the plugin's kinds do.
func callName(r *pb.Request) string {
	switch r.GetCall().(type) {
	case *pb.Request_Authenticate:
		return "authenticate"
	case *pb.Request_Lookup:
		return "lookup"
	case *pb.Request_Store:
		return "store"
	case *pb.Request_Convert:
		return "convert"
	case *pb.Request_Bounce:
		return "bounce"
	case *pb.Request_Route:
		return "route"
	case *pb.Request_Observe:
		return "observe"
	case *pb.Request_Connect:
		return "connect"
	case *pb.Request_Helo:
		return "helo"
	case *pb.Request_Mail:
		return "mail"
	case *pb.Request_Rcpt:
		return "rcpt"
	case *pb.Request_Message:
		return "message"
	}
	return "unknown"
}

// splitByBytes cuts list into runs that hold at most frameBytes each, or one element that is bigger.
func splitByBytes[T any](list []T, size func(T) int, send func([]T) error) error {
	start, sum := 0, 0
	for i, v := range list {
		n := size(v)
		if i > start && sum+n > frameBytes {
			if err := send(list[start:i]); err != nil {
				return err
			}
			start, sum = i, 0
		}
		sum += n
	}
	return send(slices.Clip(list[start:]))
}
