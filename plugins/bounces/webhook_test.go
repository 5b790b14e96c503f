package bounces

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestWebhook(t *testing.T) {
	type request struct {
		signature string
		body      []byte
	}
	got := make(chan request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v %v", r.Method, r.Header, err)
		}
		got <- request{r.Header.Get("Mta-Signature"), b}
	}))
	defer srv.Close()
	b := notifier(t, Config{Webhook: srv.URL, Secret: "s3cret", GiveUp: time.Hour, Suppress: []string{"*@example.com"}})
	f := failure(mail.FailurePermanent, "Message-ID: <1@example.com>\r\n", failed("bob@example.org", "mx.example.org", 550, "5.1.1", "no"))
	if n, err := b.Bounce(t.Context(), f); err != nil || n.Action != mail.NoticeSuppress {
		t.Fatalf("%+v, %v", n, err)
	}
	r := <-got
	seconds, _, _ := strings.Cut(strings.TrimPrefix(r.signature, "t="), ",")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || r.signature != sign([]byte("s3cret"), time.Unix(unix, 0), r.body) || time.Since(time.Unix(unix, 0)).Abs() > time.Minute {
		t.Errorf("the signature is %q, %v", r.signature, err)
	}
	var p posted
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatal(err)
	}
	if p.Kind != "failed" || p.ID != f.ID || !p.Suppressed || p.MessageID != "<1@example.com>" || len(p.Recipients) != 1 ||
		p.Recipients[0].Address != "bob@example.org" || p.Recipients[0].Enhanced != "5.1.1" || !p.Expires.Equal(f.Expires) {
		t.Errorf("posted was %s", r.body)
	}
}

// pipes is a network of one server, without sockets, so that its time can be virtual.
type pipes struct {
	conns chan net.Conn
	end   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs a hook against a handler, in virtual time, and returns the hook's log when it has nothing more to do.
func serve(t *testing.T, wait time.Duration, handler http.HandlerFunc, offers int) string {
	t.Helper()
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(p) })
	var log bytes.Buffer
	h := newHook(Config{Webhook: "http://localhost/", GiveUp: time.Hour}, slog.New(slog.NewTextHandler(&log, nil)), p.dial)
	for range offers {
		h.offer(failure(mail.FailurePermanent, "", failed("bob@example.org", "", 550, "", "no")), nil, false)
	}
	time.Sleep(wait)
	synctest.Wait()
	h.close()
	close(p.end)
	srv.Close()
	served.Wait()
	return log.String()
}

func TestWebhookRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		log := serve(t, 2*time.Hour, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			at = append(at, time.Since(start))
			if len(at) < 4 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}, 2)
		want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 7 * time.Second}
		if len(at) != len(want) || log != "" {
			t.Fatalf("calls at %v, log %s", at, log)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("call %d at %v, not %v", i, at[i], want[i])
			}
		}
	})
}

func TestWebhookGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		handler  http.HandlerFunc
		min, max int // calls for one report
	}{
		"always in trouble": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, 10, 16},
		"refused":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, 1, 1},
		"sent elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusTemporaryRedirect)
		}, 1, 1},
		"hangs":      {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 5, 16},
		"breaks off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 10, 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				calls := 0
				log := serve(t, 3*time.Hour, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					mu.Lock()
					calls++
					mu.Unlock()
					c.handler(w, r)
				}, 1)
				if calls < c.min || calls > c.max || strings.Count(log, "given up") != 1 {
					t.Errorf("%d calls, log %s", calls, log)
				}
			})
		})
	}
}

func TestWebhookQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := serve(t, 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, maxWaiting+50)
		if n := strings.Count(log, "is dropped"); n < 49 || n > 50 {
			t.Errorf("%d were dropped", n)
		}
	})
}
