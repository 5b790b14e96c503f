package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// noopArg makes the test binary a plugin that answers at every stage and does nothing.
const noopArg = "be-a-noop-plugin"

// noop wants header and body of each message, reads them, and has no objection.
type noop struct{}

func noopPlugin() sdk.Plugin[struct{}] {
	return sdk.Plugin[struct{}]{
		Name: "noop", Version: "1", Kinds: noop{}, New: func(context.Context, struct{}, sdk.Host) (any, error) { return noop{}, nil },
	}
}

func (noop) Connect(context.Context, *mail.Session) (mail.Verdict, error) {
	return mail.Continue(), nil
}
func (noop) Helo(context.Context, *mail.Session) (mail.Verdict, error) { return mail.Continue(), nil }
func (noop) Mail(context.Context, *mail.Session) (mail.Verdict, error) { return mail.Continue(), nil }

func (noop) Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error) {
	return mail.Continue(), nil
}

func (noop) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	_, err := io.Copy(io.Discard, mail.Reader(m.Content))
	return mail.Continue(), err
}

// benchEngine is a server with two listeners, "without" and "with" the plugin at every stage, that relays to a sink.
func benchEngine(b testing.TB) *Engine {
	dir, err := os.MkdirTemp("", "mta")
	if err != nil {
		b.Fatal(err)
	}
	sink := benchSink(b)
	file := filepath.Join(dir, "mta.hcl")
	var stages strings.Builder
	for _, s := range []string{"connect", "helo", "mail", "rcpt", "message"} {
		fmt.Fprintf(&stages, "  on %q {\n    use = [plugin.noop]\n  }\n", s)
	}
	text := fmt.Sprintf(`hostname = "mx.here.example"
networks = ["127.0.0.0/8"]
data_dir = %q
listener "without" {
  address = ["127.0.0.2:0"]
}
listener "with" {
  address  = ["127.0.0.3:0"]
  pipeline = pipeline.noop
}
plugin "noop" {
  source = "builtin:noop"
}
pipeline "noop" {
%s}
route "out" {
  smarthost = %q
}
queue {
  min_free    = "1MiB"
  connections = 20
}
`, filepath.Join(dir, "var"), &stages, sink)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	loader := Loader{Path: file, Command: []string{self, noopArg}, Builtins: []string{"noop"}}
	e := New(Options{ConfigPath: file, Builtin: loader.Command, Logger: slog.New(slog.DiscardHandler), Load: func(ctx context.Context) (*config.Config, error) {
		cfg, problems := loader.Load(ctx, true)
		if problems.HasErrors() {
			return nil, problems
		}
		return cfg, nil
	}})
	if err := e.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		e.Close(context.Background())
		os.RemoveAll(dir)
	})
	return e
}

// benchSink takes every message and keeps none.
func benchSink(b testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go (&faultSink{quiet: true}).serve(textproto.NewConn(c))
		}
	}()
	return l.Addr().String()
}

// relay sends n messages of 4 KiB over twenty connections of a listener and returns how many a second went out at the
// other end.
func relay(b *testing.B, e *Engine, listener string, n int) float64 {
	r := &faultRig{engine: e, accepted: map[string]bool{}}
	began := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			s := r.session(listener)
			defer s.close()
			for range n / 20 {
				if _, _, code := r.send(s, "ann@here.example", "bob@there.example", 4000); code != 250 {
					b.Error(s)
					return
				}
			}
		})
	}
	wg.Wait()
	for r.queued() > 0 {
		time.Sleep(time.Millisecond)
	}
	return float64(n) / time.Since(began).Seconds()
}

// BenchmarkNoopFilter relays messages without and with a plugin at every stage, by turns, and tells the medians and how
// much the plugin takes off. Run it with -benchtime 10x: ten rounds of 2,000 messages each.
func BenchmarkNoopFilter(b *testing.B) {
	e := benchEngine(b)
	relay(b, e, "with", 1000)
	var without, with []float64
	for b.Loop() {
		without = append(without, relay(b, e, "without", 2000))
		with = append(with, relay(b, e, "with", 2000))
	}
	slices.Sort(without)
	slices.Sort(with)
	b.ReportMetric(without[len(without)/2], "without/s")
	b.ReportMetric(with[len(with)/2], "with/s")
	b.ReportMetric(100*(1-with[len(with)/2]/without[len(without)/2]), "%off")
}

// BenchmarkHook asks the plugin about a recipient, one call at a time.
func BenchmarkHook(b *testing.B) {
	g := benchEngine(b).use()
	defer g.done()
	p := g.host.Plugin("noop")
	s := &mail.Session{ID: "0123456789abc", Listener: "mx", Helo: "client.example.com", ESMTP: true, From: mail.MustParseAddress("sender@example.com")}
	r := mail.Recipient{Address: mail.MustParseAddress("ann@example.com")}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := p.Rcpt(b.Context(), s, r); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkBody hands a message to the plugin, which reads it: one that no plugin has been given yet, and one that another has
// been asked about already.
func BenchmarkBody(b *testing.B) {
	g := benchEngine(b).use()
	defer g.done()
	for _, size := range []int{128 << 10, 1 << 20, 10 << 20} {
		raw := append([]byte("Subject: x\r\n\r\n"), bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), size/72)...)
		kib, same := fmt.Sprint(size>>10), mail.Bytes(raw)
		b.Run("first/"+kib, func(b *testing.B) { benchBody(b, g, func() mail.Content { return mail.Bytes(raw) }) })
		b.Run("again/"+kib, func(b *testing.B) { benchBody(b, g, func() mail.Content { return same }) })
	}
}

func benchBody(b *testing.B, g *generation, content func() mail.Content) {
	var took []time.Duration
	ours, theirs := cpuOf("self"), cpuOf(strconv.Itoa(g.host.Plugin("noop").Status().PID))
	for b.Loop() {
		m := &mail.Message{ID: "1", Content: content(), Envelope: mail.Envelope{From: mail.MustParseAddress("sender@example.com")}}
		began := time.Now()
		if _, err := g.host.Plugin("noop").Message(b.Context(), &mail.Session{}, m); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	used := cpuOf("self") - ours + cpuOf(strconv.Itoa(g.host.Plugin("noop").Status().PID)) - theirs
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(used.Seconds()*1000/float64(len(took)), "cpu-ms/op")
}

// cpuOf returns the processor time that a process has used, where the system tells it.
func cpuOf(pid string) time.Duration {
	stat, _ := os.ReadFile("/proc/" + pid + "/stat")
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
