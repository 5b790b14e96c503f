package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
		return s.PluginServer.Large(stream)
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

// Send spoils answers.
func (s *badStream) Send(p *pb.Responses) error {
	switch s.b.fault("call") {
	case "huge":
		return s.raw(huge{})
	case "hostile":
		for _, r := range p.GetResponses() {
			s.b.spoil(r)
		}
	}
	return s.raw(p)
}

// spoil makes an answer one that no honest plugin gives, each time another.
func (b *bad) spoil(r *pb.Response) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spoiled++
	evil := []string{"ok\r\n250 2.0.0 fine\r\nRCPT TO:<eve@x>", "ok\x00", "5.7.2"}[b.spoiled%3]
	reply := &pb.Reply{Code: 250, Enhanced: "2.0.0", Text: evil}
	if evil == "5.7.2" {
		reply = &pb.Reply{Enhanced: evil}
	}
	switch v := r.GetResult().(type) {
	case *pb.Response_Identity:
		v.Identity.User = evil[:0] + strings.Repeat("\r\n", b.spoiled%2)
	case *pb.Response_Replies:
		for i := range v.Replies.Replies {
			v.Replies.Replies[i] = reply
		}
		if b.spoiled%4 == 0 {
			v.Replies.Replies = append(v.Replies.Replies, &pb.Reply{Code: 250})
		}
	case *pb.Response_Converted:
		v.Converted.Body, v.Converted.Content = 99, &pb.Content{Size: 1 << 62, Data: []byte(evil)}
	case *pb.Response_Notice:
		v.Notice.Action, v.Notice.Subject, v.Notice.Text, v.Notice.To = pb.NoticeAction_NOTICE_ACTION_RENDER, evil+"\r\nBcc: eve@x", evil+"\x00", evil
	case *pb.Response_Verdict:
		v.Verdict.Action, v.Verdict.Reply = pb.Action_ACTION_REJECT, reply
	default:
		r.Result = hostileResult()
	}
	if b.spoiled%5 == 0 {
		r.Seq ^= 1 << 40
	}
}

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

// badWords are what a good notifier says.
const badWords = "in the words of the plugin"

type badBounce struct{ b *bad }

// Bounce words the reports to its own sender, and has nothing to do with others.
func (n badBounce) Bounce(_ context.Context, f *mail.Failure) (mail.Notice, error) {
	if f.From.Local() != n.b.name {
		return mail.Notice{Action: mail.NoticeDefault}, nil
	}
	n.b.call()
	return mail.Notice{Action: mail.NoticeRender, Subject: badWords, Text: "It did not work.\n"}, nil
}

// badStore writes down what it is given, once.
type badStore struct{ b *bad }

func (s badStore) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	s.b.call()
	header, _, err := mail.ReadHeader(d.Content)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(mail.Reader(d.Content))
	if err != nil {
		return nil, err
	}
	replies := make([]mail.Reply, len(d.To))
	for i, r := range d.To {
		line := fmt.Sprintf("%s %s %s", r.Address, d.From, header.Get("Subject"))
		name := sha256.Sum256([]byte(d.ID + " " + r.Address.String()))
		if err := s.keep(filepath.Join(os.Getenv("BAD_LEDGER"), tagIn(content)), fmt.Sprintf("%x.stored", name), line); err != nil {
			return nil, err
		}
		replies[i] = mail.NewReply(250, "2.0.0", "stored")
	}
	return replies, nil
}

// keep writes a file whose name tells that it is there already.
func (s badStore) keep(dir, name, line string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name = filepath.Join(dir, name)
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	temp := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	if err := os.WriteFile(temp, []byte(line), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, name)
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
