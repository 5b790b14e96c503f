package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
	"github.com/pabal-mta/mta/sdk/pluginv1/conform"
)

// Dev is where a plugin is waited for that its author starts by hand, in a debugger or without: `mta serve -dev NAME`. Nothing
// holds such a process back, nothing is asked of its health, and its calls may take as long as they like.
type Dev struct {
	dir  string
	out  io.Writer
	lock *os.File

	mu    sync.Mutex
	taken map[socket]bool // of processes that have been configured: each is, once
}

// socket is where a process listens. Another one may take the same name later.
type socket struct {
	path string
	born time.Time
}

// devTimeout is the time-out of a call to a process that somebody may be stepping through.
const devTimeout = 24 * time.Hour

// devLook is how often a process is looked for.
const devLook = 100 * time.Millisecond

// NewDev makes the place where the plugin of that label is waited for; it is the same each time. What is to be typed is
// written to out.
func NewDev(name string, out io.Writer) (*Dev, error) {
	parent := shortDir("")
	if err := ownDir(parent); err != nil {
		return nil, err
	}
	d := &Dev{dir: filepath.Join(parent, "dev-"+name), out: out, taken: make(map[socket]bool)}
	if err := ownDir(d.dir); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = lockFile(filepath.Join(d.dir, "lock"), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another server waits for plugin %q: %w", name, err)
	}
	for _, s := range d.sockets() {
		if !s.serves() { // left behind
			_ = os.Remove(s.path)
		}
	}
	return d, nil
}

// Close gives the place up.
func (d *Dev) Close() error { return d.lock.Close() }

// Spec makes of a plugin's Spec one that is waited for.
func (d *Dev) Spec(s Spec) Spec {
	s.Dev = d
	s.SHA256, s.User, s.Limits, s.Sandbox, s.Shim = "", "", Limits{}, nil, nil
	s.Timeout, s.Processes, s.BreakerFailures = devTimeout, 1, math.MaxInt
	s.RestartMin, s.RestartMax = time.Millisecond, time.Millisecond
	return s
}

// detached passes on that a caller has gone, and not that its time is up.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithTimeout(context.WithoutCancel(ctx), devTimeout)
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cancel()
		}
	})
	return out, func() {
		stop()
		cancel()
	}
}

// attach waits until a process is there that has not been configured yet, and connects to it.
func (d *Dev) attach(ctx context.Context, l *launcher) (*process, error) {
	tick := time.NewTicker(devLook)
	defer tick.Stop()
	for said := false; ; {
		if p := d.find(ctx, l); p != nil {
			return p, nil
		}
		if !said {
			d.say("%s", d.howTo(l.spec))
			said = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("nobody has started it: %w", ctx.Err())
		}
	}
}

func (d *Dev) say(format string, args ...any) {
	fmt.Fprintf(d.out, format+"\n", args...) // who does not read it is not told
}

// howTo says what is to be typed.
func (d *Dev) howTo(s *Spec) string {
	program := slices.Concat([]string{s.Path}, s.Args)
	if s.Builtin != "" {
		program = slices.Concat([]string{s.Self}, s.BuiltinArgs)
	}
	var names []string
	for _, v := range s.Env {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	env := fmt.Sprintf("%s=%s PLUGIN_UNIX_SOCKET_DIR=%s", sdk.CookieKey, sdk.CookieValue, d.dir)
	text := fmt.Sprintf("\nplugin %q is waited for (-dev). Start it by hand, in another terminal:\n\n  %s %s\n\n"+
		"A debugger goes before the program, such as dlv exec, or python3 -m pdb.\n", s.Name, env, strings.Join(program, " "))
	if len(names) > 0 {
		text += "Its block in mta.hcl also sets these variables: " + strings.Join(names, " ") + "\n"
	}
	return text
}

// find returns a process that serves and has not been configured yet, the youngest first, or nil.
func (d *Dev) find(ctx context.Context, l *launcher) *process {
	for _, s := range d.sockets() {
		if !s.serves() { // its process is dead, or has not come so far yet
			continue
		}
		p, err := connectByHand(ctx, s, l)
		if err == nil {
			return p
		}
		if ctx.Err() == nil {
			d.say("plugin %q: the process at %s: %v", l.spec.Name, s.path, err)
			d.take(s)
		}
	}
	return nil
}

func (s socket) serves() bool {
	c, err := net.Dial("unix", s.path)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// sockets lists those that nobody has configured, the youngest first.
func (d *Dev) sockets() (list []socket) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Type() != os.ModeSocket {
			continue
		}
		if s := (socket{filepath.Join(d.dir, e.Name()), info.ModTime()}); !d.taken[s] {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b socket) int { return b.born.Compare(a.born) })
	return list
}

func (d *Dev) take(s socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken[s] = true
}

// connectByHand connects to a process that somebody else has started.
func connectByHand(ctx context.Context, at socket, l *launcher) (*process, error) {
	conn, err := grpc.NewClient("passthrough:plugin", append(calls.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var n net.Dialer
			return n.DialContext(ctx, "unix", at.path)
		}))...)
	if err != nil {
		return nil, err
	}
	p := &process{room: l.room, born: time.Now(), conn: conn, client: calls.NewClient(conn), health: grpc_health_v1.NewHealthClient(conn),
		socket: at, child: &child{spec: l.spec, gone: make(chan struct{}), quiet: make(chan struct{}), alone: make(chan struct{})}}
	if p.about, err = p.client.Describe(ctx, l.version); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// leave lets go of a process that somebody else has started; with bye it is asked to exit.
func (p *process) leave(bye bool) {
	p.client.Close()
	if bye {
		ctx, cancel := context.WithTimeout(context.Background(), conform.Promptly)
		defer cancel()
		_ = p.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	}
	_ = p.conn.Close()
}
