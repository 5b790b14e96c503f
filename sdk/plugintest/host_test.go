package plugintest_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

// hosted returns the host that a plugin sees, and the one behind it. New itself calls the host once.
func hosted(t *testing.T, h *plugintest.Host) sdk.Host {
	t.Helper()
	var seen sdk.Host
	plugintest.WithHost(t, h, sdk.Of(sdk.Plugin[struct{}]{Name: "hosted", New: func(ctx context.Context, _ struct{}, h sdk.Host) (any, error) {
		seen = h
		_, err := h.KV().Incr(ctx, "started", 1, 0)
		return &echo{}, err
	}}), nil)
	return seen
}

// TestVirtualTime proves that values live as long as they should, with the whole wire inside a bubble of virtual time.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hosted(t, new(plugintest.Host))
		ctx := t.Context()
		kv := h.KV()
		if err := kv.Set(ctx, "k", []byte("v"), time.Hour); err != nil {
			t.Fatal(err)
		}
		if n, err := kv.Incr(ctx, "n", 5, time.Hour); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Hour - time.Second)
		if n, err := kv.Incr(ctx, "n", 1, time.Hour); n != 6 || err != nil {
			t.Error("the number was lost:", n, err)
		}
		if _, found, err := kv.Get(ctx, "k"); !found || err != nil {
			t.Error("the value was lost:", err)
		}
		time.Sleep(time.Second)
		if v, found, err := kv.Get(ctx, "k"); found || err != nil {
			t.Errorf("%q outlived its time, %v", v, err)
		}
		if n, err := kv.Incr(ctx, "n", 1, time.Hour); n != 1 || err != nil {
			t.Error("a later Incr gave the number more time:", n, err)
		}
	})
}

func TestKV(t *testing.T) {
	fake := new(plugintest.Host)
	kv, ctx := hosted(t, fake).KV(), t.Context()
	if v, found, err := kv.Get(ctx, "started"); string(v) != "1" || !found || err != nil {
		t.Error("New could not use its host:", string(v), err)
	}
	for _, key := range []string{"", strings.Repeat("k", 513)} {
		if err := kv.Set(ctx, key, nil, 0); !errors.Is(err, sdk.ErrLimit) {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
	if err := kv.Set(ctx, strings.Repeat("\xff", 512), make([]byte, 64<<10), 0); err != nil {
		t.Error(err)
	}
	if err := kv.Set(ctx, "k", make([]byte, 64<<10+1), 0); !errors.Is(err, sdk.ErrLimit) {
		t.Error(err)
	}
	if err := kv.Set(ctx, "k", nil, -time.Second); !errors.Is(err, sdk.ErrLimit) {
		t.Error("a negative time to live:", err)
	}
	steps := []struct {
		old, new string
		want     bool
	}{{"-", "a", true}, {"-", "b", false}, {"x", "b", false}, {"a", "", true}, {"-", "c", false}, {"", "c", true}, {"c", "-", true}, {"c", "-", false}, {"-", "-", true}}
	orNil := func(s string) []byte {
		if s == "-" {
			return nil
		}
		return []byte(s)
	}
	for i, s := range steps {
		if ok, err := kv.CompareAndSet(ctx, "cas", orNil(s.old), orNil(s.new), 0); ok != s.want || err != nil {
			t.Errorf("step %d: %v, %v", i, ok, err)
		}
	}
	if err := errors.Join(kv.Set(ctx, "word", []byte("x"), 0), kv.Delete(ctx, "k"), kv.Delete(ctx, "k")); err != nil {
		t.Error(err)
	}
	if _, err := kv.Incr(ctx, "word", 1, 0); err == nil {
		t.Error("a word was counted up")
	}
	if slices.Contains(fake.Keys(), "cas") || !slices.Contains(fake.Keys(), "word") {
		t.Error(fake.Keys())
	}
	fake.Fail(errors.New("the disk is\r\ngone"))
	if _, _, err := kv.Get(ctx, "word"); err == nil || strings.ContainsAny(err.Error(), "\r\n") {
		t.Error(err)
	}
}

func TestSubmit(t *testing.T) {
	fake := new(plugintest.Host)
	h, ctx := hosted(t, fake), t.Context()
	m := &mail.Message{Envelope: envelope(), Content: mail.Bytes(make([]byte, 1<<20))}
	id, err := h.Submit(ctx, m)
	if err != nil || id != "test-1" {
		t.Fatal(id, err)
	}
	got := fake.Submitted()[0]
	if got.Content.Size() != 1<<20 || got.Envelope.To[0] != m.Envelope.To[0] || got.Envelope.From != m.Envelope.From {
		t.Errorf("%+v", got.Envelope)
	}
	m.Content = mail.Bytes(make([]byte, 8<<20+1))
	if _, err := h.Submit(ctx, m); !errors.Is(err, sdk.ErrLimit) {
		t.Error(err)
	}
	if _, err := h.Submit(ctx, &mail.Message{Content: mail.Bytes(nil)}); !errors.Is(err, sdk.ErrLimit) {
		t.Error("nobody to send it to:", err)
	}
	reply := mail.NewReply(452, "4.3.1", "full")
	fake.Refuse = &reply
	var r *mail.Reply
	m.Content = mail.Bytes([]byte("a: b\r\n\r\n"))
	if _, err := h.Submit(ctx, m); !errors.As(err, &r) || r.Code != 452 {
		t.Error(err)
	}
}

func TestAuthenticateAndResolve(t *testing.T) {
	fake := new(plugintest.Host)
	h, ctx := hosted(t, fake), t.Context()
	if _, err := h.Authenticate(ctx, mail.Login{User: "ann"}); !errors.Is(err, sdk.ErrNotProvided) || !strings.Contains(err.Error(), "auth = ") {
		t.Error(err)
	}
	fake.Accounts = map[string]string{"ann": "secret"}
	if id, err := h.Authenticate(ctx, mail.Login{User: "ann", Password: "secret"}); id.User != "ann" || err != nil {
		t.Error(id, err)
	}
	if _, err := h.Authenticate(ctx, mail.Login{User: "ann", Password: "x"}); err != mail.ErrBadLogin {
		t.Error(err)
	}
	ip := netip.MustParseAddr("2001:db8::1")
	fake.Zone = map[string]plugintest.Records{"a.example": {MX: []mail.MX{{Host: "mx.a.example", Pref: 10}}, Addresses: []netip.Addr{ip}, TXT: []string{"v=spf1 \xff"}}}
	r := h.Resolver()
	if mx, err := r.MX(ctx, "a.example"); err != nil || !slices.Equal(mx, fake.Zone["a.example"].MX) {
		t.Error(mx, err)
	}
	if list, err := r.Addresses(ctx, "a.example"); err != nil || !slices.Equal(list, []netip.Addr{ip}) {
		t.Error(list, err)
	}
	if list, err := r.TXT(ctx, "a.example"); err != nil || !slices.Equal(list, []string{"v=spf1 \xff"}) {
		t.Error(list, err)
	}
	if _, err := r.TXT(ctx, "b.example"); !errors.Is(err, sdk.ErrNotFound) {
		t.Error(err)
	}
	if _, err := r.TXT(ctx, strings.Repeat("a", 256)); !errors.Is(err, sdk.ErrLimit) {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := new(plugintest.Host)
		m := hosted(t, fake).Metrics()
		m.Count("seen_total", 2)
		m.Count("seen_total", 3)
		m.Gauge("open", 7)
		m.Gauge("open", 4)
		m.Count("Bad name", 1)
		m.Count("open", 1)        // it is a gauge
		m.Count("seen_total", -1) // a counter does not fall
		time.Sleep(2 * time.Second)
		if fake.Metric("seen_total") != 5 || fake.Metric("open") != 4 || fake.Metric("Bad name") != 0 {
			t.Error(fake.Metric("seen_total"), fake.Metric("open"))
		}
		fake.Fail(errors.New("away"))
		m.Count("seen_total", 1)
		time.Sleep(2 * time.Second)
		fake.Fail(nil)
		time.Sleep(2 * time.Second)
		if fake.Metric("seen_total") != 6 {
			t.Error("what could not be reported was lost:", fake.Metric("seen_total"))
		}
	})
}

func TestObserver(t *testing.T) {
	p := plugintest.New(t, echoPlugin(), nil)
	when := time.Unix(1700000000, 5)
	sent := []mail.Event{{Name: "attempt", Time: when, ID: "q", To: "a@b.example\xff", Class: "tempfail", Attempt: 2, Count: 3, Next: when, Took: time.Second, Error: "no"}, {Name: "done"}}
	if err := p.Observe(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	got := last.got.([]mail.Event)
	sent[0].To = "a@b.example\uFFFD"
	if !slices.Equal(got, sent) {
		t.Errorf("%+v", got)
	}
}
