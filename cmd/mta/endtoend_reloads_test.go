package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/core/torture/ledger"
	"github.com/pabal-mta/mta/core/torture/peer"
	"github.com/pabal-mta/mta/core/torture/trial"
	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
)

// stamp is a filter that puts its configuration into every message.
type stamp struct{ c stampConfig }

type stampConfig struct {
	Name       string        `mta:"name"`
	Generation int           `mta:"generation"`
	Slow       time.Duration `mta:"slow,optional" default:"0s"`
}

func beStamp() {
	sdk.Serve(sdk.Plugin[stampConfig]{Name: "stamp", Version: "1", Doc: "stamps", Kinds: (*stamp)(nil),
		New: func(_ context.Context, c stampConfig, _ sdk.Host) (any, error) { return &stamp{c}, nil }})
}

func (s *stamp) Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error) {
	return mail.Continue(), nil
}

func (s *stamp) Message(ctx context.Context, _ *mail.Session, _ *mail.Message) (mail.Verdict, error) {
	select {
	case <-time.After(s.c.Slow):
	case <-ctx.Done():
		return mail.Verdict{}, ctx.Err()
	}
	return mail.Continue(mail.AddHeader{Name: "X-Stamp", Value: fmt.Sprintf("%s %d", s.c.Name, s.c.Generation)}), nil
}

// trades is an authenticator, a converter and a store in one.
type trades struct{ c tradesConfig }

type tradesConfig struct {
	Generation int    `mta:"generation"`
	Path       string `mta:"path,optional" doc:"where the store puts a file for each call"`
}

func beTrades() {
	sdk.Serve(sdk.Plugin[tradesConfig]{Name: "trades", Version: "1", Doc: "does what is asked", Kinds: (*trades)(nil),
		New: func(_ context.Context, c tradesConfig, _ sdk.Host) (any, error) { return &trades{c}, nil }})
}

func (p *trades) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	if l.Password != "right" {
		return mail.Identity{}, mail.ErrBadLogin
	}
	return mail.Identity{User: l.User, AnySender: true}, nil
}

func (p *trades) Convert(_ context.Context, c *mail.Conversion) (mail.Converted, error) {
	content, err := io.ReadAll(mail.Reader(c.Content))
	return mail.Converted{Body: mail.Body7Bit, Content: mail.Bytes(fmt.Appendf(nil, "X-Turned: %d\r\n%s", p.c.Generation, content))}, err
}

func (p *trades) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	content, err := io.ReadAll(mail.Reader(d.Content))
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(p.c.Path, "taken-")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	replies := make([]mail.Reply, len(d.To))
	for i := range replies {
		replies[i] = mail.NewReply(250, "2.0.0", "taken")
	}
	return replies, errors.Join(err, f.Close())
}

// stampedConfig relays what two plugins have stamped and a third has converted, or stores it; a fourth answers for logins.
const stampedConfig = `
hostname = "relay.example"
data_dir = "var"
networks = ["127.0.0.0/8"]

listener "mx" {
  address  = ["${MX}"]
  pipeline = pipeline.in
}

listener "submission" {
  address       = ["${SUBMISSION}"]
  auth          = plugin.logins
  insecure_auth = true
}

plugin "logins" {
  source = "${SELF}"
  sha256 = "${SUM}"
  env    = ["MTA_TEST_PLUGIN=trades"]
  config {
    generation = ${GENERATION}
  }
}

plugin "turner" {
  source = "${SELF}"
  sha256 = "${SUM}"
  env    = ["MTA_TEST_PLUGIN=trades"]
  config {
    generation = ${GENERATION}
  }
}

plugin "box" {
  source = "${SELF}"
  sha256 = "${SUM}"
  env    = ["MTA_TEST_PLUGIN=trades"]
  config {
    generation = ${GENERATION}
    path       = "${BOX}"
  }
}

plugin "first" {
  source    = "${SELF}"
  sha256    = "${SUM}"
  env       = ["MTA_TEST_PLUGIN=stamp"]
  processes = 2
  config {
    name       = "first"
    generation = ${GENERATION}
    slow       = "50ms"
  }
}

plugin "second" {
  source = "${SELF}"
  sha256 = "${SUM}"
  env    = ["MTA_TEST_PLUGIN=stamp"]
  config {
    name       = "second"
    generation = ${GENERATION}
  }
}

pipeline "in" {
  on "rcpt" {
    use = [plugin.first, plugin.second]
  }
  on "message" {
    use = [plugin.first, plugin.second]
  }
}

route "two" {
  domains = ["two.example"]
  store   = plugin.box
}

route "one" {
  smarthost = "${ONE}"
  tls       = "none"
  convert   = [plugin.turner]
}

queue {
  retry    = ["1s"]
  jitter   = 0
  min_free = "1MiB"
}
`

// shift is what a client has to do until it is told to stop: messages over one connection, as fast as they are taken.
type shift struct {
	name, to string
	conn     *peer.Client
	sent     []string
	err      error
}

func (s *shift) work(stop *atomic.Bool, book func(id string)) {
	for n := 0; !stop.Load() && s.err == nil; n++ {
		id := fmt.Sprintf("%s-%d", s.name, n)
		book(id)
		if s.err = s.conn.Send("<carol@sender.example>", s.to, peer.Numbered(id, trial.BodyOf(1))); s.err == nil {
			s.sent = append(s.sent, id)
		}
	}
}

// knock logs in on a connection after another until it is told to stop, and returns how often.
func knock(address string, stop *atomic.Bool) (times int, err error) {
	for tick := time.Tick(5 * time.Millisecond); !stop.Load(); times++ {
		<-tick
		c, err := dial(address)
		if err != nil {
			return times, err
		}
		_, err = c.Login(235, "ann", "right")
		c.Close()
		if err != nil {
			return times, fmt.Errorf("the right password: %w", err)
		}
	}
	return times, nil
}

// takenIn returns what the store was given, a file for each time.
func takenIn(t *testing.T, dir string) (list []ledger.Arrival, contents [][]byte) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		list, contents = append(list, peer.Read(raw).For([]string{"ann@two.example"})...), append(contents, raw)
	}
	return list, contents
}

var stamps = regexp.MustCompile(`(?m)^X-Stamp: (\w+) ([0-9]+)\r$`)

// TestReloadsUnderLoad reloads a server again and again while clients send and log in: no session is dropped, no login
// fails, no message is put off, lost or doubled, and each was looked at by the filters of one generation, and converted or
// stored by the plugin of some generation once.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	reloads := sizeFrom(t, "MTA_RELOADS", 3)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := plugin.Sum(self)
	if err != nil {
		t.Fatal(err)
	}
	ports, box := freePorts(t, 3), t.TempDir()
	vars := map[string]string{"MX": ports[0], "ONE": ports[1], "SUBMISSION": ports[2], "BOX": box, "SELF": self, "SUM": sum, "GENERATION": "0"}
	var mu sync.Mutex
	var wrong []string
	seen := map[string]bool{}
	stamped := func(raw []byte) {
		head, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		mu.Lock()
		defer mu.Unlock()
		marks := stamps.FindAllSubmatch(append(head, "\r\n"...), -1)
		if len(marks) != 2 || string(marks[0][1]) != "second" || string(marks[1][1]) != "first" || !bytes.Equal(marks[0][2], marks[1][2]) {
			wrong = append(wrong, fmt.Sprintf("a message is stamped %q", marks))
			return
		}
		seen[string(marks[0][2])] = true
	}
	to := openSink(t, ports[1], &peer.Sink{Content: func(raw []byte) {
		stamped(raw)
		if n := bytes.Count(raw, []byte("X-Turned: ")); n != 1 {
			mu.Lock()
			defer mu.Unlock()
			wrong = append(wrong, fmt.Sprintf("a message was converted %d times", n))
		}
	}})
	s := newSystem(t, stampedConfig, vars)
	s.start()

	book := ledger.New()
	var stop atomic.Bool
	var working sync.WaitGroup
	shifts := make([]*shift, 4)
	for i := range shifts {
		shifts[i] = &shift{name: strconv.Itoa(i), to: []string{"ann@one.example", "ann@two.example"}[i%2], conn: mustDial(t, ports[0])}
		working.Go(func() {
			shifts[i].work(&stop, func(id string) {
				book.Offer(ledger.Message{ID: id, To: shifts[i].to, Sum: peer.Sum(trial.BodyOf(1))})
			})
		})
	}
	logins := 0
	var refused error
	working.Go(func() { logins, refused = knock(ports[2], &stop) })
	for n := range reloads {
		vars["GENERATION"] = strconv.Itoa(n + 1)
		s.configure(stampedConfig, vars)
		if out := s.must("", "reload"); !strings.Contains(out, "reloaded") {
			t.Fatalf("mta reload says %q", out)
		}
	}
	stop.Store(true)
	working.Wait()
	sent := 0
	for _, w := range shifts {
		if w.err != nil {
			t.Errorf("the session of client %s: %v", w.name, w.err)
		}
		if len(w.sent) == 0 {
			t.Errorf("client %s has sent nothing", w.name)
		}
		for _, id := range w.sent {
			book.Ack(id)
			sent++
		}
	}
	s.emptied()
	taken, contents := takenIn(t, box)
	for _, raw := range contents {
		stamped(raw)
	}
	var arrived []ledger.Arrival
	if !poll(func() bool { arrived, _ = to.Arrivals(); return len(arrived)+len(taken) >= sent }) {
		t.Errorf("%d and %d of %d messages came", len(arrived), len(taken), sent)
	}
	book.Arrive(append(arrived, taken...)...)
	if refused != nil || logins == 0 {
		t.Errorf("%d logins, then: %v", logins, refused)
	}
	for _, f := range book.Audit().Faults {
		t.Error(f)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, complaint := range wrong {
		t.Error(complaint)
	}
	if len(seen) < 2 {
		t.Errorf("messages met the generations %v only", seen)
	}
	t.Logf("%d messages, %d of them stored, met %d generations in %d reloads, beside %d logins", sent, len(taken), len(seen), reloads, logins)
	s.stop()
}
