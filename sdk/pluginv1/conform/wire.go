package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Wire returns the questions that go to every plugin: what comes of a later server, and of one that is broken.
func Wire() []Check {
	return []Check{
		{"future-fields", "Fields that a later server may send are ignored.",
			"do not refuse unknown fields: that is how v1 plugins run on every later server", checkFutureFields},
		{"future-calls", "A call that it does not know is answered with ERROR_KIND_UNSUPPORTED.",
			"answer what you do not know; an end of the stream fails every call under way", checkFutureCalls},
		{"garbage", "Frames that are no messages end at most their own stream; other calls are answered meanwhile and afterwards.",
			"let a frame that can't be decoded end the stream that it came on, and nothing else", faultCheck(Garbage)},
		{"oversize", "A frame of 64 MiB, and more content than a call has announced, end at most their own stream.",
			"set a limit for what is received, and stop reading at the size that content.size names", faultCheck(Oversize)},
	}
}

// checkFutureFields sends, all through, fields that nobody knows.
func checkFutureFields(ctx context.Context, e Examinee) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	ask := &pluginv1.DescribeRequest{}
	AddUnknown(ask.ProtoReflect())
	if _, err := pluginv1.NewPluginClient(p.Conn).Describe(ctx, ask); err != nil {
		return "", errors.New("Describe: " + calls.Printable(status.Convert(err).Message()))
	}
	defer p.Tap.rewrite(func(r *pluginv1.Request) { AddUnknown(r.ProtoReflect()) })()
	for _, k := range e.Kinds() {
		s := sampleOf(k)
		if err := p.still(ctx, s, legal(s.once(ctx, p.Client, plain(0)), false)); err != nil {
			return "", fmt.Errorf("%s: %w", k, err)
		}
	}
	return "", nil
}

// checkFutureCalls sends calls of a kind that comes later.
func checkFutureCalls(ctx context.Context, e Examinee) (string, error) {
	p, err := e.Plugin(ctx)
	if err != nil {
		return "", err
	}
	s := sampleOf(e.Kinds()[0])
	defer p.Tap.rewrite(func(r *pluginv1.Request) {
		r.Call = nil
		AddUnknown(r.ProtoReflect())
	})()
	err = s.once(ctx, p.Client, plain(0))
	if err == nil {
		err = errors.New("it was answered as if it were known")
	}
	if !errors.Is(err, calls.ErrUnsupported) {
		return "", p.whyNot(err)
	}
	p.Tap.rewrite(nil)
	return "", p.still(ctx, s, nil)
}

// faultCheck commits a fault and wants the plugin to go on.
func faultCheck(fault func(context.Context, grpc.ClientConnInterface) error) func(context.Context, Examinee) (string, error) {
	return func(ctx context.Context, e Examinee) (string, error) {
		p, err := e.Plugin(ctx)
		if err != nil {
			return "", err
		}
		err = fault(ctx, p.Conn)
		if err != nil {
			return "", p.whyNot(err)
		}
		return "", p.still(ctx, sampleOf(e.Kinds()[0]), nil)
	}
}

// Garbage sends frames that are no messages, each on a stream of its own. What the plugin makes of them is its own affair, as
// long as it goes on; the error is about the connection.
func Garbage(ctx context.Context, conn grpc.ClientConnInterface) error {
	frames := map[string][]byte{
		"bytes at random":            []byte("\xff\xfe\x00\x01garbage\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
		"a length beyond the end":    {0x0a, 0xff, 0xff, 0xff, 0x7f, 'x'},
		"a field of the wrong type":  {0x08, 0x01, 0x0d, 1, 2, 3, 4},
		"requests without end":       bytes.Repeat([]byte{0x0a}, 4096),
		"a request without a number": {0x0a, 0x02, 0x10, 0x05},
		"cancels of nobody":          {0x12, 0x03, 0x01, 0x02, 0x03},
	}
	for what, frame := range frames {
		for _, method := range []string{pluginv1.Plugin_Calls_FullMethodName, pluginv1.Plugin_Large_FullMethodName} {
			if err := sendRaw(ctx, conn, method, frame); err != nil {
				return fmt.Errorf("%s to %s: %w", what, method, err)
			}
		}
	}
	return nil
}

// Oversize sends a frame that is far larger than any of a server, and content that is larger than its call says.
func Oversize(ctx context.Context, conn grpc.ClientConnInterface) error {
	if err := sendRaw(ctx, conn, pluginv1.Plugin_Calls_FullMethodName, make([]byte, 64<<20)); err != nil {
		return fmt.Errorf("a frame of 64 MiB: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, Promptly)
	defer cancel()
	stream, err := pluginv1.NewPluginClient(conn).Large(ctx)
	if err != nil {
		return err
	}
	call := &pluginv1.MessageCall{Id: "check-oversize", Session: &pluginv1.Session{}, Envelope: &pluginv1.Envelope{},
		Content: &pluginv1.Content{Size: 100_000, Streamed: true}}
	err = stream.Send(&pluginv1.Frame{Part: &pluginv1.Frame_Request{Request: &pluginv1.Request{
		Seq: 1, TimeoutMs: uint32(Promptly.Milliseconds()), Call: &pluginv1.Request_Message{Message: call},
	}}})
	chunk := &pluginv1.Frame{Part: &pluginv1.Frame_Chunk{Chunk: make([]byte, 255<<10)}}
	for i := 0; i < 40 && err == nil; i++ {
		err = stream.Send(chunk)
	}
	_ = stream.CloseSend()
	_, _ = stream.Recv() // an answer, or the end of the stream: both are right
	return nil
}

// sendRaw sends one frame on a stream of its own and waits for its end, or for what comes first.
func sendRaw(ctx context.Context, conn grpc.ClientConnInterface, method string, frame []byte) error {
	ctx, cancel := context.WithTimeout(ctx, Promptly)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method,
		grpc.ForceCodecV2(raw{}), grpc.MaxCallSendMsgSize(len(frame)))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(frame); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_ = stream.CloseSend()
	var answer []byte
	_ = stream.RecvMsg(&answer)
	return nil
}

// raw is the codec of bytes that are to be sent as they are.
type raw struct{}

var _ encoding.CodecV2 = raw{}

// Marshal leaves the bytes as they are.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// Unmarshal takes what comes.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// Name is that of the codec that the plugin knows.
func (raw) Name() string { return "proto" }
