package engine

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// badServer spoils what goes over the wire.
type badServer struct {
	pb.PluginServer
	b *bad
}

func (s badServer) Describe(ctx context.Context, q *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	res, err := s.PluginServer.Describe(ctx, q)
	if s.b.fault("start") == "hostile" {
		res.Name, res.Version, res.SchemaJson = "bad\r\n\x00", "1\r\nINFO all is well\x1b[2J", []byte("{\x00")
		res.Kinds = []*pb.Kind{{Name: "authenticator\r\n"}, {Name: strings.Repeat("x", 1<<20)}}
	}
	return res, err
}

func (s badServer) Configure(ctx context.Context, q *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	if s.b.fault("start") == "hostile" {
		return &pb.ConfigureResponse{Diagnostics: []*pb.Diagnostic{{Severity: 1, Path: []string{"\x00", "-1", ""}, Summary: "x\r\nINFO all is well\x1b[2J"}}}, nil
	}
	return s.PluginServer.Configure(ctx, q)
}

func (s badServer) Calls(stream grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error {
	wrapped := &badStream{BidiStreamingServer: stream, b: s.b}
	s.b.mu.Lock()
	s.b.stream = wrapped
	s.b.mu.Unlock()
	return s.PluginServer.Calls(wrapped)
}

// Large answers a converter's call with content that never ends.
func (s badServer) Large(stream grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error {
	if s.b.fault("call") != "huge" {
		return s.PluginServer.Large(badLarge{stream, s.b})
	}
	content := &pb.Content{Size: 2 << 30, Streamed: true}
	frame := &pb.Frame{Part: &pb.Frame_Response{Response: &pb.Response{Result: &pb.Response_Converted{Converted: &pb.Converted{Body: 1, Content: content}}}}}
	for sent := 0; sent < 2<<30; sent += 255 << 10 {
		if err := stream.Send(frame); err != nil {
			return err
		}
		frame = &pb.Frame{Part: &pb.Frame_Chunk{Chunk: make([]byte, 255<<10)}}
	}
	return nil
}

type badStream struct {
	grpc.BidiStreamingServer[pb.Requests, pb.Responses]
	b  *bad
	mu sync.Mutex // the plugin sends when it is idle, too
}

func (s *badStream) raw(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.SendMsg(m)
}

// Send spoils answers, and writes down which ones of a store went out as they were.
func (s *badStream) Send(p *pb.Responses) error {
	switch s.b.fault("call") {
	case "huge":
		return s.raw(huge{})
	case "hostile":
		for _, r := range p.GetResponses() {
			s.b.spoil(r)
		}
		return s.raw(p)
	}
	err := s.raw(p)
	for _, r := range p.GetResponses() {
		s.b.answered(r, err)
	}
	return err
}

// badLarge does that for answers to large questions.
type badLarge struct {
	grpc.BidiStreamingServer[pb.Frame, pb.Frame]
	b *bad
}

func (s badLarge) Send(f *pb.Frame) error {
	err := s.BidiStreamingServer.Send(f)
	s.b.answered(f.GetResponse(), err)
	return err
}

// values are what makes an answer one that no honest plugin gives.
var values = []string{"CR LF", "NUL", "a code without text", "too much", "too little", "another call", "another kind", "out of range"}

// spoil makes an answer hostile, in the way that the file of the fault numbers.
func (b *bad) spoil(r *pb.Response) {
	n := b.variant()
	text := map[string]string{"CR LF": "ok\r\n250 2.0.0 fine\r\nRCPT TO:<eve@x>", "NUL": "ok\x00"}[values[n]]
	reply := &pb.Reply{Code: 250, Enhanced: "2.0.0", Text: text}
	switch values[n] {
	case "a code without text":
		reply = &pb.Reply{Enhanced: "5.7.2"}
	case "out of range":
		reply.Code = 4_000_000_000
	case "another call":
		r.Seq ^= 1 << 40
		return
	case "another kind":
		r.Result = &pb.Response_Hops{Hops: &pb.Hops{}}
		if b.kind == "filter" {
			r.Result = &pb.Response_Identity{Identity: &pb.Identity{User: "ann"}}
		}
		return
	}
	switch b.kind {
	case "authenticator":
		r.Result = spoiltIdentity(values[n], text, reply).Result
	case "store":
		r.Result = spoiltReplies(values[n], reply).Result
	case "converter":
		r.Result = spoiltContent(values[n], reply).Result
	case "bounce":
		r.Result = spoiltNotice(values[n], text, reply).Result
	default:
		r.Result = spoiltVerdict(values[n], reply).Result
	}
}

func errorReply(reply *pb.Reply) *pb.Response {
	return &pb.Response{Result: &pb.Response_Error{Error: &pb.Error{Kind: pb.ErrorKind_ERROR_KIND_REPLY, Text: reply.GetText(), Reply: reply}}}
}

func spoiltIdentity(value, text string, reply *pb.Reply) *pb.Response {
	id := &pb.Identity{User: text}
	switch value {
	case "a code without text", "out of range":
		return errorReply(reply)
	case "too much":
		id.User = strings.Repeat("x", 1<<20)
	}
	return &pb.Response{Result: &pb.Response_Identity{Identity: id}}
}

func spoiltReplies(value string, reply *pb.Reply) *pb.Response {
	list := []*pb.Reply{reply}
	switch value {
	case "too much":
		list = append(list, reply)
	case "too little":
		list = nil
	}
	return &pb.Response{Result: &pb.Response_Replies{Replies: &pb.Replies{Replies: list}}}
}

func spoiltContent(value string, reply *pb.Reply) *pb.Response {
	v := &pb.Converted{Body: pb.BodyType_BODY_TYPE_7BIT, Content: &pb.Content{Size: 1, Data: []byte("x")}}
	switch value {
	case "too much":
		v.Content.Size = 1 << 62
	case "too little":
		v.Content = &pb.Content{Size: 1000, Streamed: true} // which does not come
	case "out of range":
		v.Body = 99
	case "CR LF", "NUL": // nothing is wrong with it but the text
		reply.Code, reply.Enhanced = 550, "5.7.1"
		return errorReply(reply)
	default:
		return errorReply(reply)
	}
	return &pb.Response{Result: &pb.Response_Converted{Converted: v}}
}

func spoiltNotice(value, text string, reply *pb.Reply) *pb.Response {
	n := &pb.Notice{Action: pb.NoticeAction_NOTICE_ACTION_RENDER, Subject: badWords, Text: badText}
	switch value {
	case "CR LF":
		n.Subject = text + "\r\nBcc: eve@x"
	case "NUL":
		n.Text = text
	case "too much":
		n.Text = strings.Repeat(badText, 1<<16)
	case "too little":
		n.Text = ""
	case "out of range":
		n.Action = -7
	default:
		return errorReply(reply)
	}
	return &pb.Response{Result: &pb.Response_Notice{Notice: n}}
}

func spoiltVerdict(value string, reply *pb.Reply) *pb.Response {
	v := &pb.Verdict{Action: pb.Action_ACTION_REJECT, Reply: reply}
	switch value {
	case "CR LF", "NUL":
		reply.Code, reply.Enhanced = 550, "5.7.1"
	case "too much":
		v = &pb.Verdict{Edits: make([]*pb.Edit, 20_000)}
		for i := range v.Edits {
			v.Edits[i] = &pb.Edit{Edit: &pb.Edit_SetMeta{SetMeta: &pb.SetMeta{Key: "k", Value: "v"}}}
		}
	case "too little":
		v = &pb.Verdict{Edits: []*pb.Edit{{}}}
	}
	return &pb.Response{Result: &pb.Response_Verdict{Verdict: v}}
}

// hostileResult answers what nobody has asked.
func hostileResult() *pb.Response_Verdict {
	return &pb.Response_Verdict{Verdict: &pb.Verdict{Action: -7, Reply: &pb.Reply{Code: 4_000_000_000, Enhanced: "5.7.2", Text: "\r\n.\r\n"}}}
}

// value is the plugin's value of its kind.
func (b *bad) value() any {
	switch b.kind {
	case "authenticator":
		return badAuth{b}
	case "store":
		return badStore{b}
	case "converter":
		return badConverter{b}
	case "bounce":
		return badBounce{b}
	default:
		return badFilter{b}
	}
}

type badAuth struct{ b *bad }

func (a badAuth) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	a.b.call()
	if l.Password != "right" {
		return mail.Identity{}, mail.ErrBadLogin
	}
	return mail.Identity{User: l.User, AnySender: true}, nil
}

type badFilter struct{ b *bad }

func (f badFilter) Rcpt(_ context.Context, _ *mail.Session, r mail.Recipient) (mail.Verdict, error) {
	f.b.call()
	if r.Address.Local() == "refused" {
		return mail.Reject(550, "5.7.1", "not here"), nil
	}
	return mail.Continue(), nil
}

type badConverter struct{ b *bad }

func (c badConverter) Convert(_ context.Context, m *mail.Conversion) (mail.Converted, error) {
	c.b.call()
	content, err := io.ReadAll(mail.Reader(m.Content))
	return mail.Converted{Content: mail.Bytes(append([]byte("X-Converted: yes\r\n"), content...)), Body: mail.Body7Bit}, err
}

// What a good notifier says, in the subject and in the text.
const (
	badWords = "in the words of the plugin"
	badText  = "It did not work, says the plugin.\n"
)

type badBounce struct{ b *bad }

// Bounce words the reports to its own sender, and has nothing to do with others.
func (n badBounce) Bounce(_ context.Context, f *mail.Failure) (mail.Notice, error) {
	if f.From.Local() != n.b.name {
		return mail.Notice{Action: mail.NoticeDefault}, nil
	}
	n.b.call()
	return mail.Notice{Action: mail.NoticeRender, Subject: badWords, Text: badText}, nil
}

// badStore writes down each message that it is given, each time that it is given it.
type badStore struct{ b *bad }

func (s badStore) Store(ctx context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	s.b.call()
	header, _, err := mail.ReadHeader(d.Content)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(mail.Reader(d.Content))
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // nobody waits any more
		return nil, ctx.Err()
	}
	replies := make([]mail.Reply, len(d.To))
	for i, r := range d.To {
		err := s.b.note(entry{Stored: tagIn(content), ID: d.ID, To: r.Address.String(), Subject: header.Get("Subject"), Words: wordsOf(content)})
		if err != nil {
			return nil, err
		}
		replies[i] = mail.NewReply(250, "2.0.0", storedAs+d.ID)
	}
	return replies, nil
}

// storedAs is how the answer of a good store begins; the ID of the message follows.
const storedAs = "stored as "

// wordsOf says whose words a report is in.
func wordsOf(report []byte) string {
	var list []string
	for whose, words := range map[string]string{
		"the server's": "This is the mail server mx.here.example.", "the plugin's": strings.TrimSpace(badText),
	} {
		if bytes.Contains(report, []byte(words)) {
			list = append(list, whose)
		}
	}
	return strings.Join(list, ", ")
}

// answered writes down that an answer of a store went out and was a good one.
func (b *bad) answered(r *pb.Response, err error) {
	if err != nil || b.kind != "store" {
		return
	}
	ids := map[string]bool{}
	for _, reply := range r.GetReplies().GetReplies() {
		if id, ok := strings.CutPrefix(reply.GetText(), storedAs); ok {
			ids[id] = true
		}
	}
	for id := range ids {
		_ = b.note(entry{Answered: id})
	}
}

// tagIn finds the tag of a message, or of the one that a report is about.
func tagIn(content []byte) string {
	_, rest, found := bytes.Cut(content, []byte("X-Tag: "))
	if !found {
		return "-"
	}
	tag, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(tag)
}
