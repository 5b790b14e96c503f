package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/deliver"
	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/core/route"
	"github.com/pabal-mta/mta/sdk/mail"
)

// boxes is a directory of one domain.
type boxes map[string]mail.Mailbox

func (b boxes) Lookup(_ context.Context, list []mail.Address) ([]mail.Mailbox, error) {
	if _, broken := b["broken"]; broken {
		return nil, errors.New("the directory is down")
	}
	out := make([]mail.Mailbox, len(list))
	for i, a := range list {
		out[i] = b[a.Local()]
	}
	return out, nil
}

func testGeneration(dir directory) *generation {
	return &generation{
		cfg: &config.Config{
			Hostname: "mx.example.com", Domains: []string{"example.com", "inside.example"},
			Postmaster: mail.MustParseAddress("ops@example.com"),
		},
		routes: route.Table{
			{Name: "local", Kind: route.Store, Domains: []string{"example.com"}},
			{Name: "friend", Kind: route.Store, Domains: []string{"friend.example"}},
			{Name: "inside", Kind: route.Smarthost, Domains: []string{"inside.example"}},
			{Name: "internet", Kind: route.MX, Domains: []string{"*.example", "loop.example"}},
		},
		directories: map[string]directory{"local": dir},
		idle:        make(chan struct{}),
	}
}

func TestPolicy(t *testing.T) {
	alias := mail.MustParseAddress("bob@example.net")
	known := boxes{
		"ann":  {State: mail.MailboxExists},
		"all":  {State: mail.MailboxAlias, Aliases: []mail.Address{alias}},
		"full": {State: mail.MailboxFull},
		"nope": {State: mail.MailboxUnknown}, "Postmaster": {State: mail.MailboxUnknown},
	}
	for _, row := range []struct {
		name    string
		dir     boxes
		trusted bool
		to      string
		code    int // 0: taken
		aliases int
	}{
		{"our mailbox, from anyone", known, false, "ann@example.com", 0, 0},
		{"our mailbox that is not there", known, false, "nope@example.com", 550, 0},
		{"our mailbox that is not there, from a friend", known, true, "nope@example.com", 550, 0},
		{"an alias", known, false, "all@example.com", 0, 1},
		{"postmaster reaches someone", known, false, "Postmaster@example.com", 0, 1},
		{"a full mailbox is a matter of time", known, false, "full@example.com", 452, 0},
		{"a directory that says nothing", known, false, "odd@example.com", 451, 0},
		{"a directory that is down", boxes{"broken": {}}, false, "ann@example.com", 451, 0},
		{"another domain of ours, behind a smarthost", known, false, "x@inside.example", 0, 0},
		{"relaying for a stranger", known, false, "x@other.example", 550, 0},
		{"relaying for a stranger, by percent", known, false, "x%other.example@friend.example", 550, 0},
		{"relaying for a friend", known, true, "x@sub.example", 0, 0},
		{"a store that is not for one of our domains", known, false, "x@friend.example", 550, 0},
		{"no route", known, true, "x@nowhere.test", 550, 0},
		{"an address literal", known, false, "x@[127.0.0.1]", 550, 0},
	} {
		reply, aliases, _ := testGeneration(row.dir).rcpt(t.Context(), row.trusted, mail.MustParseAddress(row.to))
		if reply.Code != row.code || len(aliases) != row.aliases {
			t.Errorf("%s: %s, %v; want %d and %d aliases", row.name, reply, aliases, row.code, row.aliases)
		}
		if err := reply.Check(); reply.Code != 0 && err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestOurDomainByMXIsALoop(t *testing.T) {
	g := testGeneration(boxes{})
	g.cfg.Domains = append(g.cfg.Domains, "loop.example")
	reply, _, err := g.rcpt(t.Context(), true, mail.MustParseAddress("x@loop.example"))
	if reply.Code != 550 && err == nil {
		t.Errorf("mail for our own domain would be sent to its MX: %v", reply)
	}
}

func TestNeedsRestart(t *testing.T) {
	base := func() *config.Config {
		return &config.Config{DataDir: "/a", Admin: config.Admin{Socket: "/a/s", Listen: "127.0.0.1:1"}}
	}
	if err := needsRestart(base(), base()); err != nil {
		t.Errorf("nothing has changed: %v", err)
	}
	now := base()
	now.DataDir, now.Admin.Listen, now.Hostname = "/b", "", "other.example"
	err := needsRestart(base(), now)
	if err == nil || !strings.Contains(err.Error(), "data_dir") || !strings.Contains(err.Error(), "admin.listen") || strings.Contains(err.Error(), "hostname") {
		t.Errorf("got %v", err)
	}
}

// TestUseAndRetire: what has begun in a generation ends in it, and only then are its plugins stopped.
func TestUseAndRetire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{}
		first, second := testGeneration(nil), testGeneration(nil)
		for _, g := range []*generation{first, second} {
			g.refs.Store(1)
			g.host, g.deliverer = new(plugin.Host), deliver.New(deliver.Options{Hostname: "mx.example.com"})
		}
		e.current.Store(first)
		g := e.use()
		if g != first {
			t.Fatal("not the current generation")
		}
		e.current.Store(second)
		var retired sync.WaitGroup
		var took time.Duration
		start := time.Now()
		retired.Go(func() { first.retire(t.Context()); took = time.Since(start) })
		time.Sleep(7 * time.Second) // of virtual time
		if now := e.use(); now != second {
			t.Error("new work goes to the old generation")
		}
		g.done()
		retired.Wait()
		if took != 7*time.Second {
			t.Errorf("the old generation was stopped after %v, while it was used for 7s", took)
		}
		stuck, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		second.retire(stuck) // it is in use and will not be given back
	})
}

func TestDuplicateKeepsTheSocketOpen(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := duplicate(first)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	accepted := make(chan error, 1)
	go func() {
		c, err := second.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	c, err := net.Dial("tcp", second.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-accepted; err != nil {
		t.Error(err)
	}
}

func TestListenErrorsAreWords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = (&Engine{}).socket(l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("a taken port: %v", err)
	}
	for address, want := range map[string]string{"0.0.0.0:25": "tcp4", "127.0.0.1:1": "tcp4", "[::]:25": "tcp6", "[::1]:1": "tcp6", "localhost:1": "tcp"} {
		if got := family(address); got != want {
			t.Errorf("%s is listened on as %s", address, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("MTA_TEST_PASSED_ON", "yes")
	got := environment([]string{"MTA_TEST_PASSED_ON", "MTA_TEST_NOT_SET", "A=b=c"})
	if want := []string{"MTA_TEST_PASSED_ON=yes", "A=b=c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSelfAddrs(t *testing.T) {
	cfg := &config.Config{Listeners: []*config.Listener{{Address: []string{"127.0.0.1:25", "[::]:25"}}, {Address: []string{"host:25"}}}}
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:25"), netip.MustParseAddrPort("[::]:25")}
	if got := selfAddrs(cfg); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestSessionThatOutlivesItsPipeline: a reload never lets a session's mail through unasked.
func TestSessionThatOutlivesItsPipeline(t *testing.T) {
	block := &config.Listener{Name: "mx", Pipeline: "old"}
	g := testGeneration(nil)
	g.pipelines = map[string]*pipeline.Pipeline{"new": {Name: "new"}}
	for _, row := range []struct {
		name      string
		listeners []*config.Listener
		want      string
	}{
		{"the listener has another pipeline now", []*config.Listener{{Name: "mx", Pipeline: "new"}}, "new"},
		{"the listener and its pipeline are gone", nil, "old"},
	} {
		g.cfg.Listeners = row.listeners
		if p := g.pipelineOf(block); p == nil || p.Name != row.want {
			t.Errorf("%s: %+v", row.name, p)
		}
	}
	gone := g.pipelineOf(block)
	for stage, r := range map[string]pipeline.Result{
		"mail":    gone.Mail(t.Context(), &mail.Session{}),
		"message": gone.Message(t.Context(), &mail.Session{}, &mail.Message{Content: mail.Bytes([]byte("A: b\r\n\r\n"))}),
	} {
		if r.Verdict.Action != mail.ActionTempFail {
			t.Errorf("%s: mail of a session whose pipeline is gone: %v", stage, r.Verdict)
		}
	}
	if p := g.pipelineOf(&config.Listener{Name: "plain"}); p != nil {
		t.Errorf("a listener without a pipeline has %v", p)
	}
}
