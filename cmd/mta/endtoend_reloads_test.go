package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
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

// stampedConfig relays what two plugins have stamped, one after the other.
const stampedConfig = `
hostname = "relay.example"
data_dir = "var"
networks = ["127.0.0.0/8"]

listener "mx" {
  address  = ["${MX}"]
  pipeline = pipeline.in
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

route "one" {
  smarthost = "${ONE}"
  tls       = "none"
}

queue {
  retry    = ["1s"]
  jitter   = 0
  min_free = "1MiB"
}
`

// shift is what a client has to do until it is told to stop: messages over one connection, as fast as they are taken.
type shift struct {
	name string
	conn *peer.Client
	sent []string
	err  error
}

func (s *shift) work(stop *atomic.Bool, book func(id string)) {
	for n := 0; !stop.Load() && s.err == nil; n++ {
		id := fmt.Sprintf("%s-%d", s.name, n)
		book(id)
		if s.err = s.conn.Send("<carol@sender.example>", "ann@one.example", peer.Numbered(id, trial.BodyOf(1))); s.err == nil {
			s.sent = append(s.sent, id)
		}
	}
}

var stamps = regexp.MustCompile(`(?m)^X-Stamp: (\w+) ([0-9]+)\r$`)

// TestReloadsUnderLoad reloads a server again and again while clients send: no session is dropped, no message is put off,
// lost or doubled, and each was looked at by the plugins of one generation.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	reloads := sizeFrom(t, "MTA_RELOADS", 5)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := plugin.Sum(self)
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	vars := map[string]string{"MX": ports[0], "ONE": ports[1], "SELF": self, "SUM": sum, "GENERATION": "0"}
	var mu sync.Mutex
	var wrong []string
	seen := map[string]bool{}
	to := openSink(t, ports[1], &peer.Sink{Content: func(raw []byte) {
		head, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		mu.Lock()
		defer mu.Unlock()
		marks := stamps.FindAllSubmatch(append(head, "\r\n"...), -1)
		if len(marks) != 2 || string(marks[0][1]) != "second" || string(marks[1][1]) != "first" || !bytes.Equal(marks[0][2], marks[1][2]) {
			wrong = append(wrong, fmt.Sprintf("a message is stamped %q", marks))
			return
		}
		seen[string(marks[0][2])] = true
	}})
	s := newSystem(t, stampedConfig, vars)
	s.start()

	book := ledger.New()
	var stop atomic.Bool
	var working sync.WaitGroup
	shifts := make([]*shift, 4)
	for i := range shifts {
		shifts[i] = &shift{name: strconv.Itoa(i), conn: mustDial(t, ports[0])}
		working.Go(func() {
			shifts[i].work(&stop, func(id string) {
				book.Offer(ledger.Message{ID: id, To: "ann@one.example", Sum: peer.Sum(trial.BodyOf(1))})
			})
		})
	}
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
	var arrived []ledger.Arrival
	if !poll(func() bool { arrived, _ = to.Arrivals(); return len(arrived) >= sent }) {
		t.Errorf("%d of %d messages came", len(arrived), sent)
	}
	book.Arrive(arrived...)
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
	t.Logf("%d messages met %d generations in %d reloads", sent, len(seen), reloads)
	s.stop()
}
