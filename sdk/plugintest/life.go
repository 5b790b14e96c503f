package plugintest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/pabal-mta/mta/sdk"
	pb "github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/pluginv1/conform"
)

// life is one life of a plugin, from its start to its death.
type life struct {
	plugin *conform.Plugin
	wire   wire   // to the plugin
	host   string // where it finds its host
	kill   func() // ends it without a word
}

// newLife makes a life of a plugin that is reached by dial. Dead reports that it has ended.
func newLife(t testing.TB, l *life, dial func(context.Context) (net.Conn, error), dead func() bool) *life {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:plugin", append(calls.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := dial(ctx)
			return l.wire.through(c), err
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	end := l.kill
	l.kill = func() {
		_ = conn.Close()
		end()
	}
	t.Cleanup(func() { _ = conn.Close() })
	l.plugin = conform.NewPlugin(conn, func(patience time.Duration) error { return l.ended(patience, dead) })
	return l
}

// ended returns why the plugin is of no more use, or nil.
func (l *life) ended(patience time.Duration, dead func() bool) error {
	for end := time.Now().Add(patience); !dead() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	switch err := l.plugin.Client.Err(); {
	case dead():
		return errors.New("the process ended")
	case err != nil:
		return fmt.Errorf("the stream of calls ended: %w", err)
	}
	return nil
}

// inMemory serves a plugin, and its host, on sockets in memory.
func inMemory(t testing.TB, p sdk.Served, h *Host) *life {
	t.Helper()
	plugin, host := bufconn.Listen(1<<20), bufconn.Listen(1<<20)
	srv, hostSrv := grpc.NewServer(calls.ServerOptions()...), calls.NewHostServer(h, hostToken)
	own := &grab{ServiceRegistrar: srv}
	sdk.Register(own, p, slog.New(slog.NewTextHandler(testWriter{t}, nil)), func(ctx context.Context, _ string) (net.Conn, error) { return host.DialContext(ctx) })
	l := &life{host: "memory", kill: func() {
		srv.Stop()
		hostSrv.Stop()
	}}
	serve(t, hostSrv, wired{host, &h.wire})
	serve(t, srv, plugin)
	t.Cleanup(func() { // of a plugin that was killed the goroutines live on, and its connection to the host
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		_, _ = own.server.Drain(ctx, &pb.DrainRequest{TimeoutMs: uint32(drainTimeout.Milliseconds())})
	})
	return newLife(t, l, plugin.DialContext, func() bool { return false })
}

// grab keeps the server that the SDK registers.
type grab struct {
	grpc.ServiceRegistrar
	server pb.PluginServer
}

// RegisterService registers it, too.
func (g *grab) RegisterService(d *grpc.ServiceDesc, impl any) {
	g.server = impl.(pb.PluginServer)
	g.ServiceRegistrar.RegisterService(d, impl)
}

// inProcess starts a program, and serves its host on a unix socket.
func inProcess(t testing.TB, cmd *exec.Cmd, h *Host) *life {
	t.Helper()
	c := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: sdk.CookieKey, MagicCookieValue: sdk.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: {"plugin": nil}},
		Cmd:              cmd, SkipHostEnv: true, StartTimeout: startTimeout,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Info}),
	})
	t.Cleanup(c.Kill)
	addr, err := c.Start()
	if err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	hostSrv := calls.NewHostServer(h, hostToken)
	l := &life{kill: func() {
		_ = cmd.Process.Kill()
		hostSrv.Stop()
	}}
	l.host = onSocket(t, hostSrv, &h.wire)
	var d net.Dialer
	return newLife(t, l, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, addr.Network(), addr.String()) }, c.Exited)
}

// onSocket serves on a unix socket and returns its path.
func onSocket(t testing.TB, srv *grpc.Server, w *wire) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mta") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "host")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, srv, wired{listener, w})
	return path
}

func serve(t testing.TB, srv *grpc.Server, l net.Listener) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
			t.Errorf("serving: %v", err)
		}
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-ended
	})
}

// wire is the connections between two parties. Nothing passes while it is stopped. Its zero value lets everything pass.
type wire struct {
	mu     sync.Mutex
	opened chan struct{} // nil: it is open; else closed when it is open again
}

func (w *wire) stop() (resume func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened != nil {
		return func() {} // who stopped it first opens it
	}
	opened := make(chan struct{})
	w.opened = opened
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.opened = nil
		close(opened)
	})
}

// pass waits until the wire is open, or the connection closed.
func (w *wire) pass(closed <-chan struct{}) {
	w.mu.Lock()
	opened := w.opened
	w.mu.Unlock()
	if opened != nil {
		select {
		case <-opened:
		case <-closed:
		}
	}
}

func (w *wire) through(c net.Conn) net.Conn {
	if c == nil {
		return nil
	}
	return &wiredConn{Conn: c, wire: w, closed: make(chan struct{})}
}

// wired has the connections of a listener go through a wire.
type wired struct {
	net.Listener
	wire *wire
}

// Accept is part of net.Listener.
func (l wired) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return l.wire.through(c), err
}

type wiredConn struct {
	net.Conn
	wire   *wire
	once   sync.Once
	closed chan struct{}
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wire.pass(c.closed)
	return n, err
}

func (c *wiredConn) Write(b []byte) (int, error) {
	c.wire.pass(c.closed)
	return c.Conn.Write(b)
}

func (c *wiredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
