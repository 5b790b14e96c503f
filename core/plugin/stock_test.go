package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// The traps of go-plugin as it comes, each met by a host of stock go-plugin and by ours. Stock has to fail: when a new
// version of it does not any more, what we do about it may go.

// trap is one fault. Stock and ours return nil when the fault does no harm.
type trap struct {
	name        string
	stock, ours func(t *testing.T) error
}

func TestTraps(t *testing.T) {
	for _, trap := range []trap{
		{"the death of a plugin whose child holds its pipes is not seen", stockGrandchild, oursGrandchild},
		{"a plugin outlives its host", stockOrphan, oursOrphan},
		{"a killed plugin leaves its socket", stockSocket, oursSocket},
		{"what is printed before the handshake hides the reason", stockChatter, oursChatter},
		{"a long line on standard output blocks the plugin", stockLongLine, oursLongLine},
		{"SIGTERM from a service manager ends a plugin before its host has drained it", stockTerm, oursTerm},
		{"a plugin that is stopped is not noticed", stockStop, oursStop},
		{"calls under way are cut off when a plugin is stopped in order", stockDrain, oursDrain},
		{"what is printed after the handshake is lost", stockPrints, oursPrints},
		{"a plugin that was killed is not started again", stockRestart, oursRestart},
		{"what a plugin was configured with is lost with its process", stockConfigure, oursConfigure},
		{"a pinned program can be started once only", stockPinned, oursPinned},
	} {
		t.Run(trap.name, func(t *testing.T) {
			if err := trap.ours(t); err != nil {
				t.Errorf("ours: %v", err)
			}
			if err := trap.stock(t); err == nil {
				t.Error("stock go-plugin holds: is this trap no more?")
			} else {
				t.Logf("stock: %v", err)
			}
		})
	}
}

// glance is how long a trap of stock is looked at. Too short a time could only make stock look worse than it is.
const glance = time.Second

// newStock makes a client of go-plugin as it comes.
func newStock(t *testing.T, mode string, change func(*goplugin.ClientConfig)) *goplugin.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "stock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: sdk.CookieKey, MagicCookieValue: sdk.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: {"plugin": connPlugin{}}},
		Cmd:              exec.Command(os.Args[0]), AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir}, Logger: hclog.NewNullLogger(), StartTimeout: 10 * time.Second,
	}
	c.Cmd.Env = append(os.Environ(), "MODE="+mode, "TMPDIR="+dir)
	if change != nil {
		change(c)
	}
	client := goplugin.NewClient(c)
	t.Cleanup(client.Kill)
	return client
}

// startStock starts a plugin and returns the number of its process.
func startStock(t *testing.T, c *goplugin.Client) int {
	t.Helper()
	if _, err := c.Client(); err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// stockCalls returns what makes calls of a plugin that stock go-plugin has started.
func stockCalls(t *testing.T, c *goplugin.Client) *calls.Client {
	t.Helper()
	protocol, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	v, err := protocol.Dispense("plugin")
	if err != nil {
		t.Fatal(err)
	}
	return calls.NewClient(v.(*grpc.ClientConn))
}

// configureStock does what a host of stock go-plugin would have to do by hand.
func configureStock(t *testing.T, c *goplugin.Client, timeout time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	p := &process{client: stockCalls(t, c)}
	s := &Spec{Name: "faulty", StateDir: t.TempDir(), Config: []byte(`{"limit": 7}`)}
	err := p.configure(ctx, s, nil, false)
	t.Cleanup(p.client.Close)
	return err
}

func stockGrandchild(t *testing.T) error {
	c := newStock(t, "grandchild", nil)
	n := startStock(t, c)
	if err := configureStock(t, c, 10*time.Second); err != nil { // it starts its child then
		t.Fatal(err)
	}
	kill(t, n, syscall.SIGKILL)
	for end := time.Now().Add(glance); time.Now().Before(end); {
		if c.Exited() {
			return nil
		}
	}
	return errors.New("Exited() is false")
}

func oursGrandchild(t *testing.T) error {
	p := start(t, spec(t, "grandchild"))
	old := pid(t, p)
	proc := p.workers[0].current.Load()
	kill(t, old, syscall.SIGKILL)
	<-proc.child.gone
	awaitOther(t, p, old)
	return nil
}

// hostOf runs a host that is killed when its plugin has come up, and returns the plugin's process.
func hostOf(t *testing.T, mode, run string) int {
	t.Helper()
	host := exec.Command(os.Args[0])
	host.Env = append(os.Environ(), "MODE="+mode, "RUN="+run)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	return plugin
}

func stockOrphan(t *testing.T) error {
	n := hostOf(t, "stockhost", t.TempDir())
	defer func() { _ = syscall.Kill(n, syscall.SIGKILL) }()
	for end := time.Now().Add(glance); time.Now().Before(end); {
		if !isRunning(n) {
			return nil
		}
	}
	return errors.New("it runs on")
}

func oursOrphan(t *testing.T) error {
	n := hostOf(t, "host", spec(t, "good").RunDir)
	for end := time.Now().Add(10 * time.Second); isRunning(n); {
		if time.Now().After(end) {
			return errors.New("it runs on")
		}
	}
	return nil
}

// beStockHost prints the process of its plugin and waits to be killed.
func beStockHost() {
	c := &goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: sdk.CookieKey, MagicCookieValue: sdk.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: {"plugin": connPlugin{}}},
		Cmd:              exec.Command(os.Args[0]), AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: os.Getenv("RUN")}, Logger: hclog.NewNullLogger(),
		SkipHostEnv: true,
	}
	c.Cmd.Env = []string{"MODE=good"}
	client := goplugin.NewClient(c)
	if _, err := client.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(client.ID())
	select {}
}

// beStockPlugin serves as a plugin does that was written with go-plugin alone.
func beStockPlugin() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: sdk.CookieKey, MagicCookieValue: sdk.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{sdk.ProtocolVersion: {"plugin": emptyPlugin{}}},
		GRPCServer:       goplugin.DefaultGRPCServer, Logger: hclog.NewNullLogger(),
	})
}

// emptyPlugin serves nothing.
type emptyPlugin struct{ connPlugin }

func (emptyPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return nil }

func stockSocket(t *testing.T) error {
	var dir string
	c := newStock(t, "stockplugin", func(c *goplugin.ClientConfig) { dir = c.UnixSocketConfig.TempDir })
	kill(t, startStock(t, c), syscall.SIGKILL)
	for end := time.Now().Add(10 * time.Second); !c.Exited(); {
		if time.Now().After(end) {
			t.Fatal("it lives")
		}
	}
	return leftSockets(dir)
}

func leftSockets(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "plugin*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind: %v", left)
	}
	return err
}

func oursSocket(t *testing.T) error {
	p := start(t, spec(t, "good"))
	old := pid(t, p)
	room := p.launcher.room.dir
	before, err := filepath.Glob(filepath.Join(room, "plugin-dir*", "plugin*"))
	if err != nil || len(before) != 1 {
		t.Fatalf("the sockets of one process: %v, %v", before, err)
	}
	kill(t, old, syscall.SIGKILL)
	awaitOther(t, p, old)
	for _, path := range append(before, filepath.Dir(before[0])) {
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("left behind: %v", path)
		}
	}
	return nil
}

func stockChatter(t *testing.T) error {
	_, err := newStock(t, "chatter", nil).Start()
	if err == nil {
		t.Fatal("it has started")
	}
	if strings.Contains(err.Error(), "Unrecognized remote plugin message") {
		return errors.New(strings.Fields(err.Error())[0] + " remote plugin message, and nothing of where or what to do")
	}
	return nil
}

func oursChatter(t *testing.T) error {
	_, err := Start(t.Context(), []Spec{spec(t, "chatter")}, Options{})
	if err == nil || !strings.Contains(err.Error(), `wrote "Hello, I am a program" to its standard output`) || !strings.Contains(err.Error(), "mta.hcl:12:1") {
		return fmt.Errorf("it was told: %w", err)
	}
	return nil
}

func stockLongLine(t *testing.T) error {
	c := newStock(t, "rawline", nil)
	startStock(t, c)
	return configureStock(t, c, glance)
}

func oursLongLine(t *testing.T) error {
	_, err := rcpt(t.Context(), start(t, spec(t, "rawline")), "ann")
	return err
}

func stockTerm(t *testing.T) error {
	c := newStock(t, "stockplugin", nil)
	kill(t, startStock(t, c), syscall.SIGTERM)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if c.Exited() {
			return errors.New("it has ended")
		}
	}
	return nil
}

func oursTerm(t *testing.T) error {
	p := start(t, spec(t, "good"))
	old := pid(t, p)
	kill(t, old, syscall.SIGTERM)
	if pid(t, p) != old {
		return errors.New("it has ended")
	}
	return nil
}

func stockStop(t *testing.T) error {
	c := newStock(t, "stockplugin", nil)
	n := startStock(t, c)
	halt(t, n)
	defer func() { _ = syscall.Kill(n, syscall.SIGKILL) }()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if c.Exited() {
			return nil
		}
	}
	return errors.New("nothing happens")
}

func oursStop(t *testing.T) error {
	p := start(t, spec(t, "good"))
	old := pid(t, p)
	proc := p.workers[0].current.Load()
	halt(t, old)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := rcpt(ctx, p, "ann"); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the caller was told: %w", err)
	}
	<-proc.child.gone
	awaitOther(t, p, old)
	return nil
}

// stockDrain stops a plugin while it works on a call, which would end well if it were let.
func stockDrain(t *testing.T) error {
	c := newStock(t, "good", nil)
	startStock(t, c)
	p := &process{client: stockCalls(t, c)}
	if err := p.configure(t.Context(), &Spec{Name: "faulty", StateDir: t.TempDir()}, nil, false); err != nil {
		t.Fatal(err)
	}
	defer p.client.Close()
	file := filepath.Join(t.TempDir(), "go")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		_, err := p.client.Rcpt(ctx, &mail.Session{ID: "s", Helo: file}, mail.Recipient{Address: mail.MustParseAddress("wait@x.example")})
		asked <- err
	}()
	for p.client.Waiting() == 0 {
	}
	go c.Kill()
	select {
	case err := <-asked:
		return err
	case <-time.After(glance):
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return <-asked
}

func oursDrain(t *testing.T) error {
	p := start(t, spec(t, "good"))
	release := occupy(t, p, "", 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		p.end(ctx)
	}()
	<-p.workers[0].ended // from here on it is drained
	err := release()[0]
	<-ended
	return err
}

// beStockPrinter prints, again and again, what an author left in.
func beStockPrinter() {
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			fmt.Println("stray print")
		}
	}()
	beStockPlugin()
}

// journal is a log that is read while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// tells waits until a line is there.
func (j *journal) tells(line string, patience time.Duration) error {
	for end := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
		j.mu.Lock()
		text := j.text.String()
		j.mu.Unlock()
		if strings.Contains(text, line) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%q is not in the log", line)
		}
	}
}

func stockPrints(t *testing.T) error {
	log := new(journal)
	c := newStock(t, "stockprinter", func(c *goplugin.ClientConfig) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace})
	})
	startStock(t, c)
	return log.tells("stray print", glance)
}

func oursPrints(t *testing.T) error {
	log := new(journal)
	s := spec(t, "good")
	h, err := Start(t.Context(), []Spec{s}, Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Stop(t.Context())
	if _, err := rcpt(t.Context(), h.Plugin(s.Name), "chatter"); err != nil {
		return err
	}
	return log.tells(`msg="stray print"`, 20*time.Second)
}

func stockRestart(t *testing.T) error {
	c := newStock(t, "stockplugin", nil)
	old := startStock(t, c)
	kill(t, old, syscall.SIGKILL)
	for end := time.Now().Add(10 * time.Second); !c.Exited(); {
		if time.Now().After(end) {
			t.Fatal("it lives")
		}
	}
	if _, err := c.Start(); err != nil {
		return err
	}
	n, err := strconv.Atoi(c.ID())
	if err != nil || n == old || !isRunning(n) {
		return errors.New("Start returns no error, and nothing runs")
	}
	return nil
}

func oursRestart(t *testing.T) error {
	p := start(t, spec(t, "good"))
	for range 3 {
		old := pid(t, p)
		kill(t, old, syscall.SIGKILL)
		awaitOther(t, p, old)
	}
	return nil
}

// stockConfigure asks the second process of a plugin, which a host has started anew with what go-plugin has for that.
func stockConfigure(t *testing.T) error {
	first := newStock(t, "good", nil)
	n := startStock(t, first)
	if err := configureStock(t, first, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	kill(t, n, syscall.SIGKILL)
	second := newStock(t, "good", nil)
	startStock(t, second)
	client := stockCalls(t, second)
	if err := client.Open(); err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.Lookup(ctx, nil)
	return err
}

func oursConfigure(t *testing.T) error {
	s := spec(t, "good")
	s.Config = []byte(`{"limit": 7}`)
	p := start(t, s)
	old := pid(t, p)
	kill(t, old, syscall.SIGKILL)
	awaitOther(t, p, old)
	v, err := rcpt(t.Context(), p, "limit")
	if err == nil && v.Reply.Text != "7" {
		err = fmt.Errorf("the limit is %s", v.Reply.Text)
	}
	return err
}

func stockPinned(t *testing.T) error {
	sum, err := hex.DecodeString(sumOf(t, os.Args[0]))
	if err != nil {
		t.Fatal(err)
	}
	secure := &goplugin.SecureConfig{Checksum: sum, Hash: sha256.New()}
	for range 2 {
		c := newStock(t, "stockplugin", func(c *goplugin.ClientConfig) { c.SecureConfig = secure })
		if _, err := c.Start(); err != nil {
			return err
		}
	}
	return nil
}

func oursPinned(t *testing.T) error {
	s := spec(t, "good")
	s.Builtin, s.Path, s.SHA256 = "", os.Args[0], sumOf(t, os.Args[0])
	p := start(t, s)
	old := pid(t, p)
	kill(t, old, syscall.SIGKILL)
	awaitOther(t, p, old)
	return nil
}
