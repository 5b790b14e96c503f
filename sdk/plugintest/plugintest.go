// Package plugintest runs a plugin in a test, over the wire that it speaks in production.
//
// New runs it in the test's own process, so that its code can be covered and debugged; Exec runs a program. Both return
// the same Plugin, whose methods are those of the kinds of plugin, with the server's checks of every answer. The plugin's
// sdk.Host is a Host of this package, which stores in memory and shows what was asked of it. In memory all of it may run
// within testing/synctest, where time is virtual. What goes wrong before the first call ends the test, with the plugin's
// diagnostics in its output; the plugin ends with the test.
package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	"github.com/pabal-mta/mta/sdk/schema"
)

// startTimeout is how long a plugin may take to come up.
const startTimeout = 10 * time.Second

// drainTimeout is how long calls that still run at the end of a test are waited for.
const drainTimeout = 100 * time.Millisecond

// Plugin is a running plugin. A method of a kind that it does not have returns an error.
type Plugin struct {
	*calls.Client
	Kinds []string // what the plugin says that it can do
	Host  *Host    // what the plugin talks to
}

// Config is the plugin's block of mta.hcl as JSON: a string or []byte that holds it, or any value that marshals to it.
// Nil is an empty block.
type Config any

// New runs a plugin in memory, with a host that knows nothing.
func New(t testing.TB, p sdk.Served, config Config) *Plugin {
	t.Helper()
	return WithHost(t, new(Host), p, config)
}

// WithHost runs a plugin in memory that talks to h.
func WithHost(t testing.TB, h *Host, p sdk.Served, config Config) *Plugin {
	t.Helper()
	sockets := memory{}
	host := sockets.serve(t, calls.NewHostServer(h, hostToken))
	client := calls.NewClient(sockets.plugin(t, p))
	plugin, problems := configure(t, client, config, false, host)
	failOn(t, problems)
	plugin.Host = h
	return plugin
}

// hostToken opens the host in tests.
const hostToken = "test"

// Problems returns what a plugin finds wrong with a configuration, without starting to work with it.
func Problems(t testing.TB, p sdk.Served, config Config) []schema.Problem {
	t.Helper()
	_, problems := configure(t, calls.NewClient(memory{}.plugin(t, p)), config, true, "")
	return problems
}

// Exec runs a program as the server would, with the arguments and with extra environment variables ("KEY=value") that
// args may begin with.
func Exec(t testing.TB, path string, config Config, args ...string) *Plugin {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	for len(args) > 0 && strings.Contains(args[0], "=") && !strings.HasPrefix(args[0], "-") {
		cmd.Env, args = append(cmd.Env, args[0]), args[1:]
	}
	cmd.Args = append(cmd.Args, args...)
	c := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: sdk.CookieKey, MagicCookieValue: sdk.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: {"plugin": connPlugin{}}},
		Cmd:              cmd, SkipHostEnv: true, StartTimeout: startTimeout,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		GRPCDialOptions:  calls.DialOptions(),
		Logger:           hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Info}),
	})
	t.Cleanup(c.Kill)
	protocol, err := c.Client()
	if err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	conn, err := protocol.Dispense("plugin")
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	h := new(Host)
	plugin, problems := configure(t, calls.NewClient(conn.(*grpc.ClientConn)), config, false, onSocket(t, calls.NewHostServer(h, hostToken)))
	failOn(t, problems)
	plugin.Host = h
	return plugin
}

func failOn(t testing.TB, problems []schema.Problem) {
	t.Helper()
	for _, p := range problems {
		t.Errorf("configuration: %v", p)
	}
	if len(problems) > 0 {
		t.FailNow()
	}
}

// memory is the sockets of a test, by name.
type memory map[string]*bufconn.Listener

// serve serves on a socket until the end of the test and returns its name.
func (m memory) serve(t testing.TB, srv *grpc.Server) (name string) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	name = fmt.Sprint("socket", len(m))
	m[name] = listener
	serve(t, srv, listener)
	return name
}

func (m memory) dial(ctx context.Context, name string) (net.Conn, error) {
	return m[name].DialContext(ctx)
}

// plugin serves a plugin and returns a connection to it.
func (m memory) plugin(t testing.TB, p sdk.Served) *grpc.ClientConn {
	t.Helper()
	srv := grpc.NewServer(calls.ServerOptions()...)
	sdk.Register(srv, p, slog.New(slog.NewTextHandler(testWriter{t}, nil)), m.dial)
	name := m.serve(t, srv)
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.dial(ctx, name) })
	conn, err := grpc.NewClient("passthrough:plugin", append(calls.DialOptions(), dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// onSocket serves on a unix socket and returns its path.
func onSocket(t testing.TB, srv *grpc.Server) string {
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
	serve(t, srv, listener)
	return path
}

func serve(t testing.TB, srv *grpc.Server, l net.Listener) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(l); err != nil {
			t.Errorf("serving: %v", err)
		}
	}()
	t.Cleanup(func() {
		srv.Stop()
		<-ended
	})
}

func configure(t testing.TB, client *calls.Client, config Config, validateOnly bool, host string) (*Plugin, []schema.Problem) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	res, err := client.Configure(ctx, &pb.ConfigureRequest{
		ConfigJson: configJSON(t, config), ValidateOnly: validateOnly, Instance: "test", StateDir: t.TempDir(),
		HostSocket: host, HostToken: hostToken,
	})
	if err != nil {
		t.Fatalf("configuring the plugin: %v", err)
	}
	p := &Plugin{Client: client}
	for _, k := range res.GetKinds() {
		p.Kinds = append(p.Kinds, k.GetName())
	}
	if validateOnly || len(res.GetDiagnostics()) > 0 {
		return p, calls.Problems(res)
	}
	if err := client.Open(); err != nil {
		t.Fatalf("opening the stream of calls: %v", err)
	}
	t.Cleanup(func() {
		// The plugin says goodbye to its host; a test may have drained or killed it already.
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		_, _ = client.Drain(ctx, drainTimeout)
		client.Close()
	})
	return p, nil
}

func configJSON(t testing.TB, config Config) []byte {
	t.Helper()
	switch c := config.(type) {
	case nil:
		return []byte("{}")
	case string:
		return []byte(c)
	case []byte:
		return c
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(fmt.Errorf("the configuration: %w", err))
	}
	return data
}

// connPlugin hands out the connection itself.
type connPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (connPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return nil }

func (connPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}

// testWriter writes into the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil { // a test that is over can't log any more
		w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}
