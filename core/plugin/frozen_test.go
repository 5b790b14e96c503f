package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/pabal-mta/mta/sdk/mail"
)

// frozen is a plugin that was made when the wire had its first form. It knows no message, no field and no kind but those of
// that form, which are read from the descriptors that were kept of it; nothing of today's SDK is in it.
type frozen struct{ file protoreflect.FileDescriptor }

// frozenAnswers are what it says to each call but store, as JSON of the response.
var frozenAnswers = map[string]string{
	"authenticate": `{"identity": {"user": "ann"}}`,
	"convert":      `{"converted": {}}`,
	"bounce":       `{"notice": {"action": "NOTICE_ACTION_DEFAULT"}}`,
	"connect":      `{"verdict": {"action": "ACTION_CONTINUE"}}`,
	"helo":         `{"verdict": {"action": "ACTION_CONTINUE"}}`,
	"mail":         `{"verdict": {"action": "ACTION_CONTINUE"}}`,
	"rcpt":         `{"verdict": {"action": "ACTION_REJECT", "reply": {"code": 550, "enhanced": "5.7.1", "text": "as ever"}}}`,
	"message":      `{"verdict": {"action": "ACTION_CONTINUE", "edits": [{"add_header": {"name": "X-Frozen", "value": "IHllcw=="}}]}}`,
}

const frozenKinds = `[{"name": "authenticator"}, {"name": "store"}, {"name": "converter"}, {"name": "bounce"}, {"name": "connect"}, {"name": "helo"},
	{"name": "mail"}, {"name": "rcpt"}, {"name": "message", "header": true, "body": true}]`

func beFrozen() {
	data, err := os.ReadFile(os.Getenv("FROZEN"))
	if err != nil {
		panic(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		panic(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		panic(err)
	}
	file, err := files.FindFileByPath("plugin.proto")
	if err != nil {
		panic(err)
	}
	f := &frozen{file}
	serveAsAny("", func(s *grpc.Server) { s.RegisterService(f.service(), nil) })
}

func (f *frozen) service() *grpc.ServiceDesc {
	unary := func(name, in string, answer func(protoreflect.Message) *dynamicpb.Message) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			q := f.message(in, "{}")
			if err := decode(q); err != nil {
				return nil, err
			}
			return answer(q), nil
		}}
	}
	return &grpc.ServiceDesc{
		ServiceName: "mta.plugin.v1.Plugin", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Describe", "DescribeRequest", func(protoreflect.Message) *dynamicpb.Message {
				return f.message("DescribeResponse", `{"name": "frozen", "version": "1", "schema_json": "e30=", "kinds": `+frozenKinds+`}`)
			}),
			unary("Configure", "ConfigureRequest", f.configure),
			unary("Drain", "DrainRequest", func(protoreflect.Message) *dynamicpb.Message { return f.message("DrainResponse", "{}") }),
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "Calls", ClientStreams: true, ServerStreams: true, Handler: f.calls},
			{StreamName: "Large", ClientStreams: true, ServerStreams: true, Handler: f.large},
		},
	}
}

// message makes a message of its JSON.
func (f *frozen) message(name, text string) *dynamicpb.Message {
	m := dynamicpb.NewMessage(f.file.Messages().ByName(protoreflect.Name(name)))
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		panic(err)
	}
	return m
}

func get(m protoreflect.Message, field string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(field)))
}

func (f *frozen) configure(q protoreflect.Message) *dynamicpb.Message {
	var given map[string]any
	if err := json.Unmarshal(get(q, "config_json").Bytes(), &given); err != nil {
		return f.message("ConfigureResponse", `{"diagnostics": [{"severity": "SEVERITY_ERROR", "summary": "no object"}]}`)
	}
	for name := range given {
		return f.message("ConfigureResponse", `{"diagnostics": [{"severity": "SEVERITY_ERROR", "path": ["`+name+`"], "summary": "unknown"}]}`)
	}
	return f.message("ConfigureResponse", `{"kinds": `+frozenKinds+`}`)
}

// answer is the response to a request.
func (f *frozen) answer(q protoreflect.Message) *dynamicpb.Message {
	text := `{"error": {"kind": "ERROR_KIND_UNSUPPORTED"}}`
	if call := q.WhichOneof(q.Descriptor().Oneofs().ByName("call")); call != nil {
		if text = frozenAnswers[string(call.Name())]; text == "" {
			text = f.stored(get(q, "store").Message())
		}
	}
	r := f.message("Response", text)
	r.Set(r.Descriptor().Fields().ByName("seq"), get(q, "seq"))
	return r
}

// stored has one reply for each recipient.
func (f *frozen) stored(d protoreflect.Message) string {
	one := `{"code": 250, "enhanced": "2.0.0", "text": "kept"}`
	list := bytes.Repeat([]byte(","+one), get(d, "to").List().Len())
	return `{"replies": {"replies": [` + string(bytes.TrimPrefix(list, []byte(","))) + `]}}`
}

func (f *frozen) calls(_ any, s grpc.ServerStream) error {
	for {
		batch := f.message("Requests", "{}")
		if err := s.RecvMsg(batch); err != nil {
			return ended(err)
		}
		answers := f.message("Responses", "{}")
		list := answers.Mutable(answers.Descriptor().Fields().ByName("responses")).List()
		requests := get(batch, "requests").List()
		for i := range requests.Len() {
			list.Append(protoreflect.ValueOfMessage(f.answer(requests.Get(i).Message())))
		}
		if err := s.SendMsg(answers); err != nil {
			return err
		}
	}
}

func (f *frozen) large(_ any, s grpc.ServerStream) error {
	var request protoreflect.Message
	for {
		frame := f.message("Frame", "{}")
		err := s.RecvMsg(frame)
		if err == nil && frame.Has(frame.Descriptor().Fields().ByName("request")) {
			request = get(frame, "request").Message()
		}
		if err == io.EOF && request != nil {
			break
		}
		if err != nil {
			return ended(err)
		}
	}
	answer := f.message("Frame", "{}")
	answer.Set(answer.Descriptor().Fields().ByName("response"), protoreflect.ValueOfMessage(f.answer(request)))
	return s.SendMsg(answer)
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestFrozen runs a plugin of the first form of v1 on this server.
func TestFrozen(t *testing.T) {
	path, err := filepath.Abs("../../sdk/pluginv1/testdata/v1-first.binpb")
	if err != nil {
		t.Fatal(err)
	}
	s := spec(t, "frozen")
	s.Env = append(s.Env, "FROZEN="+path)
	p := start(t, s)
	if v, err := rcpt(t.Context(), p, "ann"); err != nil || v.Reply.Text != "as ever" {
		t.Error(v, err)
	}
	to := []mail.Recipient{{Address: mail.MustParseAddress("a@x.example")}, {Address: mail.MustParseAddress("b@x.example")}}
	for _, size := range []int{10, 1 << 20} {
		content := mail.Bytes(append([]byte("Subject: x\r\n\r\n"), bytes.Repeat([]byte("x"), size)...))
		v, err := p.Message(t.Context(), &mail.Session{ID: "s"}, &mail.Message{ID: "m", Envelope: mail.Envelope{To: to}, Content: content})
		if err != nil || !slices.Equal(v.Edits, []mail.Edit{mail.AddHeader{Name: "X-Frozen", Value: " yes"}}) {
			t.Error(v, err)
		}
		if replies, err := p.Store(t.Context(), &mail.Delivery{ID: "d", To: to, Content: content}); err != nil || len(replies) != 2 {
			t.Error(replies, err)
		}
	}
	if id, err := p.Authenticate(t.Context(), mail.Login{User: "ann"}); err != nil || id.User != "ann" {
		t.Error(id, err)
	}
	if testing.Short() {
		return // its many processes are slow to start with the race detector
	}
	c, err := Conform(t.Context(), s, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Checks {
		if f.Result == Failing {
			t.Errorf("%+v", f)
		}
	}
}
