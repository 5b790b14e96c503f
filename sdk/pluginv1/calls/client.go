package calls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/pabal-mta/mta/sdk/mail"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
)

const (
	// maxWaiting bounds the calls that are under way at one plugin.
	maxWaiting = 4096
	// MaxReceive is the biggest frame that a client takes from a plugin.
	MaxReceive = 8 << 20
	// maxAbandoned is how many calls a plugin may go on with after the server has given them up.
	maxAbandoned = 1024
)

// DialOptions are what a connection to a plugin needs, whoever dials it: no idle time-out, for after it the socket's path
// would be dialled again, and windows and buffers for bodies of megabytes.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxReceive)),
		grpc.WithInitialWindowSize(1 << 20), grpc.WithInitialConnWindowSize(4 << 20),
		grpc.WithReadBufferSize(128 << 10), grpc.WithWriteBufferSize(128 << 10),
	}
}

// Client asks one plugin process. It may be used by any number of goroutines. Every context that is given to it should
// have a deadline.
type Client struct {
	rpc   pb.PluginClient
	kinds map[string]*pb.Kind
	needs needs // of the kind message
	pass  Pass  // nil: large contents go in chunks
	// waits keeps the channels on which callers wait: making one costs as much as the rest of the bookkeeping. It is the
	// client's own, since a channel of one bubble of virtual time is of no use in another.
	waits sync.Pool
	out   *outbox[departure]
	stop  context.CancelFunc
	done  chan struct{}

	mu        sync.Mutex
	err       error // set once, when the stream has ended
	seq       uint64
	waiting   map[uint64]chan *pb.Response
	abandoned map[uint64]struct{}
}

// departure is a request or, where req is nil, the end of our interest in one.
type departure struct {
	req    *pb.Request
	bytes  int
	cancel uint64
}

// NewClient makes a client of a connection. It can Describe and Configure; Open makes it ready for calls.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{
		rpc: pb.NewPluginClient(conn), out: newOutbox[departure](), done: make(chan struct{}),
		waiting: make(map[uint64]chan *pb.Response), abandoned: make(map[uint64]struct{}),
		waits: sync.Pool{New: func() any { return make(chan *pb.Response, 1) }},
	}
}

// Describe asks the plugin what it is.
func (c *Client) Describe(ctx context.Context, coreVersion string) (*pb.DescribeResponse, error) {
	return c.rpc.Describe(ctx, &pb.DescribeRequest{CoreVersion: coreVersion})
}

// Configure hands the plugin its configuration. After it, and unless it was only for validation, the client knows the
// plugin's kinds.
func (c *Client) Configure(ctx context.Context, req *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	res, err := c.rpc.Configure(ctx, req)
	if err != nil || req.GetValidateOnly() {
		return res, err
	}
	c.kinds = make(map[string]*pb.Kind)
	for _, k := range res.GetKinds() {
		c.kinds[k.GetName()] = k
	}
	c.needs = needsOf(c.kinds["message"])
	return res, nil
}

// Open starts the stream of calls, which lives until Close or until the connection is lost.
func (c *Client) Open() error {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := c.rpc.Calls(ctx)
	if err != nil {
		cancel()
		return err
	}
	c.stop = cancel
	go func() {
		err := c.out.run(ctx, func(list []departure) error {
			return splitByBytes(list, func(d departure) int { return d.bytes }, func(part []departure) error { return sendBatch(stream, part) })
		})
		if err != nil && !errors.Is(err, io.EOF) { // after EOF the receiver knows the reason
			c.fail(err)
		}
	}()
	go func() { c.fail(c.receive(stream)) }()
	return nil
}

// Close ends the stream; calls that wait end with ErrLost.
func (c *Client) Close() {
	if c.stop != nil {
		c.fail(context.Canceled)
	}
}

// Done is closed when the stream has ended, and Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the stream has ended, or nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Drain asks the plugin to finish its calls, and returns how many it did not.
func (c *Client) Drain(ctx context.Context, timeout time.Duration) (unfinished int, err error) {
	res, err := c.rpc.Drain(ctx, &pb.DrainRequest{TimeoutMs: uint32(timeout.Milliseconds())})
	return int(res.GetUnfinished()), err
}

// Kind returns what the plugin says of one of its kinds, or nil.
func (c *Client) Kind(name string) *pb.Kind { return c.kinds[name] }

// Handles reports whether the plugin has a kind, such as "store" or "rcpt".
func (c *Client) Handles(kind string) bool { return c.kinds[kind] != nil }

// Waiting returns how many calls wait for their answers.
func (c *Client) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// Stuck reports that the plugin has not ended so many calls that were given up that it must be hung.
func (c *Client) Stuck() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.abandoned) > maxAbandoned
}

func sendBatch(stream grpc.BidiStreamingClient[pb.Requests, pb.Responses], list []departure) error {
	batch := &pb.Requests{Requests: make([]*pb.Request, 0, len(list))}
	for _, d := range list {
		if d.req != nil {
			batch.Requests = append(batch.Requests, d.req)
		} else {
			batch.Cancel = append(batch.Cancel, d.cancel)
		}
	}
	return stream.Send(batch)
}

func (c *Client) receive(stream grpc.BidiStreamingClient[pb.Requests, pb.Responses]) error {
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range batch.GetResponses() {
			if err := c.deliver(r); err != nil {
				return err
			}
		}
	}
}

// deliver hands a response to the call that waits for it. One that nobody has asked for is a plugin gone wrong.
func (c *Client) deliver(r *pb.Response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	seq := r.GetSeq()
	if w, ok := c.waiting[seq]; ok {
		delete(c.waiting, seq)
		w <- r
		return nil
	}
	if _, ok := c.abandoned[seq]; ok {
		delete(c.abandoned, seq)
		return nil
	}
	return &BadAnswer{"calls", fmt.Errorf("an answer to call %d, which does not wait for one", seq)}
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for seq, w := range c.waiting {
		delete(c.waiting, seq)
		w <- nil
	}
	c.stop()
	close(c.done)
}

// call sends a question and waits for its answer.
func (c *Client) call(ctx context.Context, q *question) (*pb.Response, mail.Content, error) {
	if q.large != nil {
		return c.callLarge(ctx, q)
	}
	q.req.TimeoutMs = timeoutMillis(ctx)
	w, err := c.register(q.req)
	if err != nil {
		return nil, nil, err
	}
	c.out.put(departure{req: q.req, bytes: q.bytes})
	select {
	case r := <-w:
		return c.result(w, r)
	case <-ctx.Done():
	}
	if c.abandon(q.req.Seq) {
		return nil, nil, ctx.Err()
	}
	return c.result(w, <-w) // the answer came at the same moment
}

func (c *Client) result(w chan *pb.Response, r *pb.Response) (*pb.Response, mail.Content, error) {
	c.waits.Put(w)
	if r == nil {
		return nil, nil, c.lost()
	}
	return r, nil, nil
}

func (c *Client) lost() error { return lost(c.Err()) }

func (c *Client) register(req *pb.Request) (chan *pb.Response, error) {
	w := c.waits.Get().(chan *pb.Response)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, lost(c.err)
	}
	if len(c.waiting)+len(c.abandoned) >= maxWaiting {
		return nil, ErrBusy
	}
	c.seq++
	req.Seq = c.seq
	c.waiting[c.seq] = w
	return w, nil
}

// abandon gives a call up and reports whether there was still something to give up.
func (c *Client) abandon(seq uint64) bool {
	c.mu.Lock()
	_, ok := c.waiting[seq]
	if ok {
		delete(c.waiting, seq)
		c.abandoned[seq] = struct{}{}
	}
	c.mu.Unlock()
	if ok {
		c.out.put(departure{cancel: seq})
	}
	return ok
}

func timeoutMillis(ctx context.Context) uint32 {
	d, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(max(1, min(time.Until(d).Milliseconds(), 1<<31)))
}
