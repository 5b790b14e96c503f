package pop3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/box"
	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/sdk/mail"
)

type fakeAuth struct{}

func (fakeAuth) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	switch {
	case l.User == "broken":
		return mail.Identity{}, errors.New("the disk is gone")
	case l.Password == "right one":
		return mail.Identity{User: l.User}, nil
	}
	return mail.Identity{}, mail.ErrBadLogin
}

// newServer serves a mailbox of ann's with messages, and returns where.
func newServer(t *testing.T, change func(*gate.Config), messages ...string) (addr, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "ann", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range messages {
		name := filepath.Join(dir, "ann", "new", fmt.Sprintf("%d.a.host", 1000+i))
		if err := os.WriteFile(name, []byte(m), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := gate.Config{Address: []string{"127.0.0.1:0"}, InsecureAuth: true, Connections: 50, ConnectionsPerIP: 20, ConnectionsPerLogin: 5}
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	g, err := gate.Open(cfg, Refuse, log)
	if err != nil {
		t.Fatal(err)
	}
	store := box.New("host", func(account string) (string, *os.Root, error) {
		root, err := os.OpenRoot(filepath.Join(dir, account))
		return account, root, err
	}, log)
	s := Serve(g, gate.NewGuard(fakeAuth{}), store, log)
	t.Cleanup(s.Close)
	return g.Listeners()[0].Addr().String(), dir
}

// talk sends lines and returns what comes back for each: a line, or lines to the dot where the command asks for them.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(8 * time.Second))
	t.Cleanup(func() { conn.Close() })
	k := &talk{t, conn, bufio.NewReader(conn)}
	k.line()
	return k
}

func (k *talk) line() string {
	s, err := k.r.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "open"
	}
	if err != nil {
		return "closed"
	}
	return strings.TrimSuffix(s, "\r\n")
}

func (k *talk) do(line string) string {
	fmt.Fprintf(k.conn, "%s\r\n", line)
	return k.line()
}

func (k *talk) lines(line string) string {
	out := k.do(line) + "\n"
	for strings.HasPrefix(out, "+OK") {
		l := k.line()
		if l == "." || l == "closed" {
			break
		}
		out += l + "\n"
	}
	return out
}

func (k *talk) login() *talk {
	k.t.Helper()
	k.do("USER ann")
	if got := k.do("PASS right one"); !strings.HasPrefix(got, "+OK") {
		k.t.Fatal(got)
	}
	return k
}

func TestDialogue(t *testing.T) {
	addr, dir := newServer(t, nil, "Subject: one\n\n.dot\nlast\n", "Subject: two\n\nx\r\ny")
	k := dial(t, addr).login()
	for _, test := range [][2]string{
		{"STAT", "+OK 2 48"}, {"LIST 1", "+OK 1 28"}, {"LIST 3", "-ERR no such message"}, {"LIST 0", "-ERR no such message"},
		{"DELE 1", "+OK it goes with QUIT"}, {"DELE 1", "-ERR no such message"}, {"RETR 1", "-ERR no such message"},
		{"STAT", "+OK 1 20"}, {"RSET", "+OK nothing is deleted"}, {"NOOP", "+OK "}, {"noop", "+OK "}, {"TOP 1", "-ERR TOP message lines"},
		{"TOP 1 -1", "-ERR how many lines?"}, {"RETR 99999999999999999999", "-ERR no such message"}, {"USER x", "-ERR no such command here"},
	} {
		if got := k.do(test[0]); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%s: %q, want %q", test[0], got, test[1])
		}
	}
	if got := k.lines("RETR 1"); got != "+OK 28 octets\nSubject: one\n\n..dot\nlast\n" {
		t.Errorf("%q", got)
	}
	if got := k.lines("RETR 2"); got != "+OK 20 octets\nSubject: two\n\nx\ny\n" {
		t.Errorf("%q", got)
	}
	if got := k.lines("TOP 1 1"); got != "+OK 22 octets\nSubject: one\n\n..dot\n" {
		t.Errorf("%q", got)
	}
	uidl := k.lines("UIDL")
	k.do("DELE 1")
	k.conn.Close() // no QUIT: nothing is removed
	k = loginAgain(t, addr)
	if got := k.lines("UIDL"); got != uidl || strings.Count(got, "\n") != 3 {
		t.Errorf("%q, then %q", uidl, got)
	}
	k.do("DELE 1")
	if got := k.do("QUIT"); got != "+OK bye" {
		t.Error(got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "ann", "*", "100*")); len(left) != 1 || !strings.Contains(left[0], "1001.") {
		t.Errorf("%v", left)
	}
}

// loginAgain logs in when the session before has ended.
func loginAgain(t *testing.T, addr string) *talk {
	t.Helper()
	for range 100 {
		k := dial(t, addr)
		k.do("USER ann")
		got := k.do("PASS right one")
		if strings.HasPrefix(got, "+OK") {
			return k
		}
		k.conn.Close() // or the attempts themselves would reach the limit of connections
		if !strings.HasPrefix(got, "-ERR [IN-USE]") {
			t.Fatal(got)
		}
		time.Sleep(10 * time.Millisecond) // the server has yet to see that the other session is gone
	}
	t.Fatal("the mailbox stays in use")
	return nil
}

func TestLogins(t *testing.T) {
	addr, _ := newServer(t, nil)
	k := dial(t, addr)
	if got := k.do("PASS x"); got != "-ERR USER comes first" {
		t.Error(got)
	}
	k.do("USER broken")
	if got := k.do("PASS x"); !strings.HasPrefix(got, "-ERR [SYS/TEMP]") {
		t.Error(got)
	}
	k.do("USER ann")
	start := time.Now()
	if got := k.do("PASS wrong"); got != "-ERR [AUTH] wrong account or password" || time.Since(start) < 400*time.Millisecond {
		t.Errorf("%s after %v", got, time.Since(start))
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00ann\x00right one"))
	for _, bad := range []string{"AUTH PLAIN !!!", "AUTH PLAIN AAAA", "AUTH CRAM-MD5"} {
		if got := k.do(bad); !strings.HasPrefix(got, "-ERR") {
			t.Errorf("%s: %s", bad, got)
		}
	}
	if got := k.do("AUTH PLAIN"); got != "+ " {
		t.Error(got)
	}
	if got := k.do(plain); got != "+OK 0 messages" {
		t.Error(got)
	}
	second := dial(t, addr)
	if got := second.do("AUTH PLAIN " + plain); !strings.HasPrefix(got, "-ERR [IN-USE]") {
		t.Error(got)
	}
}

func TestHostile(t *testing.T) {
	addr, _ := newServer(t, nil, "x")
	k := dial(t, addr)
	fmt.Fprint(k.conn, strings.Repeat("A", 5000))
	if got := k.line(); got != "-ERR the line is too long" {
		t.Error(got)
	}
	k = dial(t, addr)
	for range maxBad {
		k.do("\x00\xff")
	}
	if got := k.line(); got != "closed" {
		t.Errorf("garbage goes on: %s", got)
	}
	k = dial(t, addr)
	for i := range gate.MaxPerSession {
		k.do("USER ann")
		if got := k.do("PASS no"); !strings.HasPrefix(got, "-ERR [AUTH]") {
			t.Errorf("%d: %s", i, got)
		}
	}
	if got := k.line(); got != "closed" {
		t.Errorf("guessing goes on: %s", got)
	}
}

func TestSTLS(t *testing.T) {
	cert, key, pool := newCertificate(t)
	addr, _ := newServer(t, func(c *gate.Config) { c.CertFile, c.KeyFile, c.InsecureAuth = cert, key, false }, "Subject: x\n\ny\n")
	k := dial(t, addr)
	if got := k.lines("CAPA"); !strings.Contains(got, "STLS\n") || strings.Contains(got, "USER") {
		t.Errorf("%q", got)
	}
	if got := k.do("USER ann"); got != "-ERR TLS first" {
		t.Error(got)
	}
	if got := k.do("STLS\r\nCAPA"); got != "-ERR nothing may follow STLS" {
		t.Error(got)
	}
	k = dial(t, addr)
	if got := k.do("STLS"); got != "+OK begin TLS" {
		t.Fatal(got)
	}
	k.conn = tls.Client(k.conn, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	k.r = bufio.NewReader(k.conn)
	if got := k.login().do("STAT"); got != "+OK 1 17" {
		t.Error(got)
	}
}

func newCertificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{cert: certPEM, key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, pool
}

func TestPoplib(t *testing.T) {
	python, err := exec.LookPath("/usr/bin/python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	addr, dir := newServer(t, nil, "Subject: one\n\n.dot\n", "Subject: two\n\nx\n")
	host, port, _ := net.SplitHostPort(addr)
	script := `
import poplib, sys
p = poplib.POP3(sys.argv[1], int(sys.argv[2]), timeout=20)
assert 'UIDL' in p.capa(), p.capa()
p.user('ann'); p.pass_('right one')
assert p.stat()[0] == 2, p.stat()
assert p.retr(1)[1] == [b'Subject: one', b'', b'.dot'], p.retr(1)
assert p.top(2, 0)[1] == [b'Subject: two', b''], p.top(2, 0)
assert len(p.uidl()[1]) == 2 and len(p.list()[1]) == 2
p.dele(1); p.quit()
`
	if out, err := exec.Command(python, "-c", script, host, port).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "ann", "new", "*")); len(left) != 1 {
		t.Errorf("%v", left)
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"USER ann\r\n", "RETR 1\r\n", "\r\n", "TOP 1 2 3\n", "PASS a  b\r\n", "\x00\n", "LIST 99999999999999999999\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(b), maxLine)
		for {
			line, err := readLine(r)
			if err != nil {
				return
			}
			c := parseCommand(line)
			if strings.Contains(c.verb, " ") || strings.ContainsAny(line, "\n") || c.number(0) < 0 || c.verb != strings.ToUpper(c.verb) {
				t.Fatalf("%q: %+v", line, c)
			}
		}
	})
}

func FuzzDots(f *testing.F) {
	f.Add([]byte(".\r\n..\r\nx"))
	f.Add([]byte("\n.\n\r\n."))
	f.Fuzz(func(t *testing.T, b []byte) {
		var w bytes.Buffer
		writeDotted(&w, b)
		out := w.Bytes()
		if end := bytes.Index(append([]byte("\r\n"), out...), []byte("\r\n.\r\n")); end != len(out)-3 {
			t.Fatalf("%q ends at %d of %d", out, end, len(out))
		}
	})
}

// TestDots: what a message holds can't be taken for the end of it, whatever a client thinks to be the end of a line.
func TestDots(t *testing.T) {
	for message, want := range map[string]string{
		"":                         ".\r\n",
		".":                        "..\r\n.\r\n",
		".\r\n":                    "..\r\n.\r\n",
		"a\r\n.b\r\n..\r\n":        "a\r\n..b\r\n...\r\n.\r\n",
		"a":                        "a\r\n.\r\n",
		"a\n.b\r\n":                "a\n.b\r\n.\r\n",
		"a\n.\n+OK faked\r\n":      "a\n..\n+OK faked\r\n.\r\n",
		"a\n.\r\n+OK faked\r\n":    "a\n..\r\n+OK faked\r\n.\r\n",
		"a\r\r\n.\r\n":             "a\r\r\n..\r\n.\r\n",
		"binary \x00\n\n.\n. \r\n": "binary \x00\n\n..\n. \r\n.\r\n",
	} {
		var b bytes.Buffer
		if writeDotted(&b, []byte(message)); b.String() != want {
			t.Errorf("%q goes as %q, not %q", message, b.String(), want)
		}
	}
}
