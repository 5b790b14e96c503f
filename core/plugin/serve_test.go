package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
	"github.com/pabal-mta/mta/sdk/pluginv1"
)

// asker is a plugin that does with its host what the local part of a recipient says.
type asker struct{ host sdk.Host }

func newAsker(ctx context.Context, _ struct{}, h sdk.Host) (any, error) {
	_, err := h.KV().Incr(ctx, "born", 1, 0)
	if os.Getenv("MODE") == "asker-early" {
		if _, err := h.Authenticate(ctx, mail.Login{User: "ann", Password: "right"}); err != nil {
			return nil, err
		}
	}
	return &asker{h}, err
}

func (a *asker) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	if l.Password != "right" {
		return mail.Identity{}, mail.ErrBadLogin
	}
	return mail.Identity{User: l.User}, nil
}

func (a *asker) Rcpt(ctx context.Context, s *mail.Session, r mail.Recipient) (mail.Verdict, error) {
	said, err := a.do(ctx, r.Address.Local(), s.Helo)
	if err != nil {
		said = "error: " + err.Error()
	}
	return mail.Reject(550, "5.7.1", "%s", strings.NewReplacer("\r", " ", "\n", " ").Replace(said)), nil
}

func (a *asker) do(ctx context.Context, what, arg string) (string, error) {
	kv := a.host.KV()
	switch what {
	case "set":
		return "", kv.Set(ctx, "k", []byte(arg), 0)
	case "get":
		v, _, err := kv.Get(ctx, "k")
		return string(v), err
	case "die":
		os.Exit(3)
	case "login":
		id, err := a.host.Authenticate(ctx, mail.Login{User: "ann", Password: arg})
		return id.User, err
	case "flood":
		return flood(ctx, kv)
	case "oversize":
		return "", kv.Set(ctx, "k", make([]byte, 10<<20), 0)
	case "stall":
		return "", stall(ctx, arg)
	case "intrude":
		return intrude(ctx, arg)
	}
	return "", errors.New("what?")
}

// flood keeps 1000 goroutines busy with the store.
func flood(ctx context.Context, kv sdk.KV) (string, error) {
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				_ = kv.Set(ctx, fmt.Sprint(i, "-", j), make([]byte, 60<<10), 0)
			}
		})
	}
	wg.Wait()
	return "", ctx.Err()
}

// stall opens connections that say nothing, for as long as it may.
func stall(ctx context.Context, socket string) error {
	closed := 0
	for range 100 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		buf := make([]byte, 1000)
		for err == nil {
			_, err = c.Read(buf)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			closed++
		}
	}
	if closed < 100-maxHostConns {
		return fmt.Errorf("only %d of 100 connections were closed", closed)
	}
	return nil
}

// intrude reads another plugin's value, by its socket, with a token of its own and with none.
func intrude(ctx context.Context, socket string) (string, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var said []string
	for _, ctx := range []context.Context{ctx, metadata.AppendToOutgoingContext(ctx, "mta-host-token", "guessed"), metadata.AppendToOutgoingContext(ctx, "mta-host-token", "")} {
		_, err := pluginv1.NewHostClient(conn).KvGet(ctx, &pluginv1.KvGetRequest{Key: []byte("k")})
		stream, err2 := pluginv1.NewHostClient(conn).Submit(ctx)
		if err2 == nil {
			_, err2 = stream.CloseAndRecv()
		}
		said = append(said, status.Code(err).String(), status.Code(err2).String())
	}
	return strings.Join(said, " "), nil
}

// fakeServices gives each label a store of its own, as the engine does.
type fakeServices struct {
	mu     sync.Mutex
	labels map[string]*plugintest.Host
}

func (f *fakeServices) of(label string) Services {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.labels == nil {
		f.labels = map[string]*plugintest.Host{}
	}
	if f.labels[label] == nil {
		f.labels[label] = new(plugintest.Host)
	}
	return f.labels[label]
}

func startAskers(t *testing.T, f *fakeServices, specs ...Spec) *Host {
	t.Helper()
	h, err := Start(t.Context(), specs, Options{Logger: slog.New(slog.DiscardHandler), Services: f.of})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		h.Stop(ctx)
		if left, _ := filepath.Glob(filepath.Join(specs[0].RunDir, "room-*", "host")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return h
}

func askerSpec(t *testing.T, name, mode string) Spec {
	s := spec(t, mode)
	s.Name = name
	return s
}

// ask has a plugin do something with its host.
func ask(t *testing.T, p *Plugin, what, arg string) string {
	t.Helper()
	v, err := p.Rcpt(t.Context(), &mail.Session{ID: "s", Helo: arg, Remote: netip.AddrPort{}}, mail.Recipient{Address: mail.MustParseAddress(what + "@x.example")})
	if err != nil {
		return "failed: " + err.Error()
	}
	return v.Reply.Text
}

// TestHostOfEach proves that a plugin finds its own values, after a crash too, and that nobody else does: not under another
// label, and not with the other's socket in hand.
func TestHostOfEach(t *testing.T) {
	f := new(fakeServices)
	h := startAskers(t, f, askerSpec(t, "one", "asker"), askerSpec(t, "two", "asker"))
	one, two := h.Plugin("one"), h.Plugin("two")
	if said := ask(t, one, "set", "mine"); said != "" {
		t.Fatal(said)
	}
	if said := ask(t, two, "get", ""); said != "" {
		t.Errorf("two sees %q", said)
	}
	ask(t, one, "die", "")
	if said := ask(t, one, "get", ""); said != "mine" {
		t.Errorf("after a crash: %q", said)
	}
	if n, _, _ := f.labels["one"].Get(t.Context(), "born"); len(n) == 0 || string(n) == "1" {
		t.Errorf("New was called %q times", n)
	}
	socket := one.launcher.host.socket
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	want := strings.TrimSpace(strings.Repeat(codes.Unauthenticated.String()+" ", 6))
	if said := ask(t, two, "intrude", socket); said != want {
		t.Errorf("two got into one's host: %s", said)
	}
}

// TestHostAuthenticate asks another plugin, before that one is up even; without auth in the block it is told what to write.
func TestHostAuthenticate(t *testing.T) {
	first, users, none := askerSpec(t, "imap", "asker-early"), askerSpec(t, "users", "asker"), askerSpec(t, "none", "asker")
	first.Auth = "users"
	h := startAskers(t, new(fakeServices), first, users, none)
	if said := ask(t, h.Plugin("imap"), "login", "right"); said != "ann" {
		t.Error(said)
	}
	if said := ask(t, h.Plugin("imap"), "login", "wrong"); !strings.Contains(said, mail.ErrBadLogin.Error()) {
		t.Error(said)
	}
	if said := ask(t, h.Plugin("none"), "login", "right"); !strings.Contains(said, `the block of plugin "none" has no auth = plugin.NAME`) {
		t.Error(said)
	}
}

// TestHostAuthenticatorMissing starts a plugin whose authenticator does not come up: both are told of, soon.
func TestHostAuthenticatorMissing(t *testing.T) {
	first, users := askerSpec(t, "imap", "asker-early"), askerSpec(t, "users", "exit")
	first.Auth = "users"
	_, err := Start(t.Context(), []Spec{first, users}, Options{Logger: slog.New(slog.DiscardHandler), Services: new(fakeServices).of})
	if err == nil || !strings.Contains(err.Error(), `"imap"`) || !strings.Contains(err.Error(), `"users"`) {
		t.Error(err)
	}
}

// TestHostileToHost lets a plugin do its worst to its host, and another one go on meanwhile.
func TestHostileToHost(t *testing.T) {
	f := new(fakeServices)
	bad, good := askerSpec(t, "bad", "asker"), askerSpec(t, "good", "asker")
	bad.Timeout = 2 * time.Second
	h := startAskers(t, f, bad, good)
	if said := ask(t, h.Plugin("bad"), "oversize", ""); !strings.Contains(said, "error") {
		t.Error(said)
	}
	if said := ask(t, h.Plugin("bad"), "stall", h.Plugin("bad").launcher.host.socket); said != "" {
		t.Error(said)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ask(t, h.Plugin("bad"), "flood", "")
	}()
	calls := 0
	for busy := true; busy; calls++ {
		if said := ask(t, h.Plugin("good"), "set", "x"); said != "" {
			t.Error(said)
		}
		select {
		case <-done:
			busy = false
		default:
		}
	}
	if calls < 10 {
		t.Errorf("the good plugin made %d calls while the bad one flooded", calls)
	}
	if said := ask(t, h.Plugin("good"), "get", ""); said != "x" {
		t.Error(said)
	}
}
