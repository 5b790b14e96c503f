// Package plugintest runs a plugin in a test, over the wire that it speaks in production.
//
// New runs it in the test's own process, so that its code can be covered and debugged; Exec runs a program. Both return
// the same Plugin, whose methods are those of the kinds of plugin, with the server's checks of every answer. What goes
// wrong before the first call ends the test, with the plugin's diagnostics in its output; the plugin ends with the test.
package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
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

// Plugin is a running plugin. A method of a kind that it does not have returns an error.
type Plugin struct {
	*calls.Client
	Kinds []string // what the plugin says that it can do
}

// Config is the plugin's block of mta.hcl as JSON: a string or []byte that holds it, or any value that marshals to it.
// Nil is an empty block.
type Config any

// New runs a plugin in memory.
func New(t testing.TB, p sdk.Served, config Config) *Plugin {
	t.Helper()
	client := calls.NewClient(inMemory(t, p))
	plugin, problems := configure(t, client, config, false)
	failOn(t, problems)
	return plugin
}

// Problems returns what a plugin finds wrong with a configuration, without starting to work with it.
func Problems(t testing.TB, p sdk.Served, config Config) []schema.Problem {
	t.Helper()
	_, problems := configure(t, calls.NewClient(inMemory(t, p)), config, true)
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
	plugin, problems := configure(t, calls.NewClient(conn.(*grpc.ClientConn)), config, false)
	failOn(t, problems)
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

func inMemory(t testing.TB, p sdk.Served) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(calls.ServerOptions()...)
	sdk.Register(srv, p, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(listener); err != nil {
			t.Errorf("serving the plugin: %v", err)
		}
	}()
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	conn, err := grpc.NewClient("passthrough:plugin", append(calls.DialOptions(), dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-ended
	})
	return conn
}

func configure(t testing.TB, client *calls.Client, config Config, validateOnly bool) (*Plugin, []schema.Problem) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	res, err := client.Configure(ctx, &pb.ConfigureRequest{
		ConfigJson: configJSON(t, config), ValidateOnly: validateOnly, Instance: "test", StateDir: t.TempDir(),
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
	t.Cleanup(client.Close)
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
