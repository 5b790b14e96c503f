package conform

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// Tap stands between a client and its connection: it changes requests on their way out, and knows which of them have been
// answered.
type Tap struct {
	grpc.ClientConnInterface
	client *calls.Client

	mu      sync.Mutex
	change  func(*pluginv1.Request)
	open    map[uint64]bool // sent and not answered
	changed chan struct{}   // has a token when open has changed
	left    int             // requests until reached is called
	reached func()
}

// rewrite changes requests from now on, until undo is called or another change takes its place.
func (t *Tap) rewrite(change func(*pluginv1.Request)) (undo func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change = change
	return func() { t.rewrite(nil) }
}

// await has reached called when n requests have been sent.
func (t *Tap) await(n int, reached func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left, t.reached = n, reached
}

// settled waits until all requests have been answered.
func (t *Tap) settled(ctx context.Context) error {
	timeout := time.After(Promptly)
	for {
		t.mu.Lock()
		n := len(t.open)
		t.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-t.changed:
		case <-t.client.Done():
			return errors.New("the stream of calls ended")
		case <-timeout:
			return fmt.Errorf("%d calls that were cancelled have not been answered after 2 s", n)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// NewStream opens a stream and listens in on it.
func (t *Tap) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := t.ClientConnInterface.NewStream(ctx, d, method, opts...)
	return tappedStream{s, t}, err
}

type tappedStream struct {
	grpc.ClientStream
	t *Tap
}

// SendMsg sends a batch of requests, changed.
func (s tappedStream) SendMsg(m any) error {
	batch, ok := m.(*pluginv1.Requests)
	if !ok {
		return s.ClientStream.SendMsg(m)
	}
	reached := s.t.sent(batch)
	err := s.ClientStream.SendMsg(m)
	if reached != nil {
		reached()
	}
	return err
}

func (t *Tap) sent(batch *pluginv1.Requests) (reached func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range batch.GetRequests() {
		t.open[r.GetSeq()] = true
		if t.change != nil {
			t.change(r)
		}
		if t.left--; t.left == 0 {
			reached = t.reached
		}
	}
	return reached
}

// RecvMsg receives a batch of responses.
func (s tappedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if batch, ok := m.(*pluginv1.Responses); ok && err == nil {
		s.t.mu.Lock()
		for _, r := range batch.GetResponses() {
			delete(s.t.open, r.GetSeq())
		}
		s.t.mu.Unlock()
		select {
		case s.t.changed <- struct{}{}:
		default:
		}
	}
	return err
}

// AddUnknown puts fields that no version knows into a message and all messages in it.
func AddUnknown(m protoreflect.Message) {
	b := protowire.AppendTag(m.GetUnknown(), 18000, protowire.VarintType)
	b = protowire.AppendVarint(b, 7)
	b = protowire.AppendTag(b, 18001, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte("from a later version\xff"))
	m.SetUnknown(b)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				AddUnknown(v.List().Get(i).Message())
			}
		default:
			AddUnknown(v.Message())
		}
		return true
	})
}
