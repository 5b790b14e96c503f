package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// TestConform has each mutant of a plugin break one rule, and wants the check of that rule, and no other, to fail.
func TestConform(t *testing.T) {
	for mode, want := range map[string]string{
		"":              "", // the SDK itself
		"honest":        "", // the same, served without go-plugin
		"greets":        "handshake",
		"sick":          "health",
		"moody":         "describe",
		"schema":        "schema",
		"credulous":     "bad-config",
		"blind":         "bad-config",
		"promises":      "configure",
		"strict":        "future-fields",
		"brittle":       "future-calls",
		"stiff":         "future-config",
		"fragile":       "garbage",
		"narrow-minded": "oversize",
		"illegal":       "rcpt/answers",
		"one":           "rcpt/parallel",
		"late":          "rcpt/deadline",
		"forgets":       "rcpt/cancel",
		"ascii":         "message/hostile",
		"small":         "message/large",
		"narrow":        "message/needs",
		"mortal":        "sigterm",
		"busy":          "drain",
		"stays":         "drain",
		"orphan":        "lifeline",
		"prints":        "stdout",
		"later":         "configure", // all that it can do is of a later version

		"observer":       "", // nothing but an observer
		"observer-mute":  "observer/answers",
		"observer-one":   "observer/parallel",
		"observer-small": "observer/hostile",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			if want != "" && testing.Short() {
				t.Skip("a mutant, whose processes are slow to start with the race detector; it is tried without -short")
			}
			c, err := Conform(t.Context(), spec(t, "rogue:"+mode), Options{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, f := range c.Checks {
				if f.Result == Failing {
					failed = append(failed, f.Name)
					if f.Proves == "" || f.Detail == "" || f.Hint == "" {
						t.Errorf("%+v leaves something unsaid", f)
					}
				}
			}
			if kind, _, _ := strings.Cut(mode, "-"); kind == "observer" && !slices.ContainsFunc(c.Checks, func(f Finding) bool { return f.Name == "observer/hostile" }) {
				t.Errorf("an observer was not asked as one: %+v", c)
			}
			// What a rule is broken by may break a later check too; the first must be the one that names it.
			if first := strings.Join(failed[:min(1, len(failed))], ""); first != want || want == "" && len(c.Checks) < 18 {
				t.Errorf("failed: %v; want %q first; %+v", failed, want, c)
			}
		})
	}
}

// beRogue serves a plugin over gRPC as a program in any language would, and breaks the rule that mode names.
func beRogue(mode string) {
	served := sdk.Of(sdk.Plugin[faultyConfig]{Name: "rogue", Version: "1", Kinds: rogueValue{}, New: newRogue(mode)})
	if strings.HasPrefix(mode, "observer") {
		served = sdk.Of(sdk.Plugin[faultyConfig]{Name: "rogue", Version: "1", Kinds: rogueObserver{}, New: newRogue(mode)})
	}
	if mode == "" {
		sdk.ServeAny(served)
		return
	}
	if mode == "greets" {
		fmt.Println("Welcome!")
	}
	var honest grab
	sdk.Register(&honest, served, slog.New(slog.DiscardHandler), nil)
	serveAsAny(mode, func(s *grpc.Server) { pb.RegisterPluginServer(s, &rogue{PluginServer: honest.server, mode: mode}) })
}

// serveAsAny serves as a program in any language would.
func serveAsAny(mode string, register func(*grpc.Server)) {
	signals := make(chan os.Signal, 2)
	if mode != "mortal" {
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	}
	if mode != "orphan" {
		go func() {
			_, _ = io.Copy(io.Discard, os.NewFile(lifelineFD, "lifeline"))
			os.Exit(1)
		}()
	}
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin-rogue")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	s := grpc.NewServer(calls.ServerOptions()...)
	register(s)
	h := health.NewServer()
	if mode != "sick" {
		h.SetServingStatus("plugin", grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(s, h)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "plugin.GRPCController", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Shutdown", Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			if mode != "stays" {
				os.Exit(0)
			}
			return &pb.DrainRequest{}, nil
		}}},
	}, nil)
	fmt.Printf("1|1|unix|%s|grpc|\n", path)
	if mode == "prints" {
		fmt.Println("I am up")
	}
	_ = s.Serve(l)
}

// grab takes the server of the SDK out of its registration.
type grab struct{ server pb.PluginServer }

func (g *grab) RegisterService(_ *grpc.ServiceDesc, impl any) { g.server = impl.(pb.PluginServer) }

type rogue struct {
	pb.PluginServer
	mode string
}

func (r *rogue) Describe(ctx context.Context, q *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	if r.mode == "strict" && len(q.ProtoReflect().GetUnknown()) > 0 {
		return nil, errors.New("what is this?")
	}
	res, err := r.PluginServer.Describe(ctx, q)
	switch r.mode {
	case "moody":
		res.Doc = time.Now().String()
	case "schema":
		res.SchemaJson = []byte(`{"attributes":[{"name":"Delay","type":"time"}]}`)
	case "later":
		res.Kinds = nil
	case "promises":
		res.Kinds = append(res.Kinds, &pb.Kind{Name: "store"})
	}
	return res, err
}

func (r *rogue) Configure(ctx context.Context, q *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	res, err := r.PluginServer.Configure(ctx, q)
	switch r.mode {
	case "stiff":
		if len(q.ProtoReflect().GetUnknown()) > 0 {
			return nil, errors.New("what is this?")
		}
	case "credulous":
		if q.GetValidateOnly() {
			res.Diagnostics = nil
		}
	case "narrow":
		for _, k := range res.GetKinds() {
			k.Header, k.HeaderNames = false, []string{"Subject"}
		}
	case "later":
		if !q.GetValidateOnly() {
			res.Kinds = []*pb.Kind{{Name: "dreamer"}}
		}
	case "blind":
		for _, d := range res.GetDiagnostics() {
			d.Path = nil
		}
	}
	return res, err
}

func (r *rogue) Drain(ctx context.Context, q *pb.DrainRequest) (*pb.DrainResponse, error) {
	if r.mode == "busy" {
		return &pb.DrainResponse{Unfinished: 3}, nil
	}
	return r.PluginServer.Drain(ctx, q)
}

func (r *rogue) Calls(s grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error {
	return r.PluginServer.Calls(rogueStream{s, r.mode})
}

func (r *rogue) Large(s grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error {
	if r.mode == "small" {
		return errors.New("too large for me")
	}
	return r.PluginServer.Large(s)
}

// rogueStream spoils requests and answers on their way.
type rogueStream struct {
	grpc.BidiStreamingServer[pb.Requests, pb.Responses]
	mode string
}

func (s rogueStream) Recv() (*pb.Requests, error) {
	q, err := s.BidiStreamingServer.Recv()
	if code := status.Code(err); s.mode == "fragile" && code == codes.Internal || s.mode == "narrow-minded" && code == codes.ResourceExhausted {
		os.Exit(5)
	}
	if s.mode == "brittle" && err == nil && slices.ContainsFunc(q.GetRequests(), func(r *pb.Request) bool { return r.GetCall() == nil }) {
		return nil, errors.New("an unknown call")
	}
	return q, err
}

func (s rogueStream) Send(p *pb.Responses) error {
	keep := slices.DeleteFunc(p.GetResponses(), func(r *pb.Response) bool {
		kind := r.GetError().GetKind()
		return kind == pb.ErrorKind_ERROR_KIND_TIMEOUT && s.mode == "late" || r.GetError().GetText() == "context canceled" && s.mode == "forgets"
	})
	for _, r := range keep {
		if s.mode == "illegal" && r.GetVerdict() != nil {
			r.GetVerdict().Action = pb.Action_ACTION_UNSPECIFIED
		}
		if s.mode == "observer-mute" && r.GetObserved() != nil {
			r.Result = nil
		}
	}
	return s.BidiStreamingServer.Send(&pb.Responses{Responses: keep})
}

type (
	rogueValue    struct{ rogueWork }
	rogueObserver struct{ rogueWork }
)

type rogueWork struct {
	mode string
	one  chan struct{}
}

func newRogue(mode string) func(context.Context, faultyConfig, sdk.Host) (any, error) {
	return func(context.Context, faultyConfig, sdk.Host) (any, error) {
		w := rogueWork{mode, make(chan struct{}, 1)}
		if strings.HasPrefix(mode, "observer") {
			return rogueObserver{w}, nil
		}
		return rogueValue{w}, nil
	}
}

// work takes its time.
func (w rogueWork) work(ctx context.Context) error {
	if strings.HasSuffix(w.mode, "one") {
		select {
		case w.one <- struct{}{}:
			defer func() { <-w.one }()
		default:
			return errors.New("one at a time, please")
		}
	}
	took := 2 * time.Millisecond
	if w.mode == "late" || w.mode == "forgets" {
		took = 30 * time.Millisecond
	}
	select {
	case <-time.After(took):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v rogueValue) Rcpt(ctx context.Context, _ *mail.Session, _ mail.Recipient) (mail.Verdict, error) {
	return mail.Continue(), v.work(ctx)
}

func (v rogueObserver) Observe(ctx context.Context, events []mail.Event) error {
	if v.mode == "observer-small" && len(events) > 100 {
		panic("so many?")
	}
	return v.work(ctx)
}

func (v rogueValue) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	b, err := io.ReadAll(mail.Reader(m.Content))
	if v.mode == "ascii" && strings.ContainsFunc(string(b), func(c rune) bool { return c > 127 }) {
		panic("what are these?")
	}
	return mail.Continue(), err
}
