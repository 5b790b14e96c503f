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
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

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

	t     testing.TB
	life  *life
	begin func() *Plugin // starts it once more, with the same host and the same state
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
	return first(t, h, config, func() *life { return inMemory(t, p, h) })
}

// first starts a plugin for the first time.
func first(t testing.TB, h *Host, config Config, begin func() *life) *Plugin {
	t.Helper()
	state := t.TempDir()
	var start func() *Plugin
	start = func() *Plugin {
		t.Helper()
		l := begin()
		p, problems := configure(t, l, state, config, false)
		failOn(t, problems)
		p.Host, p.t, p.life, p.begin = h, t, l, start
		return p
	}
	return start()
}

// hostToken opens the host in tests.
const hostToken = "test"

// Problems returns what a plugin finds wrong with a configuration, without starting to work with it.
func Problems(t testing.TB, p sdk.Served, config Config) []schema.Problem {
	t.Helper()
	_, problems := configure(t, inMemory(t, p, new(Host)), "", config, true)
	return problems
}

// Exec runs a program as the server would, with the arguments and with extra environment variables ("KEY=value") that
// args may begin with.
func Exec(t testing.TB, path string, config Config, args ...string) *Plugin {
	t.Helper()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	for len(args) > 0 && strings.Contains(args[0], "=") && !strings.HasPrefix(args[0], "-") {
		env, args = append(env, args[0]), args[1:]
	}
	h := new(Host)
	return first(t, h, config, func() *life {
		cmd := exec.Command(path, args...)
		cmd.Env = env
		return inProcess(t, cmd, h)
	})
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

func configure(t testing.TB, l *life, state string, config Config, validateOnly bool) (*Plugin, []schema.Problem) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	res, err := l.plugin.Client.Configure(ctx, &pb.ConfigureRequest{
		ConfigJson: configJSON(t, config), ValidateOnly: validateOnly, Instance: "test", StateDir: state,
		HostSocket: l.host, HostToken: hostToken,
	})
	if err != nil {
		t.Fatalf("configuring the plugin: %v", err)
	}
	p := &Plugin{Client: l.plugin.Client}
	for _, k := range res.GetKinds() {
		p.Kinds = append(p.Kinds, k.GetName())
	}
	if validateOnly || len(res.GetDiagnostics()) > 0 {
		return p, calls.Problems(res)
	}
	if err := p.Open(); err != nil {
		t.Fatalf("opening the stream of calls: %v", err)
	}
	t.Cleanup(func() {
		// The plugin says goodbye to its host; a test may have drained or killed it already.
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		_, _ = p.Drain(ctx, drainTimeout)
		p.Close()
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

// testWriter writes into the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil { // a test that is over can't log any more
		w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}
