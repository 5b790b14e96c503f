package engine

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/core/queue"
)

// badTimeout is what the plugins have for a call. A good one has to keep it on a loaded machine, too.
const badTimeout = 3 * time.Second

// quiet is the kind of a rig that has no bad plugins.
const quiet = "none"

// faultRig is a server with a good store, a plugin of one kind for each fault, and a host that mail goes to.
type faultRig struct {
	t      *testing.T
	kind   string
	beside *faultRig // without bad plugins, for the figures; may be nil
	dir    string
	engine *Engine
	sink   *faultSink
	tags   atomic.Int64

	ledger *ledger
	lives  *lives
	others others

	mu       sync.Mutex
	accepted map[string]bool        // tags of messages that were answered 250
	attempts map[string]event.Event // the first ones, by queue ID
	changed  chan struct{}          // closed at the next attempt
}

func newFaultRig(t *testing.T, kind string, n int) *faultRig {
	dir, err := os.MkdirTemp("", "mta") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &faultRig{t: t, kind: kind, dir: dir, sink: newFaultSink(t), accepted: map[string]bool{}, attempts: map[string]event.Event{}, changed: make(chan struct{})}
	r.ledger, r.lives = newLedger(filepath.Join(dir, "ledger")), watchLives(t, filepath.Join(dir, "pulse"))
	for _, sub := range append([]string{"honest"}, faults...) {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "mta.hcl")
	if err := os.WriteFile(file, []byte(r.config(n)), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	loader := Loader{Path: file, Command: []string{self, badArg}, Builtins: []string{"bad"}}
	r.engine = New(Options{
		ConfigPath: file, Builtin: loader.Command, Logger: slog.New(slog.DiscardHandler),
		Load: func(ctx context.Context) (*config.Config, error) {
			cfg, problems := loader.Load(ctx, true)
			if problems.HasErrors() {
				return nil, problems
			}
			return cfg, nil
		},
	})
	r.engine.Events().Listen(r.note)
	if err := r.engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// config is the server's; n tells its addresses from those of others.
func (r *faultRig) config(n int) string {
	var b strings.Builder
	plugin := func(label, kind, name string) {
		fmt.Fprintf(&b, "plugin %q {\n  source = \"builtin:bad\"\n  timeout = %q\n  env = [%q, %q, %q, %q, %q]\n", label, badTimeout.String(),
			"BAD_KIND="+kind, "BAD_NAME="+name, "BAD_DIR="+filepath.Join(r.dir, name), "BAD_LEDGER="+r.ledger.path, "BAD_PULSE="+filepath.Join(r.dir, "pulse"))
		// A restart is measured, so its pause is short; and each form of a fault has to come to the plugin, however many
		// of them it has answered badly: the breaker has tests of its own.
		fmt.Fprint(&b, "  restart {\n    max = \"500ms\"\n  }\n  breaker {\n    failures = 1000\n  }\n}\n")
	}
	listener := func(label string, host int, more string) {
		fmt.Fprintf(&b, "listener %q {\n  address = [\"127.0.%d.%d:0\"]\n  %s\n}\n", label, n+1, host, more)
	}
	fmt.Fprintf(&b, "hostname = \"mx.here.example\"\ndomains = [\"here.example\"]\nnetworks = [\"127.0.0.0/8\"]\ndata_dir = %q\n", filepath.Join(r.dir, "var"))
	fmt.Fprint(&b, "queue {\n  retry = [\"1s\"]\n  min_free = \"1MiB\"\n}\n")
	plugin("honest", "store", "honest")
	listener("plain", 1, "")
	fmt.Fprint(&b, "route \"here\" {\n  domains = [\"here.example\"]\n  store = plugin.honest\n}\n")
	if r.kind == quiet {
		return b.String()
	}
	var notify []string
	for i, f := range faults {
		plugin(f, r.kind, f)
		notify = append(notify, "plugin."+f)
		switch r.kind {
		case "authenticator":
			listener(f, i+2, "insecure_auth = true\n  auth = plugin."+f)
		case "filter":
			fmt.Fprintf(&b, "pipeline %q {\n  on \"rcpt\" {\n    use = [plugin.%s]\n  }\n}\n", f, f)
			listener(f, i+2, "pipeline = pipeline."+f)
		case "store":
			fmt.Fprintf(&b, "route %q {\n  domains = [\"%s.example\"]\n  store = plugin.%s\n}\n", f, f, f)
		case "converter":
			fmt.Fprintf(&b, "route %q {\n  domains = [\"%s.example\"]\n  smarthost = %q\n  convert = [plugin.%s]\n}\n", f, f, r.sink.l.Addr(), f)
		}
	}
	if r.kind == "bounce" {
		fmt.Fprintf(&b, "bounce {\n  notify = [%s]\n}\n", strings.Join(notify, ", "))
		fmt.Fprintf(&b, "route \"refusing\" {\n  domains = [\"refusing.example\"]\n  smarthost = %q\n}\n", r.sink.l.Addr())
	}
	return b.String()
}

// note remembers first attempts. With all of them, which are many where a store fails, the test would need a gigabyte.
func (r *faultRig) note(e event.Event) {
	if e.Name != event.Attempt {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.attempts[e.ID]; known {
		return
	}
	r.attempts[e.ID] = e
	close(r.changed)
	r.changed = make(chan struct{})
}

// address is where a listener listens.
func (r *faultRig) address(name string) string {
	for _, l := range r.engine.served() {
		if l.block.Name == name {
			return l.sockets[0].Addr().String()
		}
	}
	return ""
}

// status is that of one plugin.
func (r *faultRig) status(name string) plugin.Status {
	g := r.engine.use()
	defer g.done()
	return g.host.Plugin(name).Status()
}

// hurry has an operator try everything again that waits or is held.
func (r *faultRig) hurry() {
	var ids []queue.ID
	_ = r.engine.List(context.Background(), queue.Filter{}, func(rec admin.Listed) error {
		ids = append(ids, rec.ID)
		return nil
	})
	_, _ = r.engine.Act(context.Background(), admin.Release, ids, "")
	_, _ = r.engine.Act(context.Background(), admin.Retry, ids, "")
}

// queued returns how many messages are in the queue.
func (r *faultRig) queued() (n int) {
	_ = r.engine.List(context.Background(), queue.Filter{}, func(admin.Listed) error {
		n++
		return nil
	})
	return n
}

// session is a dialogue with a listener.
type session struct {
	conn *textproto.Conn
	last string
	err  error
}

// String is the last reply, or why there was none.
func (s *session) String() string {
	if s.err != nil {
		return s.err.Error()
	}
	return s.last
}

const sessionTime = time.Minute

func (r *faultRig) session(listener string) *session {
	c, err := net.DialTimeout("tcp", r.address(listener), sessionTime)
	if err != nil {
		return &session{err: err}
	}
	_ = c.SetDeadline(time.Now().Add(sessionTime))
	s := &session{conn: textproto.NewConn(c)}
	s.reply()
	s.say("EHLO client.example")
	return s
}

// say sends a line and returns the code of its reply, or 0 when there is none.
func (s *session) say(format string, args ...any) int {
	if s.err == nil {
		s.err = s.conn.PrintfLine(format, args...)
	}
	return s.reply()
}

func (s *session) reply() int {
	if s.err != nil {
		return 0
	}
	code, text, err := s.conn.ReadResponse(0)
	s.last, s.err = fmt.Sprint(code, " ", text), err
	return code
}

func (s *session) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
}

// login tries a password.
func (s *session) login(password string) int {
	return s.say("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00ann@here.example\x00"+password)))
}

// send sends a message and returns its tag, its queue ID and the first code that was no success, or 250.
func (r *faultRig) send(s *session, from, to string, size int) (tag, id string, code int) {
	tag = fmt.Sprintf("%s-%d", r.kind, r.tags.Add(1))
	for _, line := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"} {
		if code = s.say("%s", line); code != 250 && code != 354 {
			return tag, "", code
		}
	}
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
	code = s.say("X-Tag: %s\r\nFrom: <%s>\r\nSubject: test\r\n\r\n%s.", tag, from, body)
	if code == 250 {
		r.mu.Lock()
		r.accepted[tag] = true
		r.mu.Unlock()
		words := strings.Fields(s.last)
		id = words[len(words)-1]
	}
	return tag, id, code
}

// attempt waits for the first attempt of a message.
func (r *faultRig) attempt(ctx context.Context, id string) (e event.Event, ok bool) {
	for {
		r.mu.Lock()
		e, ok = r.attempts[id]
		changed := r.changed
		r.mu.Unlock()
		if ok {
			return e, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return event.Event{}, false
		}
	}
}

// faultSink takes mail, but for the mailbox "reject".
type faultSink struct {
	l     net.Listener
	quiet bool // nothing is kept
	mu    sync.Mutex
	mail  []sunk
}

type sunk struct {
	tag       string
	converted bool
}

func newFaultSink(t *testing.T) *faultSink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &faultSink{l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(textproto.NewConn(c))
		}
	}()
	return s
}

func (s *faultSink) serve(c *textproto.Conn) {
	defer c.Close()
	answer := func(line string) { _ = c.PrintfLine("%s", line) }
	answer("220 sink.example")
	for {
		line, err := c.ReadLine()
		switch word, _, _ := strings.Cut(line, " "); {
		case err != nil:
			return
		case word == "QUIT":
			answer("221 bye")
			return
		case word == "DATA":
			answer("354 go on")
			data, err := c.ReadDotBytes()
			if err != nil {
				return
			}
			if !s.quiet {
				s.take(data)
			}
			answer("250 taken")
		case strings.HasPrefix(line, "RCPT TO:<reject@"):
			answer("550 5.1.1 no such user")
		default:
			answer("250 ok")
		}
	}
}

func (s *faultSink) take(data []byte) {
	text := strings.ReplaceAll(string(data), "\n", "\r\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = append(s.mail, sunk{tagIn([]byte(text)), strings.Contains(text, "X-Converted: yes")})
}

// got returns what came with a tag.
func (s *faultSink) got(tag string) (list []sunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mail {
		if m.tag == tag {
			list = append(list, m)
		}
	}
	return list
}
