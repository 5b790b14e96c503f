package calls

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// TestHostileAnswers gives the client answers that no honest plugin gives.
func TestHostileAnswers(t *testing.T) {
	reply := func(code uint32, enhanced, text string) *pb.Reply {
		return &pb.Reply{Code: code, Enhanced: enhanced, Text: text}
	}
	edit := func(e *pb.Edit) *pb.Verdict {
		return &pb.Verdict{Action: pb.Action_ACTION_CONTINUE, Edits: []*pb.Edit{e}}
	}
	for name, v := range map[string]*pb.Verdict{
		"nothing":         nil,
		"unspecified":     {},
		"unknown action":  {Action: 99},
		"negative action": {Action: -1},
		"accept by 5xx":   {Action: pb.Action_ACTION_REJECT, Reply: reply(250, "", "ok")},
		"no reply":        {Action: pb.Action_ACTION_REJECT},
		"code 0":          {Action: pb.Action_ACTION_CONTINUE, Reply: reply(0, "", "")},
		"huge code":       {Action: pb.Action_ACTION_REJECT, Reply: reply(math.MaxUint32, "", "")},
		"enhanced class":  {Action: pb.Action_ACTION_REJECT, Reply: reply(550, "4.7.1", "")},
		"enhanced only":   {Action: pb.Action_ACTION_REJECT, Reply: reply(550, "5.7", "")},
		"CRLF":            {Action: pb.Action_ACTION_REJECT, Reply: reply(550, "5.7.1", "x\r\nRCPT TO:<e@v>")},
		"NUL":             {Action: pb.Action_ACTION_REJECT, Reply: reply(550, "5.7.1", "x\x00")},
		"long":            {Action: pb.Action_ACTION_REJECT, Reply: reply(550, "5.7.1", strings.Repeat("x", 1<<20))},
		"empty edit":      edit(&pb.Edit{}),
		"header name":     edit(&pb.Edit{Edit: &pb.Edit_AddHeader{AddHeader: &pb.AddHeader{Name: "a: b\r\nc"}}}),
		"header value":    edit(&pb.Edit{Edit: &pb.Edit_AddHeader{AddHeader: &pb.AddHeader{Name: "a", Value: []byte("b\r\n\r\nbody")}}}),
		"sender":          edit(&pb.Edit{Edit: &pb.Edit_SetSender{SetSender: "a@b>\r\nDATA"}}),
		"recipient":       edit(&pb.Edit{Edit: &pb.Edit_AddRecipient{AddRecipient: &pb.Recipient{}}}),
		"orcpt":           edit(&pb.Edit{Edit: &pb.Edit_AddRecipient{AddRecipient: &pb.Recipient{Address: "a@b", Original: "rfc822;a\r\nDATA"}}}),
		"notify":          edit(&pb.Edit{Edit: &pb.Edit_AddRecipient{AddRecipient: &pb.Recipient{Address: "a@b", Notify: []pb.Notify{-5}}}}),
		"body":            edit(&pb.Edit{Edit: &pb.Edit_ReplaceBody{ReplaceBody: &pb.Content{Size: 3, Data: []byte("a\nb")}}}),
		"body size":       edit(&pb.Edit{Edit: &pb.Edit_ReplaceBody{ReplaceBody: &pb.Content{Size: 1 << 60, Data: []byte("ab")}}}),
		"body not there":  edit(&pb.Edit{Edit: &pb.Edit_ReplaceBody{ReplaceBody: &pb.Content{Size: 1 << 60, Streamed: true}}}),
		"meta":            edit(&pb.Edit{Edit: &pb.Edit_SetMeta{SetMeta: &pb.SetMeta{Key: "a\nb"}}}),
		"many edits":      {Action: pb.Action_ACTION_CONTINUE, Edits: make([]*pb.Edit, maxEdits+1)},
	} {
		if got, err := takeVerdict(v, nil); err == nil {
			t.Errorf("%s was taken: %+v", name, got)
		}
	}
	for name, n := range map[string]*pb.Notice{
		"nothing": {}, "action": {Action: 7}, "subject": {Action: 1, Subject: "a\r\nBcc: b"}, "text": {Action: 2, Text: "a\x00"},
		"CR": {Action: 2, Text: "a\r\n.\r\n"}, "no text": {Action: 2}, "language": {Action: 1, Language: "ko; x"}, "to": {Action: 1, To: "a"},
	} {
		if got, err := takeNotice(n); err == nil {
			t.Errorf("%s was taken: %+v", name, got)
		}
	}
	for name, id := range map[string]*pb.Identity{"nobody": {}, "CRLF": {User: "a\r\n"}, "address": {User: "a", Addresses: []string{"b"}}} {
		if got, err := takeIdentity(id); err == nil {
			t.Errorf("%s was taken: %+v", name, got)
		}
	}
	for name, m := range map[string]*pb.Mailbox{"unspecified": {}, "unknown": {State: 9}, "no aliases": {State: 3}, "aliases": {State: 1, Aliases: []string{"a@b"}}} {
		if got, err := takeMailboxes(&pb.Mailboxes{Mailboxes: []*pb.Mailbox{m}}, 1); err == nil {
			t.Errorf("%s was taken: %+v", name, got)
		}
	}
	for name, h := range map[string]*pb.Hop{
		"nowhere": {}, "two ways": {Mx: true, Route: "x"}, "hosts and a reply": {Hosts: []string{"a.example"}, Reply: reply(550, "5.1.1", "no")},
		"a socket": {Hosts: []string{"unix:/run/admin.sock"}}, "CRLF": {Hosts: []string{"a.example\r\nQUIT"}}, "NUL": {Hosts: []string{"a\x00.example:25"}},
		"port 0": {Hosts: []string{"a.example:0"}}, "port": {Hosts: []string{"a.example:99999"}}, "no name": {Hosts: []string{":25"}},
		"empty": {Hosts: []string{""}}, "zone": {Hosts: []string{"[fe80::1%eth0]:25"}}, "many": {Hosts: make([]string, 21)},
		"long": {Hosts: []string{strings.Repeat("a.", 5000) + "example"}}, "a good reply": {Reply: reply(250, "2.0.0", "ok")},
		"enhanced only": {Reply: reply(550, "5.7", "")}, "a reply of two lines": {Reply: reply(550, "5.7.1", "x\r\ny")}, "route": {Route: "a\nb"},
	} {
		if got, err := takeHops(&pb.Hops{Hops: []*pb.Hop{h}}, 1); err == nil {
			t.Errorf("%s was taken: %+v", name, got)
		}
	}
	for _, host := range []string{"a.example", "a.example:587", "192.0.2.1", "192.0.2.1:25", "[2001:db8::1]:25", "localhost:2525"} {
		if _, err := takeHops(&pb.Hops{Hops: []*pb.Hop{{Hosts: []string{host}}}}, 1); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if got, err := takeHops(&pb.Hops{}, 1); err == nil {
		t.Errorf("no hop was taken: %+v", got)
	}
	if got, err := takeReplies(&pb.Replies{Replies: []*pb.Reply{reply(354, "", "go on")}}, 1); err == nil {
		t.Errorf("354 was taken: %+v", got)
	}
}

// FuzzResponse takes any response: it is legal, or an error.
func FuzzResponse(f *testing.F) {
	a, err := answerVerdict(mail.Reject(550, "5.7.1", "no"), false)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []*pb.Response{
		a.res, answerReplies([]mail.Reply{mail.NewReply(250, "2.0.0", "ok")}).res, answerError(errors.New("x")).res,
		answerNotice(mail.Notice{Action: mail.NoticeDefault}).res, answerIdentity(mail.Identity{User: "a"}).res,
	} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r pb.Response
		if proto.Unmarshal(data, &r) != nil {
			return
		}
		if v, err := takeVerdict(r.GetVerdict(), nil); err == nil && v.Check() != nil {
			t.Errorf("an illegal verdict was taken: %+v", v)
		}
		if list, err := takeReplies(r.GetReplies(), len(r.GetReplies().GetReplies())); err == nil {
			for _, r := range list {
				if r.Check() != nil {
					t.Errorf("an illegal reply was taken: %+v", r)
				}
			}
		}
		if n, err := takeNotice(r.GetNotice()); err == nil && strings.ContainsAny(n.Subject+n.Language, "\r\n\x00") {
			t.Errorf("an illegal notice was taken: %+v", n)
		}
		_, _ = takeMailboxes(r.GetMailboxes(), len(r.GetMailboxes().GetMailboxes()))
		_, _ = takeIdentity(r.GetIdentity())
		if list, err := takeHops(r.GetHops(), len(r.GetHops().GetHops())); err == nil {
			for _, h := range list {
				if h.Check() != nil {
					t.Errorf("an illegal hop was taken: %+v", h)
				}
			}
		}
		_, _ = takeConverted(r.GetConverted(), nil)
		if e := takeError(r.GetError()); strings.ContainsAny(e.Error(), "\r\x00") {
			t.Errorf("an error for the log holds controls: %q", e)
		}
	})
}

// FuzzRequest has the plugin's end take any request without a panic that is not of its own making.
func FuzzRequest(f *testing.F) {
	q, err := askMessage(&mail.Session{Helo: "h"}, &mail.Message{Content: mail.Bytes([]byte("A: b\r\n\r\nc"))}, needs{header: true, body: true})
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []*pb.Request{q.req, askRcpt(&mail.Session{}, mail.Recipient{}).req, askLookup(nil).req} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r pb.Request
		if proto.Unmarshal(data, &r) != nil {
			return
		}
		a, err := dispatch(t.Context(), yes{}, &r, takeContent(requestContent(&r), nil), false)
		if (a == nil) == (err == nil) {
			t.Errorf("%v, %v", a, err)
		}
	})
}

// yes says yes to everything.
type yes struct{}

func (yes) Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error) {
	return mail.Continue(), nil
}
func (yes) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	_, err := io.Copy(io.Discard, mail.Reader(m.Content))
	return mail.Continue(), err
}
func (yes) Lookup(_ context.Context, list []mail.Address) ([]mail.Mailbox, error) {
	return make([]mail.Mailbox, len(list)), nil
}
func (yes) Convert(_ context.Context, c *mail.Conversion) (mail.Converted, error) {
	return mail.Converted{Content: c.Content}, nil
}

// rogue is a plugin that speaks gRPC and breaks the contract.
type rogue struct {
	pb.UnimplementedPluginServer
	calls func(grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error
	large func(grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error
}

func (r *rogue) Calls(s grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error { return r.calls(s) }
func (r *rogue) Large(s grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error        { return r.large(s) }
func (r *rogue) Configure(context.Context, *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	return &pb.ConfigureResponse{Kinds: []*pb.Kind{{Name: "message", Body: true}}}, nil
}

// dial runs a plugin server in memory and returns a client of it.
func dial(t *testing.T, p pb.PluginServer) *Client {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer(ServerOptions()...)
	pb.RegisterPluginServer(s, p)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:x", append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := NewClient(conn)
	if _, err := c.Configure(t.Context(), &pb.ConfigureRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func ask(t *testing.T, c *Client) error {
	_, err := c.Rcpt(t.Context(), &mail.Session{}, mail.Recipient{Address: mail.MustParseAddress("a@x.example")})
	return err
}

func TestRogueStreams(t *testing.T) {
	for name, answer := range map[string]func(seq uint64) []*pb.Response{
		"another number": func(seq uint64) []*pb.Response { return []*pb.Response{{Seq: seq + 7}} },
		"number 0":       func(uint64) []*pb.Response { return []*pb.Response{{}} },
		"too big": func(seq uint64) []*pb.Response {
			return []*pb.Response{{Seq: seq, Result: &pb.Response_Error{Error: &pb.Error{Text: strings.Repeat("x", MaxReceive)}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, &rogue{calls: func(s grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error {
				for {
					in, err := s.Recv()
					if err != nil {
						return err
					}
					if err := s.Send(&pb.Responses{Responses: answer(in.GetRequests()[0].GetSeq())}); err != nil {
						return err
					}
				}
			}})
			if err := ask(t, c); !errors.Is(err, ErrLost) {
				t.Error(err)
			}
			<-c.Done()
			if err := ask(t, c); !errors.Is(err, ErrLost) || c.Err() == nil {
				t.Error(err, c.Err())
			}
		})
	}
}

func TestAnswerOfTheWrongKind(t *testing.T) {
	c := dial(t, &rogue{calls: func(s grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error {
		in, err := s.Recv()
		if err != nil {
			return err
		}
		r := answerIdentity(mail.Identity{User: "a"}).res
		r.Seq = in.GetRequests()[0].GetSeq()
		if err := s.Send(&pb.Responses{Responses: []*pb.Response{r}}); err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	}})
	var bad *BadAnswer
	if err := ask(t, c); !errors.As(err, &bad) {
		t.Error(err)
	}
}

func TestRogueLarge(t *testing.T) {
	frame := func(r *pb.Response) *pb.Frame { return &pb.Frame{Part: &pb.Frame_Response{Response: r}} }
	converted := func(size uint64) *pb.Frame {
		return frame(&pb.Response{Result: &pb.Response_Converted{Converted: &pb.Converted{Content: &pb.Content{Size: size, Streamed: true}, Body: 1}}})
	}
	chunk := func(n int) *pb.Frame { return &pb.Frame{Part: &pb.Frame_Chunk{Chunk: make([]byte, n)}} }
	for name, frames := range map[string][]*pb.Frame{
		"nothing":     {},
		"chunk first": {chunk(3)},
		"too short":   {converted(10), chunk(9)},
		"too long":    {converted(10), chunk(11)},
		"endless":     {converted(math.MaxUint64), chunk(1)},
		"an empty":    {frame(&pb.Response{})},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, &rogue{
				calls: func(s grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error { <-s.Context().Done(); return nil },
				large: func(s grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error {
					for _, f := range frames {
						if err := s.Send(f); err != nil {
							return err
						}
					}
					return nil
				},
			})
			got, err := c.Convert(t.Context(), &mail.Conversion{Content: mail.Bytes(make([]byte, 1<<20))})
			if err == nil {
				t.Errorf("taken: %+v", got)
			}
		})
	}
}

// TestBatch proves that requests that wait together travel together.
func TestBatch(t *testing.T) {
	release, first := make(chan struct{}), make(chan struct{})
	var sizes []int
	out := newOutbox[int]()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = out.run(ctx, func(list []int) error {
			if sizes = append(sizes, len(list)); len(sizes) == 1 {
				close(first)
				<-release
			} else {
				cancel()
			}
			return nil
		})
	})
	out.put(0)
	<-first
	for i := range 10 {
		out.put(i)
	}
	close(release)
	wg.Wait()
	if len(sizes) != 2 || sizes[1] != 10 {
		t.Error(sizes)
	}
}

func TestSplit(t *testing.T) {
	var got []int
	err := splitByBytes([]int{1, frameBytes, 1, 1, 2 * frameBytes, 5}, func(n int) int { return n }, func(part []int) error {
		got = append(got, len(part))
		return nil
	})
	if err != nil || len(got) != 5 || got[2] != 2 {
		t.Error(got, err)
	}
}

func TestSpool(t *testing.T) {
	for _, size := range []int{0, maxMemory, maxMemory + 1} {
		in := bytes.Repeat([]byte{7}, size)
		s, err := newSpool(uint64(size), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if err := sendChunks(mail.Bytes(in), s.write); err != nil {
			t.Fatal(err)
		}
		c, err := s.content()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(mail.Reader(c)); err != nil || !bytes.Equal(in, out) {
			t.Errorf("%d bytes came back as %d, %v", size, len(out), err)
		}
		if n, err := c.ReadAt(make([]byte, 1), int64(size)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
	}
	if _, err := newSpool(11, 10); err == nil {
		t.Error("a spool beyond its limit")
	}
}

// TestChunks wants no chunk to be too big, nor of the size that falls into the next tier of gRPC's buffer pool.
func TestChunks(t *testing.T) {
	for _, size := range []int64{1, poolTier, chunkSize, chunkSize + poolTier, 2*chunkSize + poolTier, chunkSize + poolTier - 1<<10, 5 << 20} {
		var sum int64
		err := sendChunks(mail.Bytes(make([]byte, size)), func(b []byte) error {
			if n := int64(len(b)); n == 0 || n == poolTier || n > chunkSize {
				t.Errorf("of %d bytes, a chunk of %d after %d", size, n, sum)
			}
			sum += int64(len(b))
			return nil
		})
		if err != nil || sum != size {
			t.Errorf("%d of %d bytes, %v", sum, size, err)
		}
	}
}

// TestKindsOfLater has kinds say what no SDK of ours says: whoever asks for what can't be gets more, never less.
func TestKindsOfLater(t *testing.T) {
	whole := mail.Bytes(append([]byte("Subject: x\r\nX-A: 1\r\n\r\n"), make([]byte, 100<<10)...))
	for name, c := range map[string]struct {
		kind   *pb.Kind
		fields int
		bytes  int // -1: in chunks
		wrong  bool
	}{
		"old":            {&pb.Kind{Header: true, Body: true}, 2, -1, false},
		"narrow":         {&pb.Kind{Header: true, Body: true, HeaderNames: []string{"x-a", "none"}, BodyPrefix: 10}, 1, 10, false},
		"widest prefix":  {&pb.Kind{Body: true, BodyPrefix: MaxPrefix}, 0, MaxPrefix, false},
		"too much":       {&pb.Kind{Body: true, BodyPrefix: MaxPrefix + 1}, 0, -1, true},
		"no header":      {&pb.Kind{HeaderNames: []string{"X-A"}}, 0, 0, true},
		"no body":        {&pb.Kind{BodyPrefix: 10}, 0, 0, true},
		"names that lie": {&pb.Kind{Header: true, HeaderNames: []string{"X-A: 1\r\n"}}, 0, 0, true},
	} {
		q, err := askMessage(&mail.Session{}, &mail.Message{Content: whole}, needsOf(c.kind))
		if err != nil {
			t.Fatal(name, err)
		}
		m := q.req.GetMessage()
		got := len(m.GetContent().GetData())
		if q.large != nil {
			got = -1
		}
		if len(m.GetHeader()) != c.fields || got != c.bytes || m.GetContent().GetSize() != uint64(whole.Size()) || (CheckKind(c.kind) != nil) != c.wrong {
			t.Errorf("%s: %d fields, %d bytes, %v", name, len(m.GetHeader()), got, CheckKind(c.kind))
		}
	}
}

func TestNotConfigured(t *testing.T) {
	s := NewServer(slog.New(slog.DiscardHandler))
	a := s.answer(t.Context(), askRcpt(&mail.Session{}, mail.Recipient{}).req, nil, false)
	if a.res.GetError().GetKind() != pb.ErrorKind_ERROR_KIND_UNSUPPORTED {
		t.Error(a.res)
	}
}
