package calls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// HostClient asks the host of a plugin. It is Services, seen from the plugin; every call ends within HostTimeout.
type HostClient struct {
	rpc   pb.HostClient
	token string
}

// NewHostClient makes a client of a connection to a host.
func NewHostClient(conn grpc.ClientConnInterface, token string) *HostClient {
	return &HostClient{pb.NewHostClient(conn), token}
}

var _ Services = (*HostClient)(nil)

func (c *HostClient) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(metadata.AppendToOutgoingContext(ctx, tokenKey, c.token), HostTimeout)
}

// asked makes one call with a deadline and the token.
func asked[Q, A any](ctx context.Context, c *HostClient, call func(context.Context, Q, ...grpc.CallOption) (A, error), q Q) (A, error) {
	ctx, cancel := c.begin(ctx)
	defer cancel()
	a, err := call(ctx, q)
	return a, hostError(err)
}

// hostError turns the status of a call into an error that errors.Is can tell.
func hostError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	s := status.Convert(err)
	kind := map[codes.Code]error{
		codes.InvalidArgument: ErrLimit, codes.ResourceExhausted: ErrExhausted, codes.FailedPrecondition: ErrNotProvided,
		codes.DeadlineExceeded: context.DeadlineExceeded, codes.Canceled: context.Canceled,
	}[s.Code()]
	return &HostError{kind: kind, Text: oneLine(s.Message(), 2000)}
}

// HostError is why the host did not do what it was asked for.
type HostError struct {
	Text string
	kind error
}

// Error returns the host's words.
func (e *HostError) Error() string { return "the server: " + e.Text }

// Unwrap returns the kind of failure, such as ErrExhausted, or nil for trouble that may pass.
func (e *HostError) Unwrap() error { return e.kind }

// Get returns the value of a key.
func (c *HostClient) Get(ctx context.Context, key string) ([]byte, bool, error) {
	r, err := asked(ctx, c, c.rpc.KvGet, &pb.KvGetRequest{Key: []byte(key)})
	return r.GetValue(), r.GetFound(), err
}

// Set sets the value of a key.
func (c *HostClient) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := asked(ctx, c, c.rpc.KvSet, &pb.KvSetRequest{Key: []byte(key), Value: value, TtlMs: millis(ttl)})
	return err
}

// millis rounds up: what lives for a moment does not live for ever.
func millis(d time.Duration) int64 {
	if d > 0 {
		d += time.Millisecond - 1
	}
	return d.Milliseconds()
}

// Delete removes a key.
func (c *HostClient) Delete(ctx context.Context, key string) error {
	_, err := asked(ctx, c, c.rpc.KvDelete, &pb.KvDeleteRequest{Key: []byte(key)})
	return err
}

// Incr adds to a number.
func (c *HostClient) Incr(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error) {
	r, err := asked(ctx, c, c.rpc.KvIncr, &pb.KvIncrRequest{Key: []byte(key), By: by, TtlMs: millis(ttl)})
	return r.GetValue(), err
}

// CompareAndSet sets a key where it has the old value.
func (c *HostClient) CompareAndSet(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error) {
	r, err := asked(ctx, c, c.rpc.KvCompareAndSet, &pb.KvCompareAndSetRequest{Key: []byte(key), Old: old, New: new, TtlMs: millis(ttl)})
	return r.GetSwapped(), err
}

// Submit puts a new message into the queue and returns its ID.
func (c *HostClient) Submit(ctx context.Context, m *mail.Message) (string, error) {
	if m.Content == nil || m.Content.Size() > MaxSubmit {
		return "", limit("a submission has a content of at most %d bytes", MaxSubmit)
	}
	ctx, cancel := c.begin(ctx)
	defer cancel()
	stream, err := c.rpc.Submit(ctx)
	if err != nil {
		return "", hostError(err)
	}
	err = stream.Send(&pb.SubmitRequest{Part: &pb.SubmitRequest_Envelope{Envelope: putEnvelope(&m.Envelope)}})
	if err == nil {
		err = sendChunks(m.Content, func(b []byte) error {
			return stream.Send(&pb.SubmitRequest{Part: &pb.SubmitRequest_Chunk{Chunk: b}})
		})
	}
	if err != nil && !errors.Is(err, io.EOF) { // after EOF the answer says why
		return "", hostError(err)
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return "", hostError(err)
	}
	if r.GetError() != nil {
		return "", takeError(r.GetError())
	}
	return r.GetId(), nil
}

// Authenticate asks whether a login is right.
func (c *HostClient) Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error) {
	q := &pb.AuthenticateRequest{Login: askAuthenticate(login).req.GetAuthenticate()}
	r, err := asked(ctx, c, c.rpc.Authenticate, q)
	if err != nil {
		return mail.Identity{}, err
	}
	if r.GetError() != nil {
		return mail.Identity{}, takeError(r.GetError())
	}
	return takeIdentity(r.GetIdentity())
}

func (c *HostClient) resolve(ctx context.Context, kind pb.RecordType, name string) (*pb.ResolveResponse, error) {
	r, err := asked(ctx, c, c.rpc.Resolve, &pb.ResolveRequest{Type: kind, Name: text(name)})
	if err == nil && r.GetNotFound() {
		err = fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return r, err
}

// MX returns the hosts that take mail for a domain.
func (c *HostClient) MX(ctx context.Context, domain string) (list []mail.MX, err error) {
	r, err := c.resolve(ctx, pb.RecordType_RECORD_TYPE_MX, domain)
	for _, mx := range r.GetMx() {
		list = append(list, mail.MX{Host: mx.GetHost(), Pref: uint16(mx.GetPreference())})
	}
	return list, err
}

// Addresses returns the addresses of a host.
func (c *HostClient) Addresses(ctx context.Context, host string) (list []netip.Addr, err error) {
	r, err := c.resolve(ctx, pb.RecordType_RECORD_TYPE_ADDRESS, host)
	if err != nil {
		return nil, err
	}
	for _, s := range r.GetAddresses() {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// TXT returns the text records of a name.
func (c *HostClient) TXT(ctx context.Context, name string) (list []string, err error) {
	r, err := c.resolve(ctx, pb.RecordType_RECORD_TYPE_TXT, name)
	for _, b := range r.GetTexts() {
		list = append(list, string(b))
	}
	return list, err
}

// Report tells of changes of metrics.
func (c *HostClient) Report(ctx context.Context, samples []Sample) error {
	q := &pb.ReportRequest{Samples: make([]*pb.Sample, len(samples))}
	for i, s := range samples {
		p := &pb.Sample{Name: s.Name, Change: &pb.Sample_Add{Add: s.Value}}
		if s.Gauge {
			p.Change = &pb.Sample_Set{Set: s.Value}
		}
		q.Samples[i] = p
	}
	_, err := asked(ctx, c, c.rpc.Report, q)
	return err
}
