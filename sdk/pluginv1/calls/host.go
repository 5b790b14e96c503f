package calls

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// Limits of what a plugin may ask of its host.
const (
	MaxKey     = 512
	MaxValue   = 64 << 10
	MaxSubmit  = 8 << 20 // bytes of one message
	MaxSeries  = 100     // metrics of one plugin
	maxTTL     = 10 * 365 * 24 * time.Hour
	maxSamples = MaxSeries
	maxFrame   = chunkSize + 64<<10 // of what a plugin sends; an envelope of a thousand recipients fits
	maxTo      = 1000
)

// HostTimeout bounds a call to the host where the caller sets no shorter time.
const HostTimeout = 30 * time.Second

// hostConcurrency bounds the calls of one plugin that the host works on; others wait for their turn.
const hostConcurrency = 64

// tokenKey is the metadata that holds the token.
const tokenKey = "mta-host-token"

// The kinds of failure of a host. Test for them with errors.Is.
var (
	ErrLimit       = errors.New("a limit is broken")               // a key, value, name or message that is too big or illegal
	ErrExhausted   = errors.New("the plugin's share is used up")   // of storage, or of messages per second
	ErrNotProvided = errors.New("mta.hcl does not provide it")     // such as an authenticator
	ErrNotFound    = errors.New("the name has no such record")     // in the DNS
	ErrNotNumber   = errors.New("the value there is not a number") // of Incr
)

// Services is what a host does for one plugin. Keys, values, names and envelopes have been checked against the limits.
type Services interface {
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	Delete(ctx context.Context, key string) error
	Incr(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error)
	// CompareAndSet takes nil for "there is none", as the old value and as the new.
	CompareAndSet(ctx context.Context, key string, old, new []byte, ttl time.Duration) (bool, error)
	Submit(ctx context.Context, m *mail.Message) (id string, err error)
	Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error)
	MX(ctx context.Context, domain string) ([]mail.MX, error)
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
	TXT(ctx context.Context, name string) ([]string, error)
	Report(ctx context.Context, samples []Sample) error
}

// Sample is a change of a metric: it is added to a counter, or it is what a gauge is set to.
type Sample struct {
	Name  string
	Gauge bool
	Value float64
}

var metricName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// IsMetricName reports whether a metric may have the name.
func IsMetricName(name string) bool { return metricName.MatchString(name) }

// NewHostServer makes the gRPC server that does services for one plugin: for who knows the token, within limits of
// time, memory and concurrency that no plugin can exceed.
func NewHostServer(s Services, token string) *grpc.Server {
	g := &gate{token: token, slots: make(chan struct{}, hostConcurrency)}
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxFrame), grpc.MaxSendMsgSize(16<<20), grpc.MaxConcurrentStreams(hostConcurrency),
		grpc.InitialWindowSize(64<<10), grpc.InitialConnWindowSize(1<<20), grpc.MaxHeaderListSize(16<<10),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (res any, err error) {
			err = g.pass(ctx, func(ctx context.Context) error {
				res, err = handle(ctx, req)
				return err
			})
			return res, err
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return g.pass(stream.Context(), func(ctx context.Context) error { return whileLive(ctx, srv, stream, handle) })
		}),
	)
	pb.RegisterHostServer(srv, &hostServer{s: s, spool: make(chan struct{}, 1)})
	return srv
}

// gate lets calls through that have the token, so many at a time, each with a deadline.
type gate struct {
	token string
	slots chan struct{}
}

func (g *gate) pass(ctx context.Context, call func(context.Context) error) (err error) {
	given := metadata.ValueFromIncomingContext(ctx, tokenKey)
	if len(given) != 1 || subtle.ConstantTimeCompare([]byte(given[0]), []byte(g.token)) != 1 {
		return status.Error(codes.Unauthenticated, "this is another plugin's host")
	}
	ctx, cancel := context.WithTimeout(ctx, HostTimeout)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	defer func() {
		if p := recover(); p != nil {
			err = status.Errorf(codes.Internal, "the host failed: %v", p)
		}
	}()
	return hostStatus(call(ctx))
}

// bounded is a stream whose context has a deadline of ours.
type bounded struct {
	grpc.ServerStream
	ctx context.Context
}

func (b bounded) Context() context.Context { return b.ctx }

// whileLive handles a stream until ctx ends: a plugin that sends nothing more would else be waited for. Returning ends
// the stream, and with it the handler.
func whileLive(ctx context.Context, srv any, stream grpc.ServerStream, handle grpc.StreamHandler) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- status.Errorf(codes.Internal, "the host failed: %v", p)
			}
		}()
		done <- handle(srv, bounded{stream, ctx})
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hostStatus turns an error of a service into the status that goes over the wire.
func hostStatus(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Unavailable
	switch {
	case errors.Is(err, ErrLimit), errors.Is(err, ErrNotNumber):
		code = codes.InvalidArgument
	case errors.Is(err, ErrExhausted):
		code = codes.ResourceExhausted
	case errors.Is(err, ErrNotProvided):
		code = codes.FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	default:
		if s, ok := status.FromError(err); ok {
			return s.Err()
		}
	}
	return status.Error(code, text(oneLine(err.Error(), 2000)))
}

func limit(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrLimit}, args...)...)
}

// hostServer turns messages into calls of Services.
type hostServer struct {
	pb.UnimplementedHostServer
	s     Services
	spool chan struct{} // held while a message comes in: one at a time
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKey {
		return limit("a key has 1 to %d bytes, this one has %d", MaxKey, len(key))
	}
	return nil
}

func checkEntry(key, value []byte, ms int64) (ttl time.Duration, err error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if len(value) > MaxValue {
		return 0, limit("a value has at most %d bytes, this one has %d", MaxValue, len(value))
	}
	if ms < 0 || ms > maxTTL.Milliseconds() {
		return 0, limit("a time to live is not negative and at most ten years")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (h *hostServer) KvGet(ctx context.Context, r *pb.KvGetRequest) (*pb.KvGetResponse, error) {
	if err := checkKey(r.GetKey()); err != nil {
		return nil, err
	}
	v, found, err := h.s.Get(ctx, string(r.GetKey()))
	return &pb.KvGetResponse{Found: found, Value: v}, err
}

func (h *hostServer) KvSet(ctx context.Context, r *pb.KvSetRequest) (*pb.KvSetResponse, error) {
	ttl, err := checkEntry(r.GetKey(), r.GetValue(), r.GetTtlMs())
	if err != nil {
		return nil, err
	}
	return &pb.KvSetResponse{}, h.s.Set(ctx, string(r.GetKey()), r.GetValue(), ttl)
}

func (h *hostServer) KvDelete(ctx context.Context, r *pb.KvDeleteRequest) (*pb.KvDeleteResponse, error) {
	if err := checkKey(r.GetKey()); err != nil {
		return nil, err
	}
	return &pb.KvDeleteResponse{}, h.s.Delete(ctx, string(r.GetKey()))
}

func (h *hostServer) KvIncr(ctx context.Context, r *pb.KvIncrRequest) (*pb.KvIncrResponse, error) {
	ttl, err := checkEntry(r.GetKey(), nil, r.GetTtlMs())
	if err != nil {
		return nil, err
	}
	v, err := h.s.Incr(ctx, string(r.GetKey()), r.GetBy(), ttl)
	return &pb.KvIncrResponse{Value: v}, err
}

func (h *hostServer) KvCompareAndSet(ctx context.Context, r *pb.KvCompareAndSetRequest) (*pb.KvCompareAndSetResponse, error) {
	ttl, err := checkEntry(r.GetKey(), r.GetNew(), r.GetTtlMs())
	if err != nil {
		return nil, err
	}
	ok, err := h.s.CompareAndSet(ctx, string(r.GetKey()), present(r.Old), present(r.New), ttl)
	return &pb.KvCompareAndSetResponse{Swapped: ok}, err
}

// present keeps an empty value apart from none: protobuf may decode both to nothing.
func present(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

func (h *hostServer) Submit(stream grpc.ClientStreamingServer[pb.SubmitRequest, pb.SubmitResponse]) error {
	ctx := stream.Context()
	select {
	case h.spool <- struct{}{}:
		defer func() { <-h.spool }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m, err := takeSubmission(stream)
	if err != nil {
		return err
	}
	id, err := h.s.Submit(ctx, m)
	var reply *mail.Reply
	if errors.As(err, &reply) {
		return stream.SendAndClose(&pb.SubmitResponse{Error: answerError(err).res.GetError()})
	}
	if err != nil {
		return err
	}
	return stream.SendAndClose(&pb.SubmitResponse{Id: id})
}

func takeSubmission(stream grpc.ClientStreamingServer[pb.SubmitRequest, pb.SubmitResponse]) (*mail.Message, error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if first.GetEnvelope() == nil {
		return nil, limit("a submission begins with its envelope")
	}
	m := new(mail.Message)
	if m.Envelope, err = takeEnvelope(first.GetEnvelope()); err != nil {
		return nil, limit("the envelope: %w", err)
	}
	if n := len(m.Envelope.To); n == 0 || n > maxTo {
		return nil, limit("a message has 1 to %d recipients, this one has %d", maxTo, n)
	}
	var content []byte
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			m.Content = mail.Bytes(content)
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		if len(content)+len(part.GetChunk()) > MaxSubmit {
			return nil, limit("a message has at most %d bytes", MaxSubmit)
		}
		content = append(content, part.GetChunk()...)
	}
}

func (h *hostServer) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	login, err := takeLogin(r.GetLogin())
	if err != nil {
		return nil, limit("%w", err)
	}
	id, err := h.s.Authenticate(ctx, login)
	switch {
	case errors.Is(err, mail.ErrBadLogin):
		return &pb.AuthenticateResponse{Error: answerError(err).res.GetError()}, nil
	case err != nil:
		return nil, err
	}
	return &pb.AuthenticateResponse{Identity: answerIdentity(id).res.GetIdentity()}, nil
}

func (h *hostServer) Resolve(ctx context.Context, r *pb.ResolveRequest) (*pb.ResolveResponse, error) {
	if n := len(r.GetName()); n == 0 || n > 255 || hasControl(r.GetName()) {
		return nil, limit("%q is no name", oneLine(r.GetName(), 300))
	}
	res, err := h.resolve(ctx, r)
	if errors.Is(err, ErrNotFound) {
		return &pb.ResolveResponse{NotFound: true}, nil
	}
	return res, err
}

func (h *hostServer) resolve(ctx context.Context, r *pb.ResolveRequest) (*pb.ResolveResponse, error) {
	res := new(pb.ResolveResponse)
	switch r.GetType() {
	case pb.RecordType_RECORD_TYPE_MX:
		list, err := h.s.MX(ctx, r.GetName())
		for _, mx := range list {
			res.Mx = append(res.Mx, &pb.MxHost{Host: text(mx.Host), Preference: uint32(mx.Pref)})
		}
		return res, err
	case pb.RecordType_RECORD_TYPE_ADDRESS:
		list, err := h.s.Addresses(ctx, r.GetName())
		for _, a := range list {
			res.Addresses = append(res.Addresses, a.String())
		}
		return res, err
	case pb.RecordType_RECORD_TYPE_TXT:
		list, err := h.s.TXT(ctx, r.GetName())
		for _, s := range list {
			res.Texts = append(res.Texts, []byte(s))
		}
		return res, err
	}
	return nil, limit("the record type %d", r.GetType())
}

func (h *hostServer) Report(ctx context.Context, r *pb.ReportRequest) (*pb.ReportResponse, error) {
	if len(r.GetSamples()) > maxSamples {
		return nil, limit("%d samples, more than %d", len(r.GetSamples()), maxSamples)
	}
	samples := make([]Sample, len(r.GetSamples()))
	for i, p := range r.GetSamples() {
		s := Sample{Name: p.GetName()}
		switch c := p.GetChange().(type) {
		case *pb.Sample_Add:
			s.Value = c.Add
		case *pb.Sample_Set:
			s.Value, s.Gauge = c.Set, true
		default:
			return nil, limit("a sample of %q without a change", oneLine(s.Name, 100))
		}
		if !IsMetricName(s.Name) || !s.Gauge && !(s.Value >= 0) {
			return nil, limit("the sample %q %v", oneLine(s.Name, 100), s.Value)
		}
		samples[i] = s
	}
	return &pb.ReportResponse{}, h.s.Report(ctx, samples)
}
