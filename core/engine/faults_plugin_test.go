package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // its codec is the one that huge replies go around
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"

	"github.com/pabal-mta/mta/sdk"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// badArg makes the test binary the plugin that misbehaves.
const badArg = "be-a-bad-plugin"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == badArg {
		beBad()
	}
	if len(os.Args) > 1 && os.Args[1] == noopArg {
		sdk.ServeAny(sdk.Of(noopPlugin()))
		return
	}
	os.Exit(m.Run())
}

// bad is a plugin of one kind that misbehaves as the file "fault" in its directory says: "MOMENT FAULT". When the file is
// gone it is a good plugin.
type bad struct {
	dir, kind, name string

	ledger *os.File

	mu     sync.Mutex
	conns  []net.Conn
	stream *badStream
}

// told reads the file of the fault: moment, fault, and which one of its variants.
func (b *bad) told() (moment, fault string, variant int) {
	data, err := os.ReadFile(filepath.Join(b.dir, "fault"))
	if err == nil {
		_, _ = fmt.Sscan(string(data), &moment, &fault, &variant)
	}
	return moment, fault, variant
}

// fault returns the fault that is due at a moment.
func (b *bad) fault(moment string) string {
	at, fault, _ := b.told()
	if at != moment {
		return ""
	}
	return fault
}

func (b *bad) variant() int {
	_, _, n := b.told()
	return n % len(values)
}

// note adds a line to the ledger, in one write.
func (b *bad) note(e entry) error {
	e.PID = os.Getpid()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = b.ledger.Write(append(line, '\n'))
	return err
}

// pulse holds a connection that ends with this process, so that the rig sees its death when it comes.
func (b *bad) pulse() {
	c, err := net.Dial("unix", os.Getenv("BAD_PULSE"))
	if err == nil {
		_, err = fmt.Fprintln(c, b.name, os.Getpid())
	}
	if err != nil {
		panic(err)
	}
	alive = c
}

var alive net.Conn // until the end

func beBad() {
	b := &bad{dir: os.Getenv("BAD_DIR"), kind: os.Getenv("BAD_KIND"), name: os.Getenv("BAD_NAME")}
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	var err error
	if b.ledger, err = os.OpenFile(os.Getenv("BAD_LEDGER"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		panic(err)
	}
	b.pulse()
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(3, "lifeline"))
		os.Exit(1)
	}()
	switch fault := b.fault("start"); fault {
	case "slow":
		time.Sleep(100 * time.Second) // ten times what the server waits
	case "handshake":
		fmt.Println("1|7|unix|/nowhere|grpc|")
		select {}
	case "garbage":
		b.noise()
	case "", "huge", "hostile": // its answer to Describe
	default:
		b.die(fault)
	}
	b.serve()
}

// die does what ends a process, or would.
func (b *bad) die(fault string) {
	switch fault {
	case "exit":
		os.Exit(3)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "panic":
		go func() { panic("as asked") }() // where no SDK can recover it
	case "leak":
		b.leak()
	}
	select {}
}

// leak takes what it can get: descriptors, memory, children that hold its pipes, and the log; then it is gone.
func (b *bad) leak() {
	var files []*os.File
	for range 200 {
		if f, err := os.Open(os.DevNull); err == nil {
			files = append(files, f)
		}
	}
	hog := make([]byte, 64<<20)
	for i := 0; i < len(hog); i += 4096 {
		hog[i] = byte(len(files))
	}
	for i := range 5 {
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: i%2 == 1} // some leave the group
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		_ = cmd.Start()
	}
	for range 2000 {
		fmt.Fprintln(os.Stderr, strings.Repeat("flood ", 100))
	}
	os.Exit(int(hog[0]) & 1)
}

// noise serves garbage where gRPC is expected.
func (b *bad) noise() {
	l := b.listen()
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		_, _ = c.Write(garbage())
	}
}

// garbage is no HTTP/2, and no frame of it either.
func garbage() []byte { return []byte(strings.Repeat("\xff\x00garbage\r\n\xfe", 5000)) }

func (b *bad) listen() net.Listener {
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin-bad")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|1|unix|%s|grpc|\n", path)
	return l
}

// badConns notes its connections, to write garbage on them.
type badConns struct {
	net.Listener
	b *bad
}

func (l badConns) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.b.conns = append(l.b.conns, c)
	return c, err
}

func (b *bad) inject() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		_, _ = c.Write(garbage())
	}
}

// huge is a reply of two gigabytes. It is one megabyte, two thousand times.
type huge struct{}

type hugeCodec struct{ encoding.CodecV2 }

func (c hugeCodec) Marshal(v any) (mem.BufferSlice, error) {
	if _, ok := v.(huge); !ok {
		return c.CodecV2.Marshal(v)
	}
	part := mem.SliceBuffer(make([]byte, 1<<20))
	list := make(mem.BufferSlice, 2000)
	for i := range list {
		list[i] = part
	}
	return list, nil
}

// grab takes the server of the SDK out of its registration.
type grab struct{ server pb.PluginServer }

func (g *grab) RegisterService(_ *grpc.ServiceDesc, impl any) { g.server = impl.(pb.PluginServer) }

func (b *bad) serve() {
	var honest grab
	sdk.Register(&honest, sdk.Of(sdk.Plugin[struct{}]{
		Name: "bad", Version: "1", Kinds: b.value(), New: func(context.Context, struct{}, sdk.Host) (any, error) { return b.value(), nil },
	}), slog.New(slog.DiscardHandler), nil)
	hugeUnary := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if _, describes := req.(*pb.DescribeRequest); describes && b.fault("start") == "huge" {
			return huge{}, nil
		}
		return next(ctx, req)
	}
	s := grpc.NewServer(append(calls.ServerOptions(), grpc.UnaryInterceptor(hugeUnary), grpc.ForceServerCodecV2(hugeCodec{encoding.GetCodecV2("proto")}))...)
	pb.RegisterPluginServer(s, badServer{honest.server, b})
	h := health.NewServer()
	h.SetServingStatus("plugin", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(s, h)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "plugin.GRPCController", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Shutdown", Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			os.Exit(0)
			return nil, nil
		}}},
	}, nil)
	go b.idle()
	_ = s.Serve(badConns{b.listen(), b})
	os.Exit(0)
}

// idle misbehaves while nobody asks anything.
func (b *bad) idle() {
	for range time.Tick(20 * time.Millisecond) {
		fault := b.fault("idle")
		if fault == "" {
			continue
		}
		b.mu.Lock()
		stream := b.stream
		b.mu.Unlock()
		switch {
		case fault == "slow": // see call
		case fault == "handshake":
			fmt.Println("1|1|unix|/somewhere/else|grpc|")
			time.Sleep(time.Second)
		case fault == "garbage":
			b.inject()
		case stream == nil && (fault == "huge" || fault == "hostile"):
			continue
		case fault == "huge":
			_ = stream.raw(huge{})
		case fault == "hostile":
			_ = stream.raw(&pb.Responses{Responses: []*pb.Response{{Seq: 1 << 60, Result: hostileResult()}}})
		default:
			if fault != "panic" {
				_ = os.Remove(filepath.Join(b.dir, "fault"))
			}
			b.die(fault)
		}
		if fault != "panic" && fault != "slow" && fault != "handshake" { // those go on and on
			_ = os.Remove(filepath.Join(b.dir, "fault"))
		}
	}
}

// call misbehaves in a call, as far as that is the method's doing.
func (b *bad) call() {
	if b.fault("idle") == "slow" {
		time.Sleep(10 * badTimeout)
	}
	switch fault := b.fault("call"); fault {
	case "slow":
		time.Sleep(10 * badTimeout)
	case "panic":
		panic("as asked")
	case "handshake":
		fmt.Println("1|1|unix|/somewhere/else|grpc|")
	case "garbage":
		b.inject()
		time.Sleep(10 * badTimeout)
	case "", "huge", "hostile": // see badStream
	default:
		b.die(fault)
	}
}
