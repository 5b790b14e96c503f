package maildir

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/pabal-mta/mta/plugins/users"
)

// newUsers is the users plugin with ann, and bob who is disabled; their password is "right", and its hash a cheap one.
func newUsers(t *testing.T) *users.Users {
	t.Helper()
	salt := make([]byte, 16)
	b64 := base64.RawStdEncoding.EncodeToString
	hash := fmt.Sprintf("$argon2id$v=19$m=64,t=1,p=1$%s$%s", b64(salt), b64(argon2.IDKey([]byte("right"), salt, 1, 64, 1, 32)))
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("ann@example.com:"+hash+"\nbob@example.com:"+hash+"::disabled\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := users.New(users.Config{File: file, Parallel: 2}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// places counts the addresses that logins come from: wrong ones make the next from there slow.
type places struct{ n byte }

func (p *places) dial(t *testing.T, addr string) *conversation {
	t.Helper()
	p.n++
	return dialFrom(t, addr, p.n)
}

func dialFrom(t *testing.T, addr string, last byte) *conversation {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Skipf("this system has but one loopback address: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return &conversation{conn: conn, r: bufio.NewReader(conn)}
}

// login is a way to log in.
type login struct {
	name string
	pop  bool
	do   func(c *conversation, user, password string) string
}

func logins() []login {
	plain := func(user, password string) string {
		return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	}
	return []login{
		{"LOGIN", false, func(c *conversation, user, password string) string { return c.do("LOGIN " + user + " " + password) }},
		{"AUTHENTICATE", false, func(c *conversation, user, password string) string {
			return c.do("AUTHENTICATE PLAIN " + plain(user, password))
		}},
		{"USER and PASS", true, func(c *conversation, user, password string) string {
			return c.lines("USER "+user) + c.lines("PASS "+password)
		}},
		{"AUTH", true, func(c *conversation, user, password string) string {
			return c.lines("AUTH PLAIN " + plain(user, password))
		}},
	}
}

func (s *served) address(l login) string {
	if l.pop {
		return s.pop
	}
	return s.imap
}

// isIn says whether an answer lets somebody in.
func isIn(answer string) bool {
	answer = strings.TrimPrefix(answer, "+OK and the password?\r\n")
	return strings.HasPrefix(answer, "OK") || strings.HasPrefix(answer, "+OK") || strings.HasPrefix(answer, "-ERR [IN-USE]")
}

// TestWrongLogins: whatever is wrong with a login, its answer is the same to the byte, and comes late, the next one later.
func TestWrongLogins(t *testing.T) {
	for _, l := range logins() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			checkWrongLogins(t, l)
		})
	}
}

func checkWrongLogins(t *testing.T, l login) {
	s, from := serve(t, newUsers(t)), places{1}
	wrong := [][2]string{
		{"ann@example.com", "wrong"}, {"eve@example.com", "wrong"}, {"bob@example.com", "right"}, {"bob@example.com", "wrong"}, {"nobody", "wrong"},
		{"ann@example.com", strings.Repeat("x", 1025)},
	}
	answers := make([]string, len(wrong))
	var wait sync.WaitGroup
	for i, w := range wrong {
		c, start := from.dial(t, s.address(l)), time.Now()
		wait.Go(func() {
			if answers[i] = l.do(c, w[0], w[1]); time.Since(start) < 500*time.Millisecond {
				t.Errorf("%s is answered after %v", w[0], time.Since(start))
			}
		})
	}
	c := from.dial(t, s.address(l))
	first := l.do(c, "ann@example.com", "wrong")
	start := time.Now()
	if second := l.do(c, "eve@example.com", "wrong"); second != first || time.Since(start) < time.Second {
		t.Errorf("the second is answered %q after %v, the first %q", second, time.Since(start), first)
	}
	if got := l.do(c, "ann@example.com", "right"); !isIn(got) {
		t.Errorf("the right one after two wrong ones: %q", got)
	}
	wait.Wait()
	for i, answer := range answers {
		if answer != first || !strings.Contains(answer, "[AUTH") {
			t.Errorf("%s: %q, not %q", wrong[i][0], answer, first)
		}
	}
}

// TestTooManyWrongLogins: after forty wrong logins from an address nobody there is asked for a password any more, whoever it is.
func TestTooManyWrongLogins(t *testing.T) {
	s := serve(t, newUsers(t))
	const place = 77
	for range 40 {
		c := dialFrom(t, s.pop, place)
		fmt.Fprint(c.conn, "USER ann@example.com\r\nPASS wrong\r\n") // the answer would take ten seconds
	}
	ways := logins()
	for locked, start := false, time.Now(); !locked; { // a login that is right is not late
		if time.Since(start) > 30*time.Second {
			t.Fatal("nobody is locked out")
		}
		c := dialFrom(t, s.pop, place)
		got := ways[3].do(c, "ann@example.com", "right")
		locked = strings.HasPrefix(got, "-ERR [LOGIN-DELAY]")
		if !locked && !isIn(got) {
			t.Fatal(got)
		}
		c.conn.Close()
	}
	for _, l := range ways {
		for _, user := range []string{"ann@example.com", "eve@example.com"} {
			c := dialFrom(t, s.address(l), place)
			if got := l.do(c, user, "right"); !strings.Contains(got, "oo many wrong logins, try again later") {
				t.Errorf("%s of %s: %q", l.name, user, got)
			}
		}
		c := dialFrom(t, s.address(l), place+1)
		if got := l.do(c, "ann@example.com", "right"); !isIn(got) {
			t.Errorf("%s from elsewhere: %q", l.name, got)
		}
		c.conn.Close()
	}
}
