package deliver

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/sdk/mail"
)

// peer is an SMTP or LMTP server on loopback that does as it is told.
type peer struct {
	t        *testing.T
	l        net.Listener
	greeting string
	ehlo     []string
	lmtp     bool
	loses    bool   // it throws away what it was sent with the end of a message
	refuses  string // its reply to commands that were sent with the end of a message
	tls      *tls.Config
	// answer replaces the reply to a command; "" is the usual one. "drop" closes the connection. "DOT" stands for the
	// final dot, with LMTP "DOT 0" and so on for each recipient.
	answer func(conn int, command string) string

	mu       sync.Mutex
	conns    int
	open     int
	closed   chan struct{} // gets a value for each connection that ended
	commands []string
	messages []message
}

type message struct {
	conn int
	from string
	to   []string
	body string
	tls  bool
}

func listen(t *testing.T, p *peer) *peer {
	t.Helper()
	return listenOn(t, "tcp", "127.0.0.1:0", p)
}

func listenOn(t *testing.T, network, addr string, p *peer) *peer {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	p.t, p.l, p.closed = t, l, make(chan struct{}, 1000)
	if p.greeting == "" {
		p.greeting = "220 peer.example ESMTP"
	}
	if p.ehlo == nil {
		p.ehlo = []string{"PIPELINING", "8BITMIME", "SIZE 1000000"}
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			n := p.conns
			p.conns++
			p.open++
			p.mu.Unlock()
			go func() {
				(&talk{peer: p, n: n, c: c, r: bufio.NewReader(c)}).run()
				c.Close()
				p.mu.Lock()
				p.open--
				p.mu.Unlock()
				p.closed <- struct{}{}
			}()
		}
	}()
	return p
}

func (p *peer) port() int { return p.l.Addr().(*net.TCPAddr).Port }

func (p *peer) got() []message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]message(nil), p.messages...)
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

func (p *peer) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.commands, "\n")
}

// talk is one connection to a peer.
type talk struct {
	*peer
	n      int
	c      net.Conn
	r      *bufio.Reader
	secure bool
	m      message
	behind int // commands that came with the end of a message and are not read yet
}

func (k *talk) run() {
	fmt.Fprintf(k.c, "%s\r\n", k.greeting)
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		k.mu.Lock()
		k.commands = append(k.commands, line)
		k.mu.Unlock()
		if k.behind > 0 && k.refuses != "" {
			k.behind--
			fmt.Fprintf(k.c, "%s\r\n", k.refuses)
			continue
		}
		if !k.command(line) {
			return
		}
	}
}

func (k *talk) said(command, usual string) (string, bool) {
	if k.answer != nil {
		if a := k.answer(k.n, command); a != "" {
			usual = a
		}
	}
	if command == "DOT" && usual[0] == '2' {
		k.keep() // before the client hears of it
	}
	if usual == "drop" {
		return usual, false
	}
	fmt.Fprintf(k.c, "%s\r\n", usual)
	return usual, true
}

func (k *talk) command(line string) bool {
	verb, rest, _ := strings.Cut(strings.ToUpper(line), " ")
	switch verb {
	case "EHLO", "LHLO":
		lines := append([]string{"peer.example"}, k.ehlo...)
		if k.tls != nil && !k.secure {
			lines = append(lines, "starttls")
		}
		text := ""
		for i, l := range lines {
			text += "250" + map[bool]string{true: " ", false: "-"}[i == len(lines)-1] + l + "\r\n"
		}
		_, ok := k.said(verb, strings.TrimSuffix(text, "\r\n"))
		return ok
	case "STARTTLS":
		a, ok := k.said(verb, "220 go")
		if !strings.HasPrefix(a, "220") {
			return ok
		}
		s := tls.Server(k.c, k.tls)
		if s.Handshake() != nil {
			return false
		}
		k.c, k.r, k.secure = s, bufio.NewReader(s), true
		return true
	case "MAIL":
		k.m = message{conn: k.n, tls: k.secure}
		a, ok := k.said(line, "250 ok")
		if strings.HasPrefix(a, "2") {
			k.m.from = rest
		}
		return ok
	case "RCPT":
		usual := "250 2.1.5 ok"
		if k.m.from == "" {
			usual = "503 no sender"
		}
		a, ok := k.said(line, usual)
		if strings.HasPrefix(a, "2") {
			k.m.to = append(k.m.to, rest)
		}
		return ok
	case "DATA":
		return k.data()
	case "QUIT":
		k.said(verb, "221 bye")
		return false
	}
	_, ok := k.said(line, "250 ok")
	return ok
}

func (k *talk) data() bool {
	usual := "354 go"
	if len(k.m.to) == 0 {
		usual = "503 no recipients"
	}
	a, ok := k.said("DATA", usual)
	if !strings.HasPrefix(a, "354") {
		return ok
	}
	var b strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	k.m.body = b.String()
	if rest, err := k.r.Peek(k.r.Buffered()); err == nil {
		k.behind = strings.Count(string(rest), "\n")
	}
	if k.loses {
		_, _ = k.r.Discard(k.r.Buffered())
	}
	if !k.lmtp {
		_, ok = k.said("DOT", "250 2.0.0 queued")
		return ok
	}
	k.keep()
	for i := range k.m.to {
		if _, ok := k.said(fmt.Sprintf("DOT %d", i), "250 2.0.0 stored"); !ok {
			return false
		}
	}
	return true
}

func (k *talk) keep() {
	k.mu.Lock()
	k.messages = append(k.messages, k.m)
	k.mu.Unlock()
}

// names is a resolver from tables.
type names struct {
	mx   map[string][]dns.Host
	addr map[string]string // host → addresses
	err  map[string]dns.Kind
}

func (n names) MX(_ context.Context, domain string) ([]dns.Host, error) {
	if k := n.err[domain]; k != 0 {
		return nil, &dns.Error{Kind: k, Name: domain, Type: "MX", Err: io.EOF}
	}
	if h, ok := n.mx[domain]; ok {
		return h, nil
	}
	return []dns.Host{{Name: domain}}, nil
}

func (n names) Addresses(_ context.Context, host string) ([]netip.Addr, error) {
	if k := n.err[host]; k != 0 {
		return nil, &dns.Error{Kind: k, Name: host, Type: "A", Err: io.EOF}
	}
	var list []netip.Addr
	for a := range strings.FieldsSeq(n.addr[host]) {
		list = append(list, netip.MustParseAddr(a))
	}
	if list == nil {
		return nil, &dns.Error{Kind: dns.NoRecord, Name: host, Type: "A"}
	}
	return list, nil
}

// certificate makes a self-signed certificate for a name, and the pool that trusts it.
func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

const content = "Received: from x\r\nSubject: hello\r\n\r\nbody\r\n.dot\r\n"

func job(to ...string) *Job {
	j := &Job{ID: "0001", Route: "out", Content: mail.Bytes([]byte(content)), Attempt: 1, Received: time.Now()}
	j.Envelope.From = mail.MustParseAddress("ann@here.example")
	for _, a := range to {
		j.Envelope.To = append(j.Envelope.To, mail.Recipient{Address: mail.MustParseAddress(a)})
		j.Domain = j.Envelope.To[0].Address.Domain()
	}
	return j
}

// deliverer makes one with the way "out".
func deliverer(t *testing.T, way Way, change func(*Options)) *Deliverer {
	t.Helper()
	o := Options{Hostname: "me.example", Ways: map[string]Way{"out": way}, DNS: names{}}
	o.Limits.Timeouts.Prompt = time.Hour
	if change != nil {
		change(&o)
	}
	d := New(o)
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

// told shows outcomes a line each, and checks what holds for all.
func told(t *testing.T, outcomes []Outcome) string {
	t.Helper()
	var lines []string
	for _, o := range outcomes {
		if err := o.Reply.Check(); err != nil {
			t.Errorf("%v: %v", o.Reply, err)
		}
		if want := classOf(o.Reply); o.Class != want {
			t.Errorf("%s with the reply %s", o.Class, o.Reply)
		}
		if o.Time.IsZero() {
			t.Error("no time")
		}
		lines = append(lines, fmt.Sprint(o.Class, " ", o.Phase, " ", o.Reply.String()))
	}
	return strings.Join(lines, "\n")
}
