package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/archive"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/queue"
	"github.com/pabal-mta/mta/sdk/mail"
)

// fake is a server with three messages.
type fake struct {
	records  []*queue.Record
	acted    []string
	stopped  chan struct{}
	reload   error
	notReady error

	suspended string
}

func newFake() *fake {
	record := func(id queue.ID, from, to, held string) *queue.Record {
		r := &queue.Record{ID: id, Size: 1234, Received: time.Now().Add(-3 * time.Hour), Next: time.Now().Add(time.Hour), Held: held, Attempts: 2}
		if from != "" {
			r.Envelope.From = mail.MustParseAddress(from)
		}
		r.Recipients = []queue.Recipient{{
			Recipient: mail.Recipient{Address: mail.MustParseAddress(to)},
			Reply:     mail.NewReply(450, "4.7.1", "<b>later</b>"), Host: "mx.example",
		}}
		return r
	}
	return &fake{
		records: []*queue.Record{
			record(1<<22, "ann@example.com", "bob@example.net", ""),
			record(2<<22, "", "ann@example.com", ""),
			record(3<<22, "ann@example.com", `"<script>"@example.net`, "by <b>ops</b>"),
		},
		stopped: make(chan struct{}),
	}
}

func (f *fake) Status() Status {
	return Status{Hostname: "mx1.example.com", Ready: "ok", Started: time.Now(), Loaded: time.Now(),
		Queue:   QueueStatus{Waiting: 2, Held: 1, FreeDisk: 1 << 30},
		Plugins: []PluginStatus{{Name: "users", State: "healthy", Calls: 7}, {Name: "bad", State: "restarting", Problem: "<i>died</i>"}}}
}
func (f *fake) Ready() error                 { return f.notReady }
func (f *fake) Reload(context.Context) error { return f.reload }
func (f *fake) Stop()                        { close(f.stopped) }

func (f *fake) List(_ context.Context, filter queue.Filter, fn func(Listed) error) error {
	for _, r := range f.records {
		if len(filter.IDs) > 0 && !slices.Contains(filter.IDs, r.ID) || filter.State == "held" && r.Held == "" {
			continue
		}
		if err := fn(Listed{Record: r, Suspended: f.suspended}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Envelope(id queue.ID) (archive.Envelope, error) {
	if id != f.records[0].ID {
		return archive.Envelope{}, queue.ErrNotFound
	}
	return archive.Of(f.records[0], "store"), nil
}

func (f *fake) Check(_ context.Context, fn func(*queue.Record, error) error) (queue.Checked, error) {
	return queue.Checked{Messages: 2, Bytes: 7, Damaged: 1}, fn(f.records[2], queue.ErrDamaged)
}

func (f *fake) Restore(_ context.Context, from string, rec *queue.Record, c mail.Content, lost bool) (*queue.Record, error) {
	b, err := io.ReadAll(mail.Reader(c))
	if err != nil {
		return nil, err
	}
	f.acted = append(f.acted, fmt.Sprintf("restore %s %s %s %v", from, rec.ID, b, lost))
	if !lost {
		return nil, queue.ErrRestored
	}
	return rec, nil
}

func (f *fake) Content(id queue.ID) (*queue.Record, mail.Content, error) {
	if id != f.records[0].ID {
		return nil, nil, queue.ErrNotFound
	}
	return f.records[0], mail.Bytes([]byte("Subject: x\r\n\r\nhello\r\n")), nil
}

func (f *fake) Explain(_ context.Context, q Question) (Explanation, error) {
	if q.To == "" {
		return Explanation{}, errors.New("a message to whom?")
	}
	return Explanation{Listener: q.Listener, Accepted: true, Dialogue: []Line{{Says: "RCPT TO:<" + q.To + ">", Reply: "250 " + string(q.Content)}}}, nil
}

func (f *fake) Act(_ context.Context, verb Verb, ids []queue.ID, reason string) (int, error) {
	for _, id := range ids {
		f.acted = append(f.acted, string(verb)+" "+id.String()+" "+reason)
	}
	return len(ids), nil
}

func (f *fake) Suspend(_ context.Context, destination, reason string) (Suspension, error) {
	if destination == "" {
		return Suspension{}, errors.New("which destination?")
	}
	f.suspended = reason
	return Suspension{What: destination, Reason: reason, Waiting: 7}, nil
}

func (f *fake) Resume(_ context.Context, destination string) (Suspension, error) {
	if f.suspended == "" {
		return Suspension{}, fmt.Errorf("%s is not suspended", destination)
	}
	f.suspended = ""
	return Suspension{What: destination}, nil
}

// serve answers on a socket in a directory of the test's own.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "admin.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: API(f)}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("the socket's mode is %v (%v), not 0600", fi.Mode(), err)
	}
	return NewClient(path)
}

func TestClientSeesTheServer(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	s, err := c.Status(t.Context())
	if err != nil || s.Hostname != "mx1.example.com" || s.Queue.Held != 1 {
		t.Fatalf("status %+v, %v", s, err)
	}
	var all []Message
	collect := func(m Message) error { all = append(all, m); return nil }
	if err := c.List(t.Context(), Selection{}, collect); err != nil || len(all) != 3 {
		t.Fatalf("listed %d, %v", len(all), err)
	}
	if all[2].State != "held" || all[2].Held != "by <b>ops</b>" || all[0].Recipients[0].Reply != "450 4.7.1 <b>later</b>" {
		t.Errorf("listed %+v", all)
	}
	all = nil
	if err := c.List(t.Context(), Selection{State: "held"}, collect); err != nil || len(all) != 1 {
		t.Errorf("listed %d held, %v", len(all), err)
	}
	var body strings.Builder
	if err := c.Content(t.Context(), f.records[0].ID.String(), &body); err != nil || !strings.Contains(body.String(), "hello") {
		t.Errorf("content %q, %v", body.String(), err)
	}
	if err := c.Content(t.Context(), f.records[1].ID.String(), io.Discard); err == nil || !strings.Contains(err.Error(), "there is no message") {
		t.Errorf("content of what is gone: %v", err)
	}
}

func TestClientActs(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	n, err := c.Act(t.Context(), Hold, Order{Dry: true})
	if n != 3 || err != nil || len(f.acted) != 0 {
		t.Fatalf("a dry run counted %d, %v and did %v", n, err, f.acted)
	}
	id := f.records[1].ID.String()
	n, err = c.Act(t.Context(), Hold, Order{Selection: Selection{IDs: []string{id}}, Reason: "because"})
	if want := []string{"hold " + id + " because"}; n != 1 || err != nil || !slices.Equal(f.acted, want) {
		t.Fatalf("did %d, %v: %v", n, err, f.acted)
	}
	if _, err := c.Act(t.Context(), "explode", Order{}); err == nil {
		t.Error("an unknown verb was done")
	}
	if _, err := c.Act(t.Context(), Hold, Order{Selection: Selection{IDs: []string{"zzz"}}}); err == nil {
		t.Error("an id that is none was taken")
	}
	if _, err := c.Act(t.Context(), Hold, Order{Selection: Selection{State: "lost"}}); err == nil || !strings.Contains(err.Error(), "waiting and held") {
		t.Errorf("an unknown state: %v", err)
	}
}

func TestReloadAndStop(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	if err := c.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	f.reload = errors.New("mta.hcl:3:1: no")
	if err := c.Reload(t.Context()); err == nil || err.Error() != "mta.hcl:3:1: no" {
		t.Errorf("reload of a wrong file: %v", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	<-f.stopped
}

func TestNobodyAnswers(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func TestListenSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	first, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := first.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := ListenSocket(path); err == nil || !strings.Contains(err.Error(), "another mta answers") {
		t.Errorf("a second server on the socket: %v", err)
	}
	first.Close()
	second, err := ListenSocket(path)
	if err != nil {
		t.Fatalf("a socket that nobody answers on stays in the way: %v", err)
	}
	second.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenSocket(file); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}

func TestGarbageClosesOnlyItsConnection(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("\x00\xff garbage\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(said), "HTTP/1.1 400") {
		t.Errorf("garbage was answered %q, %v", said, err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

func TestPages(t *testing.T) {
	f := newFake()
	m := NewMetrics(f.Status)
	m.Observe(event.Event{Name: event.MessageQueued, Listener: "mx", Size: 100})
	m.Observe(event.Event{Name: event.SessionRefused, Listener: "mx", Reply: "550 5.7.1 no"})
	h := Pages(f, m, func() MailSettings { return MailSettings{} })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	code, page := get("/")
	if code != http.StatusOK || !strings.Contains(page, "mx1.example.com") {
		t.Errorf("page: %d", code)
	}
	for _, raw := range []string{"<script>", "<b>", "<i>"} {
		if strings.Contains(page, raw) {
			t.Errorf("the page holds %s of a peer unescaped", raw)
		}
	}
	code, metrics := get("/metrics")
	for _, want := range []string{`mta_messages_queued_total{listener="mx"} 1`, `mta_bytes_queued_total{listener="mx"} 100`,
		`mta_refused_total{class="5xx",listener="mx"} 1`, `mta_queue_messages{state="held"} 1`, `mta_plugin_up{plugin="bad"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics (%d) lack %s", code, want)
		}
	}
	if code, _ := get("/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d", code)
	}
	f.notReady = errors.New("the queue is full")
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the queue is full") {
		t.Errorf("not ready: %d %q", code, body)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST / is answered %d", w.Code)
	}
}

// TestPluginMetrics lets plugins choose names as badly as they can: every scrape must still work.
func TestPluginMetrics(t *testing.T) {
	f := newFake()
	m := NewMetrics(f.Status)
	report := func(label, name string, gauge bool, v float64, ok bool) {
		t.Helper()
		if err := m.Plugin(label, name, gauge, v); (err == nil) != ok {
			t.Errorf("%s %s: %v", label, name, err)
		}
	}
	report("grey-list", "waiting_total", false, 2, true)
	report("grey-list", "waiting_total", false, 3, true)
	report("grey-list", "open", true, 2, true)
	report("grey-list", "open", true, 1.5, true)
	report("grey-list", "open", false, 1, false)
	report("grey_list", "open", true, 1, false) // it would be the same name
	report("grey", "list_open", true, 1, false)
	report("calls", "total", false, 1, false) // the server's own
	report("events", "lost_total", false, 1, false)
	for i := range maxPluginSeries + 1 {
		report("leak", fmt.Sprint("n", i), false, 1, i < maxPluginSeries)
	}
	w := httptest.NewRecorder()
	Pages(f, m, func() MailSettings { return MailSettings{} }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{"\nmta_plugin_grey_list_waiting_total 5\n", "\nmta_plugin_grey_list_open 1.5\n", "\nmta_plugin_leak_n99 1\n", "mta_plugin_calls_total{"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics (%d) lack %q", w.Code, want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 47 * time.Hour: "47 h", 100 * time.Hour: "4 d"} {
		if got := Ago(d); got != want {
			t.Errorf("Ago(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 14 << 10: "14 KiB", 3 << 30: "3.0 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	c := serve(t, newFake())
	x, err := c.Explain(t.Context(), Question{To: "ann@example.com", Listener: "mx", Content: []byte("\x00\xff")})
	if err != nil || x.Listener != "mx" || !x.Accepted || x.Dialogue[0].Says != "RCPT TO:<ann@example.com>" {
		t.Error(x, err)
	}
	if _, err := c.Explain(t.Context(), Question{}); err == nil || err.Error() != "a message to whom?" {
		t.Error(err)
	}
}

// TestStopIsAnswered: the answer is out before the server begins to stop, for it may close the connection at once.
func TestStopIsAnswered(t *testing.T) {
	w := httptest.NewRecorder()
	f := newFake()
	flushed := make(chan bool, 1)
	API(stopper{f, func() { flushed <- w.Flushed }}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/stop", nil))
	if !<-flushed {
		t.Error("the server was stopped before the answer was sent")
	}
}

// stopper is a fake that is told of the stop.
type stopper struct {
	*fake
	stop func()
}

func (s stopper) Stop() { s.stop() }

func TestCheckAndEnvelopeAndImport(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	var damaged []string
	checked, err := c.Check(t.Context(), func(m DamagedMessage) error { damaged = append(damaged, m.ID+" "+m.Damage); return nil })
	if err != nil || checked != (queue.Checked{Messages: 2, Bytes: 7, Damaged: 1}) {
		t.Errorf("%+v, %v", checked, err)
	}
	if want := f.records[2].ID.String() + " " + queue.ErrDamaged.Error(); len(damaged) != 1 || damaged[0] != want {
		t.Errorf("%q, want %q", damaged, want)
	}
	e, err := c.Envelope(t.Context(), f.records[0].ID.String())
	if err != nil || e.Recipients[0].Reply.Code != 450 || e.Store != "store" {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := c.Envelope(t.Context(), f.records[1].ID.String()); err == nil || !strings.Contains(err.Error(), "no message") {
		t.Errorf("%v", err)
	}
	sum := sha256.Sum256([]byte("content"))
	e.Size, e.SHA256 = 7, hex.EncodeToString(sum[:])
	for _, lost := range []bool{false, true} {
		added, err := c.Import(t.Context(), &e, strings.NewReader("content"), lost)
		if err != nil || added != lost {
			t.Errorf("lost %v: %v, %v", lost, added, err)
		}
	}
	if want := "restore store " + f.records[0].ID.String() + " content true"; f.acted[1] != want {
		t.Errorf("%q", f.acted)
	}
	if _, err := c.Import(t.Context(), &e, strings.NewReader("another"), true); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("another content: %v", err)
	}
	if _, err := c.Import(t.Context(), &e, strings.NewReader("short"), true); err == nil || !strings.Contains(err.Error(), "it has 5 bytes") {
		t.Errorf("a short content: %v", err)
	}
	e.Recipients[0].State = "lost"
	if _, err := c.Import(t.Context(), &e, strings.NewReader("content"), true); err == nil || !strings.Contains(err.Error(), `"lost" is none of pending`) {
		t.Errorf("a state that does not exist: %v", err)
	}
	if len(f.acted) != 2 {
		t.Errorf("%q", f.acted)
	}
}

func TestClientSuspends(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	x, err := c.Suspend(t.Context(), "example.com", "they <b>move</b>")
	if err != nil || x.What != "example.com" || x.Waiting != 7 {
		t.Errorf("%+v, %v", x, err)
	}
	err = c.List(t.Context(), Selection{}, func(m Message) error {
		if m.Suspended != "they <b>move</b>" {
			t.Errorf("%+v", m)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if x, err := c.Resume(t.Context(), "example.com"); err != nil || x.What != "example.com" {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := c.Resume(t.Context(), "example.com"); err == nil || err.Error() != "example.com is not suspended" {
		t.Errorf("resumed twice: %v", err)
	}
	if _, err := c.Suspend(t.Context(), "", ""); err == nil || err.Error() != "which destination?" {
		t.Errorf("nothing was suspended: %v", err)
	}
}
