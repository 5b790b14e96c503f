package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Register adds a plugin to a gRPC server that the caller runs; a test in memory, for one. Dial connects to the host that
// Configure names; nil is a unix socket. Serve does all of it by itself.
func Register(r grpc.ServiceRegistrar, p Served, log *slog.Logger, dial func(ctx context.Context, socket string) (net.Conn, error)) {
	s := newServer(p, log)
	if dial != nil {
		s.dial = dial
	}
	pb.RegisterPluginServer(r, s)
}

// server serves a plugin's life: described, configured once, called, drained.
type server struct {
	pb.UnimplementedPluginServer
	calls   *calls.Server
	plugin  Served
	log     *slog.Logger
	drained chan struct{} // closed by the first Drain that has ended
	dial    func(context.Context, string) (net.Conn, error)
	files   bool // large contents may come by their descriptors

	mu    sync.Mutex
	value any   // nil until configured
	host  *host // of value; nil until New was called
}

func newServer(p Served, log *slog.Logger) *server {
	return &server{calls: calls.NewServer(log), plugin: p, log: log, drained: make(chan struct{}), dial: dialUnix}
}

// Describe says what the plugin is.
func (s *server) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	data, err := schemaJSON(s.plugin)
	if err != nil {
		return nil, err
	}
	a := s.plugin.About()
	return &pb.DescribeResponse{
		Name: a.Name, Version: a.Version, Doc: a.Doc, Sdk: "go/1", Kinds: kindsOf(s.plugin.kinds()), SchemaJson: data,
		TakesDescriptors: s.files,
	}, nil
}

func kindsOf(v any) (out []*pb.Kind) {
	for _, name := range calls.KindNames(v) {
		k := &pb.Kind{Name: name}
		if name == "message" {
			fill(k, v)
		}
		out = append(out, k)
	}
	return out
}

// Configure checks the configuration and, unless that is all, makes the plugin's value.
func (s *server) Configure(ctx context.Context, r *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.value != nil {
		return nil, errors.New("the plugin has been configured already")
	}
	config, problems := s.plugin.decode(r.GetConfigJson())
	if len(problems) > 0 {
		return &pb.ConfigureResponse{Diagnostics: diagnostics(problems)}, nil
	}
	if r.GetValidateOnly() {
		return &pb.ConfigureResponse{Kinds: kindsOf(s.plugin.kinds())}, nil
	}
	h, err := newHost(s.log, r, s.dial)
	if err != nil {
		return nil, err
	}
	v, err := s.plugin.start(ctx, config, h)
	if err != nil {
		h.close()
		return &pb.ConfigureResponse{Diagnostics: errorDiagnostics(err)}, nil
	}
	s.value, s.host = v, h
	s.calls.Use(v)
	return &pb.ConfigureResponse{Kinds: kindsOf(v)}, nil
}

func diagnostics(problems []schema.Problem) []*pb.Diagnostic {
	out := make([]*pb.Diagnostic, len(problems))
	for i, p := range problems {
		out[i] = &pb.Diagnostic{Severity: pb.Severity_SEVERITY_ERROR, Path: p.Path, Summary: p.Summary, Detail: p.Detail}
	}
	return out
}

func errorDiagnostics(err error) []*pb.Diagnostic {
	var problems Problems
	if errors.As(err, &problems) {
		return diagnostics(problems)
	}
	var problem schema.Problem
	if errors.As(err, &problem) {
		return diagnostics([]schema.Problem{problem})
	}
	return diagnostics([]schema.Problem{{Summary: err.Error()}})
}

// Calls answers batches of requests.
func (s *server) Calls(stream grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error {
	return s.calls.Calls(stream)
}

// Large answers one request with content in chunks.
func (s *server) Large(stream grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error {
	return s.calls.Large(stream)
}

// Drain waits for the calls that run, and closes the plugin's value if it can be closed.
func (s *server) Drain(ctx context.Context, r *pb.DrainRequest) (*pb.DrainResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.GetTimeoutMs())*time.Millisecond)
	defer cancel()
	n := s.calls.Drain(ctx)
	s.close()
	return &pb.DrainResponse{Unfinished: uint32(n)}, nil
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.drained:
		return
	default:
		close(s.drained)
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while closing", "panic", fmt.Sprint(p))
		}
	}()
	if c, ok := s.value.(io.Closer); ok {
		if err := c.Close(); err != nil {
			s.log.Error("closing", "error", err)
		}
	}
	if s.host != nil {
		s.host.close()
	}
}
