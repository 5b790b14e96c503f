package imap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// raw speaks to the server without a client's manners.
func raw(t testing.TB, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(8 * time.Second))
	t.Cleanup(func() { conn.Close() })
	r := bufio.NewReader(conn)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return conn, r
}

// until reads up to the line that begins with a prefix, or the end.
func until(r *bufio.Reader, prefix string) string {
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "open"
		}
		if err != nil {
			return "closed"
		}
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
}

func TestHostileInput(t *testing.T) {
	r := newRig(t, nil)
	for name, input := range map[string]string{
		"garbage":             "\x00\xff\r\n\r\n(((((\r\n",
		"http":                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"endless line":        strings.Repeat("A", 200_000),
		"literal before auth": "a APPEND INBOX {60000000+}\r\n" + strings.Repeat("x", 200_000),
		"literal to discard":  "a APPEND INBOX {60000000}\r\n" + strings.Repeat("x", 200_000),
		"literals in search":  "a SEARCH" + strings.Repeat(" TEXT {4096+}\r\n"+strings.Repeat("y", 4096), 40),
	} {
		conn, br := raw(t, r.addr)
		go func() { _, _ = conn.Write([]byte(input)) }()
		if got := until(br, "never"); got != "closed" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if c := r.login("ann", nil); c.Noop().Wait() != nil {
		t.Error("the server does not serve after it")
	}
}

func TestHostileCommands(t *testing.T) {
	r := newRig(t, nil)
	for i := range 3 {
		r.deliver("ann", fmt.Sprintf("%d.a.h", i+1), letter)
	}
	conn, br := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb SELECT INBOX\r\n")
	if got := until(br, "b "); !strings.HasPrefix(got, "b OK") {
		t.Fatal(got)
	}
	start := time.Now()
	for i, test := range [][2]string{
		{"FETCH 1 (" + strings.Repeat("BODY.PEEK[] ", 100) + "UID)", "NO [LIMIT]"},
		{`LIST "" "` + strings.Repeat("%*", 400) + `x"`, "OK"},
		{"SEARCH " + strings.Repeat("NOT ", 2000) + "ALL", "NO [LIMIT]"},
		{"FETCH 1:4294967295 UID", "OK"}, {"UID FETCH 4294967295:* UID", "OK"}, {"FETCH *:* UID", "OK"}, {"FETCH 9 UID", "OK"},
		{"FETCH 1 BODY[]<9223372036854775807.9223372036854775807>", "OK"}, {"FETCH 1 BODY[0]", "OK"}, {"FETCH 1 BODY[4294967295.1]", "OK"},
		{"FETCH 1 BODY[HEADER.FIELDS (\"a\\\"b\")]", "OK"}, {"APPEND INBOX {99999999999}", "NO [TOOBIG]"},
		{"UID COPY 77 Sent", "OK"}, {"UID MOVE 77 Sent", "OK"}, {"UID SEARCH UID $", "OK"}, {"UID EXPUNGE $", "OK"},
		{"STORE 1 +FLAGS (\\Recent)", "NO [CANNOT]"}, {"SEARCH RETURN (SAVE COUNT) 1:2", "OK"}, {"FETCH $ UID", "OK"},
		{"CREATE \"" + strings.Repeat("a.", 2000) + "\"", "NO"}, {"SELECT ../bob", "NO"}, {"SELECT INBOX", "OK"}, {"SELECT nowhere", "NO [NONEXISTENT]"}, {"FETCH 1 UID", "BAD"},
	} {
		tag := fmt.Sprintf("t%d ", i)
		fmt.Fprintf(conn, "%s%s\r\n", tag, test[0])
		if got := until(br, tag); !strings.HasPrefix(got, tag+test[1]) {
			t.Errorf("%.60s: %q, want %s", test[0], got, test[1])
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A number means the same message until the client has been told (RFC 9051, 7.5.1).
func TestExpungeIsToldWhenItMayBe(t *testing.T) {
	r := newRig(t, nil)
	for i := range 3 {
		r.deliver("ann", fmt.Sprintf("%d.a.h", i+1), letter)
	}
	conn, br := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb SELECT INBOX\r\n")
	until(br, "b ")
	other := r.login("ann", nil)
	if _, err := other.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := other.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Expunge().Collect(); err != nil {
		t.Fatal(err)
	}
	for _, test := range [][2]string{
		{"c FETCH 2 UID", "* 2 FETCH (UID 2)"}, {"c2 NOOP", "* 1 EXPUNGE"}, {"d FETCH 2 UID", "* 2 FETCH (UID 3)"},
	} {
		fmt.Fprint(conn, test[0]+"\r\n")
		if got := strings.TrimSpace(until(br, "* ")); got != test[1] {
			t.Errorf("%s: %q, want %q", test[0], got, test[1])
		}
		tag, _, _ := strings.Cut(test[0], " ")
		if got := until(br, ""); !strings.HasPrefix(got, tag+" ") {
			t.Errorf("%s: %q", test[0], got)
		}
	}
}

func TestHalfAnAppendIsNotKept(t *testing.T) {
	r := newRig(t, nil)
	conn, br := raw(t, r.addr)
	fmt.Fprint(conn, "a LOGIN ann right\r\nb APPEND INBOX {1000}\r\n")
	if got := until(br, "+"); !strings.HasPrefix(got, "+") {
		t.Fatal(got)
	}
	fmt.Fprint(conn, "Subject: half")
	_ = conn.(*net.TCPConn).CloseWrite()
	until(br, "never")
	c := r.login("ann", nil)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 0 {
		t.Errorf("%+v, %v", data, err)
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "ann", "tmp", "*")); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// Mail whose structure lies: every one is fetched whole, and its description does not end the session.
func TestHostileMail(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("ann", nil)
	deep := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 500)
	for _, content := range []string{
		"Content-Type: multipart/mixed; boundary=x\r\n\r\nno parts\r\n", "Content-Type: multipart/mixed\r\n\r\nno boundary\r\n",
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n",
		"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\na\r\n--\r\n", deep + "x\r\n",
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\n\r\n", 5000),
		"Content-Type: \x80\xff/;;;=\"\r\nContent-Disposition: ;\r\nFrom: <<>>, a@b, \"\r\nTo: group: a@x, b@y;\r\nDate: never\r\nSubject: \x00\x80\r\n\r\n",
		": :\r\n :\r\n\r\n", "Subject: " + strings.Repeat("=?utf-8?q?x?= ", 5000) + "\r\n\r\n",
		"Content-Type: message/rfc822\r\n\r\n", "Content-Transfer-Encoding: base64\r\n\r\n!!!!\r\n",
	} {
		uid := appendTo(t, c, "INBOX", content, nil).UID
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatalf("%.40q: %v", content, err)
		}
		if got, _ := fetchBody(t, c, uid); got != content {
			t.Errorf("%.40q came back as %.40q", content, got)
		}
		if _, err := c.Search(&imap.SearchCriteria{Text: []string{"nothing"}}, nil).Wait(); err != nil {
			t.Errorf("%.40q: %v", content, err)
		}
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t, func(c *gate.Config) { c.ConnectionsPerLogin = 1 })
	r.login("ann", nil)
	var e *imap.Error
	if err := r.dial(nil).Login("ann", "right").Wait(); !errors.As(err, &e) || e.Code != imap.ResponseCodeLimit {
		t.Errorf("a second connection of an account: %v", err)
	}
	r = newRig(t, func(c *gate.Config) { c.ConnectionsPerIP = 2 })
	first, _ := raw(t, r.addr)
	raw(t, r.addr)
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); err != nil || string(b) != Refuse {
		t.Errorf("a third connection: %q, %v", b, err)
	}
	first.Close()
	for range 100 { // the server sees the end of the first a moment later
		if conn, err = net.Dial("tcp", r.addr); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if strings.HasPrefix(line, "* OK") {
			return
		}
	}
	t.Error("a connection that has ended still counts")
}

func TestDeliveryWhileFetching(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1.a.h", letter)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			r.deliver("ann", fmt.Sprintf("%d.b.h", 1000+i), letter)
		}
	})
	for range 3 {
		c := r.login("ann", nil)
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range 30 {
				op := imap.StoreFlagsAdd
				if i%2 == 0 {
					op = imap.StoreFlagsDel
				}
				if _, err := c.Store(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.StoreFlags{Op: op, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Collect(); err != nil {
					t.Error(err)
				}
				msgs, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
				if err != nil {
					t.Error(err)
				}
				for _, m := range msgs {
					if string(m.BodySection[0].Bytes) != letter {
						t.Errorf("%q", m.BodySection[0].Bytes)
					}
				}
			}
		})
	}
	wg.Wait()
	c := r.login("ann", nil)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 201 || data.UIDNext != 202 {
		t.Errorf("%+v, %v", data, err)
	}
}

func TestImaplib(t *testing.T) {
	python, err := exec.LookPath("/usr/bin/python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	r := newRig(t, nil)
	r.deliver("ann", "1.a.h", letter)
	host, port, _ := net.SplitHostPort(r.addr)
	script := `
import imaplib, sys
m = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]), timeout=20)
def ok(r):
    assert r[0] == 'OK', r
    return r[1]
ok(m.login('ann', 'right'))
assert ok(m.select()) == [b'1']
assert b'ENVELOPE' in ok(m.fetch('1', '(ENVELOPE BODYSTRUCTURE FLAGS)'))[0]
assert ok(m.fetch('1', '(RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])'))[0][1].startswith(b'Subject: =?utf-8')
body = ok(m.fetch('1', '(BODY[])'))[0][1]
assert body.endswith(b'hello\r\nworld\r\n'), body
assert b'\\Seen' in ok(m.fetch('1', '(FLAGS)'))[0]
assert ok(m.append('Sent', r'(\Seen)', imaplib.Time2Internaldate(0), b'Subject: mine\r\n\r\nx\r\n'))
assert ok(m.uid('SEARCH', 'SUBJECT', '"nothing"')) == [b'']
assert ok(m.search(None, 'SEEN')) == [b'1']
assert any(b'\\Sent' in l for l in ok(m.list()))
assert any(b'Trash' in l for l in ok(m.lsub()))
ok(m.copy('1', 'Archive')); ok(m.store('1', '+FLAGS', r'\Deleted')); assert ok(m.expunge()) == [b'1']
assert b'MESSAGES 1' in ok(m.status('Archive', '(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)'))[0]
ok(m.select('Sent')); assert b'1-Jan-1970' in ok(m.fetch('1', '(INTERNALDATE)'))[0]
ok(m.create('work')); ok(m.subscribe('work')); ok(m.unsubscribe('work')); ok(m.rename('work', 'play')); ok(m.delete('play'))
assert b'IDLE' in ok(m.capability())[0]
ok(m.close()); m.logout()
`
	if out, err := exec.Command(python, "-c", script, host, port).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
