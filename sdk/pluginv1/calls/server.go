package calls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

// ServerOptions are what a plugin's gRPC server needs: room for a header of a megabyte in a request, and windows for
// bodies.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(16 << 20),
		grpc.InitialWindowSize(1 << 20), grpc.InitialConnWindowSize(4 << 20),
		grpc.ReadBufferSize(128 << 10), grpc.WriteBufferSize(128 << 10),
	}
}

// Server answers calls with the methods that a value has. Each call runs in a goroutine of its own, and a panic in it is
// the error of that call.
type Server struct {
	log     *slog.Logger
	value   atomic.Pointer[any]
	take    func(token uint64) (*os.File, error) // nil: all contents come in chunks
	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when running falls to 0; nil when nobody waits for that
}

// NewServer makes a server that has nothing to answer with yet.
func NewServer(log *slog.Logger) *Server {
	s := &Server{log: log}
	s.Use(nil)
	return s
}

// Use sets the value whose methods answer. It is called before the first call.
func (s *Server) Use(value any) { s.value.Store(&value) }

// Calls answers one stream of batches until the other side ends it.
func (s *Server) Calls(stream grpc.BidiStreamingServer[pb.Requests, pb.Responses]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	out := newOutbox[*answer]()
	sent := make(chan error, 1)
	go func() {
		sent <- out.run(ctx, func(list []*answer) error {
			return splitByBytes(list, func(a *answer) int { return a.bytes }, func(part []*answer) error { return sendAnswers(stream, part) })
		})
	}()
	live := &liveCalls{cancel: make(map[uint64]context.CancelFunc)}
	w := &workers{ctx: ctx, jobs: make(chan job), run: func(j job) {
		defer s.end()
		a := s.answer(j.ctx, j.req, nil, false)
		j.end()
		out.put(a)
	}, live: live}
	for {
		batch, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, r := range batch.GetRequests() {
			s.begin()
			w.do(r)
		}
		live.stop(batch.GetCancel())
	}
}

func sendAnswers(stream grpc.BidiStreamingServer[pb.Requests, pb.Responses], list []*answer) error {
	batch := &pb.Responses{Responses: make([]*pb.Response, len(list))}
	for i, a := range list {
		batch.Responses[i] = a.res
	}
	return stream.Send(batch)
}

// job is one request with its context.
type job struct {
	ctx context.Context
	req *pb.Request
	end func()
}

// workers run jobs, each at once and in a goroutine of its own. Some goroutines stay for the next job: a new one would have
// to grow its stack again.
type workers struct {
	ctx  context.Context
	live *liveCalls
	run  func(job)
	jobs chan job
	kept int
}

// maxKept is how many goroutines stay.
const maxKept = 64

func (w *workers) do(r *pb.Request) {
	j := job{req: r}
	j.ctx, j.end = w.live.start(w.ctx, r)
	select {
	case w.jobs <- j:
		return
	default:
	}
	if w.kept == maxKept {
		go w.run(j)
		return
	}
	w.kept++
	go w.stay(j)
}

func (w *workers) stay(j job) {
	for {
		w.run(j)
		select {
		case j = <-w.jobs:
		case <-w.ctx.Done():
			return
		}
	}
}

// liveCalls lets a call be cancelled by its number.
type liveCalls struct {
	mu     sync.Mutex
	cancel map[uint64]context.CancelFunc
}

func (l *liveCalls) start(ctx context.Context, r *pb.Request) (context.Context, func()) {
	ctx, cancel := withTimeout(ctx, r)
	l.mu.Lock()
	l.cancel[r.GetSeq()] = cancel
	l.mu.Unlock()
	return ctx, func() {
		cancel()
		l.mu.Lock()
		delete(l.cancel, r.GetSeq())
		l.mu.Unlock()
	}
}

func (l *liveCalls) stop(list []uint64) {
	if len(list) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, seq := range list {
		if cancel := l.cancel[seq]; cancel != nil {
			cancel()
		}
	}
}

func withTimeout(ctx context.Context, r *pb.Request) (context.Context, context.CancelFunc) {
	if ms := r.GetTimeoutMs(); ms > 0 {
		return context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
	}
	return context.WithCancel(ctx)
}

// Large answers one call whose content comes in chunks, or in a file.
func (s *Server) Large(stream grpc.BidiStreamingServer[pb.Frame, pb.Frame]) error {
	s.begin()
	defer s.end()
	f, err := stream.Recv()
	if err != nil {
		return err
	}
	req := f.GetRequest()
	if req == nil {
		return errors.New("the first frame holds no request")
	}
	var content mail.Content
	if p := requestContent(req); p.GetToken() != 0 {
		c, file, err := s.takeFile(p)
		if err != nil {
			return stream.Send(&pb.Frame{Part: &pb.Frame_Response{Response: noDescriptor(req, err)}})
		}
		defer file.Close()
		content = c
	} else if content, err = takeChunks(stream, p.GetSize()); err != nil {
		return err
	}
	ctx, cancel := withTimeout(stream.Context(), req)
	defer cancel()
	a := s.answer(ctx, req, content, true)
	if err := stream.Send(&pb.Frame{Part: &pb.Frame_Response{Response: a.res}}); err != nil || a.large == nil {
		return err
	}
	return sendChunks(a.large, func(b []byte) error {
		return stream.Send(&pb.Frame{Part: &pb.Frame_Chunk{Chunk: b}})
	})
}

func takeChunks(stream grpc.BidiStreamingServer[pb.Frame, pb.Frame], size uint64) (mail.Content, error) {
	s, err := newSpool(size, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	for {
		f, err := stream.Recv()
		if err == io.EOF {
			return s.content()
		}
		if err != nil {
			return nil, err
		}
		if err := s.write(f.GetChunk()); err != nil {
			return nil, err
		}
	}
}

func (s *Server) begin() {
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running--; s.running == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// Drain waits until no call is running, or ctx ends, and returns how many still are.
func (s *Server) Drain(ctx context.Context) int {
	s.mu.Lock()
	if s.running == 0 {
		s.mu.Unlock()
		return 0
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// answer makes one call. It always has an answer: what goes wrong, a panic too, is one.
func (s *Server) answer(ctx context.Context, r *pb.Request, streamed mail.Content, streams bool) (a *answer) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "call", callName(r), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			a = answerError(&Failed{Text: fmt.Sprint(p)})
			a.res.GetError().Kind = pb.ErrorKind_ERROR_KIND_PANIC
		}
		a.res.Seq = r.GetSeq()
	}()
	a, err := dispatch(ctx, *s.value.Load(), r, takeContent(requestContent(r), streamed), streams)
	if err == nil {
		return a
	}
	a = answerError(err)
	if ctx.Err() != nil {
		a.res.GetError().Kind = pb.ErrorKind_ERROR_KIND_TIMEOUT
	}
	return a
}
