package calls

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

type largeStream = grpc.BidiStreamingClient[pb.Frame, pb.Frame]

// callStream makes one call over a stream of its own. A plugin may answer before it has taken all of the content.
func (c *Client) callStream(ctx context.Context, q *question) (*pb.Response, mail.Content, error) {
	if c.Err() != nil {
		return nil, nil, c.lost()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q.req.TimeoutMs = timeoutMillis(ctx)
	stream, err := c.rpc.Large(ctx)
	if err != nil {
		return nil, nil, largeError(ctx, err)
	}
	sent := make(chan error, 1)
	go func() { sent <- sendLarge(stream, q) }()
	r, content, err := receiveLarge(stream, 4*q.large.Size()+1<<20)
	cancel()
	sendErr := <-sent
	if err == nil {
		return r, content, nil
	}
	if sendErr != nil && !errors.Is(sendErr, io.EOF) && ctx.Err() == nil {
		return nil, nil, sendErr
	}
	return nil, nil, largeError(ctx, err)
}

func sendLarge(stream largeStream, q *question) error {
	if err := stream.Send(&pb.Frame{Part: &pb.Frame_Request{Request: q.req}}); err != nil {
		return err
	}
	if requestContent(q.req).GetStreamed() {
		err := sendChunks(q.large, func(b []byte) error {
			return stream.Send(&pb.Frame{Part: &pb.Frame_Chunk{Chunk: b}})
		})
		if err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

func receiveLarge(stream largeStream, limit int64) (*pb.Response, mail.Content, error) {
	f, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	r := f.GetResponse()
	if r == nil {
		return nil, nil, &BadAnswer{"large", fmt.Errorf("the first frame holds no response")}
	}
	p := responseContent(r)
	if !p.GetStreamed() {
		return r, nil, nil
	}
	s, err := newSpool(p.GetSize(), limit)
	if err != nil {
		return nil, nil, &BadAnswer{"large", err}
	}
	for {
		f, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if err := s.write(f.GetChunk()); err != nil {
			return nil, nil, &BadAnswer{"large", err}
		}
	}
	content, err := s.content()
	if err != nil {
		return nil, nil, &BadAnswer{"large", err}
	}
	return r, content, nil
}

// largeError tells a lost connection from an end that the caller asked for.
func largeError(ctx context.Context, err error) error {
	var bad *BadAnswer
	switch {
	case errors.As(err, &bad):
		return err
	case status.Code(err) == codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case status.Code(err) == codes.Canceled && ctx.Err() != nil:
		return context.Cause(ctx)
	case status.Code(err) == codes.Unavailable || errors.Is(err, io.EOF):
		return lost(err)
	}
	return &Failed{Text: oneLine(status.Convert(err).Message(), maxReason)}
}

// responseContent returns the content of a response that follows in chunks, or its only one, or nil.
func responseContent(r *pb.Response) *pb.Content {
	switch v := r.GetResult().(type) {
	case *pb.Response_Converted:
		return v.Converted.GetContent()
	case *pb.Response_Verdict:
		for _, e := range v.Verdict.GetEdits() {
			if c := e.GetReplaceBody(); c.GetStreamed() {
				return c
			}
		}
	}
	return nil
}
