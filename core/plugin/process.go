package plugin

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/pluginv1"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// stopGrace is how long a drained plugin may take to exit.
const stopGrace = 2 * time.Second

// process is one life of a plugin.
type process struct {
	child  *child
	launch *goplugin.Client // nil: somebody else has started it
	socket socket           // of that process
	conn   *grpc.ClientConn
	client *calls.Client
	health grpc_health_v1.HealthClient
	post   *post // nil: large contents go in chunks
	room   *room
	about  *pluginv1.DescribeResponse
	kinds  []string
	born   time.Time
	line   *line   // from up on
	worker *worker // likewise
}

// launcher starts processes of one plugin, one after the other.
type launcher struct {
	spec    *Spec
	version string
	bin     *binary
	room    *room
	host    *hostServer // nil where nothing is done for the plugin
	out     *output
	user    *account // nil: the server's own
	shares  bool     // bin and host are another launcher's
}

func newLauncher(s *Spec, o Options, out *output) (*launcher, error) {
	who, err := accountOf(s.User)
	if err != nil {
		return nil, err
	}
	bin, err := openBinary(s)
	if err != nil {
		return nil, err
	}
	l := &launcher{spec: s, version: o.Version, bin: bin, out: out, user: who, shares: false}
	if l.room, err = newRoom(s.RunDir, who); err != nil {
		bin.close()
		return nil, fmt.Errorf("its run directory: %w", err)
	}
	if s.StateDir != "" {
		if err := stateDir(s.StateDir, who); err != nil {
			l.close()
			return nil, fmt.Errorf("its state directory: %w", err)
		}
	}
	return l, nil
}

// sibling makes a launcher for another process of the same plugin.
func (l *launcher) sibling(out *output) (*launcher, error) {
	r, err := newRoom(l.spec.RunDir, l.user)
	if err != nil {
		return nil, fmt.Errorf("its run directory: %w", err)
	}
	twin := *l
	twin.room, twin.out, twin.shares = r, out, true
	return &twin, nil
}

func (l *launcher) close() {
	if !l.shares {
		l.host.stop()
		l.bin.close()
	}
	l.room.close()
}

// start starts a process as far as Describe. It takes no longer than ctx.
func (l *launcher) start(ctx context.Context) (*process, error) {
	if l.spec.Dev != nil {
		return l.spec.Dev.attach(ctx, l)
	}
	p := &process{room: l.room, born: time.Now()}
	stopKill := func() bool { return true }
	timeout := startTimeout
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	p.launch = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: sdk.CookieKey, MagicCookieValue: sdk.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: {"plugin": connPlugin{}}},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (runner.Runner, error) {
			if err := l.user.give(sockets); err != nil {
				return nil, err
			}
			p.child = newChild(l, cmd, sockets)
			stopKill = context.AfterFunc(ctx, p.child.kill)
			return p.child, nil
		},
		SkipHostEnv: true, StartTimeout: timeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: l.room.dir},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		GRPCDialOptions:  calls.DialOptions(),
		SyncStdout:       l.out, SyncStderr: l.out,
		Logger: hclog.NewNullLogger(),
	})
	err := p.connect(ctx, l.version)
	stopKill() // from here on whoever uses ctx ends the process
	if err != nil {
		p.end()
		return nil, l.startError(ctx, p.child, err)
	}
	if p.post = p.child.post; !p.about.GetTakesDescriptors() {
		p.post.close()
		p.post = nil
	}
	return p, nil
}

func (p *process) connect(ctx context.Context, version string) error {
	protocol, err := p.launch.Client()
	if err != nil {
		return err
	}
	v, err := protocol.Dispense("plugin")
	if err != nil {
		return err
	}
	p.conn = v.(*grpc.ClientConn)
	p.client, p.health = calls.NewClient(p.conn), grpc_health_v1.NewHealthClient(p.conn)
	p.about, err = p.client.Describe(ctx, version)
	return err
}

// configure hands over the configuration; after it, and unless it was only for validation, the process takes calls.
func (l *launcher) configure(ctx context.Context, p *process, validateOnly bool) error {
	if p.launch == nil && !validateOnly {
		l.spec.Dev.take(p.socket)
	}
	err := p.configure(ctx, l.spec, l.host, validateOnly)
	if _, answered := status.FromError(err); err == nil || !answered {
		return err
	}
	if p.launch == nil {
		return fmt.Errorf("it could not be configured: %s", calls.Printable(status.Convert(err).Message()))
	}
	select {
	case <-p.child.gone:
		<-p.child.quiet
		return l.withLastWords(fmt.Errorf("it ended while it was configured (%s)", p.child.ending()))
	case <-time.After(pipeGrace):
	}
	return l.withLastWords(fmt.Errorf("it could not be configured: %s", calls.Printable(status.Convert(err).Message())))
}

func (p *process) configure(ctx context.Context, s *Spec, h *hostServer, validateOnly bool) error {
	socket, token := h.address()
	res, err := p.client.Configure(ctx, &pluginv1.ConfigureRequest{
		ConfigJson: s.config(), ValidateOnly: validateOnly, Instance: s.Name, StateDir: s.StateDir,
		HostSocket: socket, HostToken: token,
	})
	if err != nil {
		return err
	}
	if problems := calls.Problems(res); len(problems) > 0 {
		return &ConfigError{problems}
	}
	for _, k := range res.GetKinds() {
		p.kinds = append(p.kinds, calls.Printable(k.GetName()))
	}
	if validateOnly {
		return nil
	}
	if len(p.kinds) == 0 {
		return errors.New("it says that it can do nothing at all")
	}
	if p.post != nil {
		p.client.PassBy(p.post.pass)
	}
	return p.client.Open()
}

// alive asks the process for its health.
func (p *process) alive(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := p.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName})
	if err == nil && res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		err = fmt.Errorf("its health is %v", res.GetStatus())
	}
	return err
}

// stop lets the process finish its calls and ends it. ctx bounds the finishing.
func (p *process) stop(ctx context.Context) {
	if p.client != nil {
		timeout := stopGrace
		if d, ok := ctx.Deadline(); ok {
			timeout = time.Until(d)
		}
		if p.line != nil { // for a call that is still on its way there, the plugin would not wait
			defer p.line.close(ctx, timeout)()
		}
		_, _ = p.client.Drain(ctx, timeout)
		p.client.Close()
	}
	if p.launch == nil {
		p.leave(true)
		return
	}
	hung := time.AfterFunc(stopGrace, p.child.kill)
	p.launch.Kill() // asks it to exit, and waits
	hung.Stop()
	p.end()
}

// end kills what is left of the process, its group and its sockets.
func (p *process) end() {
	if p.launch == nil {
		p.leave(false)
		return
	}
	if p.child != nil {
		p.child.kill()
		<-p.child.gone
		<-p.child.quiet
		<-p.child.alone
	}
	if p.client != nil {
		p.client.Close()
	}
	p.launch.Kill()
	p.room.clear()
}

// connPlugin has go-plugin hand out the connection itself.
type connPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (connPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the server is no plugin")
}

func (connPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}
