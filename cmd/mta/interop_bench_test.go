//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/admin"
)

// BenchmarkBesideDovecot measures our IMAP and Dovecot's, one after the other in each round, each on a Maildir of its own
// with the same 10,000 messages. It prints medians and how they relate:
//
//	MTA_INTEROP=1 go test -run '^$' -bench BesideDovecot -benchtime 7x ./cmd/mta
func BenchmarkBesideDovecot(b *testing.B) {
	interop(b, "dovecot")
	needRoot(b)
	const n = 10_000
	plain := freeAddress(b) // TLS costs both the same, and is not what is measured
	s := newSite(b, fmt.Sprintf(plainMailboxes, plain))
	d := newDovecot(b, "", "bob@example.test")
	for _, mail := range []string{filepath.Join(s.dir, "mail"), filepath.Join(d.dir, "mail")} {
		fillMaildir(b, filepath.Join(mail, "example.test", "bob"), n)
	}
	v := &race{b, s, d, &imapPeer{b, plain}, &imapPeer{b, d.imap}}
	for _, p := range []*imapPeer{v.ours, v.dovecot} { // the first opening gives UIDs, and fills caches
		c := p.login()
		c.must("FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE)")
		c.Close()
	}
	v.compare("open", "ms", func(p *imapPeer) float64 {
		c := p.connect()
		defer c.Close()
		return took(func() { c.must("SELECT INBOX") })
	})
	for name, command := range map[string]string{
		"list flags": "FETCH 1:* (FLAGS)", "list": "FETCH 1:* (UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE)",
		"1000 bodies": "FETCH 4001:5000 (UID BODY.PEEK[])", "search text": `SEARCH 1:1000 BODY "not to be found"`,
	} {
		v.compare(name, "ms", func(p *imapPeer) float64 {
			c := p.login()
			defer c.Close()
			return took(func() { c.must(command) })
		})
	}
	v.firstOpening()
	v.idle()
}

// race is our server and Dovecot, each with its client.
type race struct {
	b             *testing.B
	site          *site
	peer          *dovecot
	ours, dovecot *imapPeer
}

func (v *race) compare(name, unit string, measure func(*imapPeer) float64) {
	v.b.Run(name, func(b *testing.B) {
		var x, y []float64
		for b.Loop() {
			x, y = append(x, measure(v.ours)), append(y, measure(v.dovecot))
		}
		mine, other := median(x), median(y)
		b.ReportMetric(mine, "ours-"+unit)
		b.ReportMetric(other, "dovecot-"+unit)
		b.ReportMetric(mine/other, "ratio")
		b.ReportMetric(0, "ns/op")
	})
}

// inbox is where a server keeps bob's mail.
func (v *race) inbox(p *imapPeer) string {
	dir := v.peer.dir
	if p == v.ours {
		dir = v.site.dir
	}
	return filepath.Join(dir, "mail/example.test/bob")
}

// firstOpening measures folders that nobody has opened before, with the messages of the inbox.
func (v *race) firstOpening() {
	n := 0
	for name, what := range map[string]string{"first open, flags": "FLAGS", "first open, list": "UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE"} {
		v.compare(name, "ms", func(p *imapPeer) float64 {
			c := p.connect()
			defer c.Close()
			n++
			linkMaildir(v.b, v.inbox(p), filepath.Join(v.inbox(p), fmt.Sprintf(".Cold%d", n)))
			return took(func() {
				c.must(fmt.Sprintf("SELECT Cold%d", n))
				c.must("FETCH 1:* (" + what + ")")
			})
		})
	}
}

// idle measures sessions that wait: how soon they are told, and what one more takes.
func (v *race) idle() {
	n := 0
	v.compare("idle latency", "ms", func(p *imapPeer) float64 {
		c := p.login()
		defer c.Close()
		fmt.Fprint(c, "i IDLE\r\n")
		c.until("+ ")
		n++
		return took(func() {
			placeFile(v.b, v.inbox(p), fmt.Sprintf("new/%d.new.host", 2_000_000_000+n), "", 1)
			c.until("* 1")
		})
	})
	v.compare("memory of a session", "KiB", func(p *imapPeer) float64 {
		pids := func() []int { return []int{pidOf(v.b, v.site, "measured")} }
		if p == v.dovecot {
			pids = func() []int { return family(v.b, filepath.Join(v.peer.dir, "run/master.pid")) }
		}
		p.login().Close() // what the first one needs is shared by all
		before := memoryOf(pids())
		const sessions = 8 // Dovecot takes ten of one account from one address
		for range sessions {
			c := p.login()
			defer c.Close()
			fmt.Fprint(c, "i IDLE\r\n")
			c.until("+ ")
		}
		return float64(memoryOf(pids())-before) / sessions
	})
}

// took returns how many milliseconds something takes.
func took(do func()) float64 {
	start := time.Now()
	do()
	return float64(time.Since(start).Microseconds()) / 1000
}

// plainMailboxes is a second plugin on the same Maildirs, that listens without TLS.
const plainMailboxes = `plugin "measured" {
  source = "builtin:maildir"
  auth   = plugin.users
  config {
    path     = "mail/{domain}/{user}"
    accounts = "users"
    imap {
      address       = [%q]
      insecure_auth = true
    }
  }
}
`

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// fillMaildir makes a mailbox of n messages of about 4 KiB.
func fillMaildir(t testing.TB, dir string, n int) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		placeFile(t, dir, fmt.Sprintf("cur/%d.M%d.host", 1_700_000_000+i, i), ":2,S", i)
	}
	if owner := nobody(t); owner != nil {
		err := filepath.WalkDir(filepath.Dir(filepath.Dir(dir)), func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, int(owner.Uid), int(owner.Gid))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// linkMaildir makes a folder of the messages of another one, and of nothing else that stands there.
func linkMaildir(t testing.TB, from, to string) {
	t.Helper()
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		dir := filepath.Join(to, sub)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if owner := nobody(t); owner != nil {
			if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := os.ReadDir(filepath.Join(from, "cur"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if err := os.Link(filepath.Join(from, "cur", f.Name()), filepath.Join(to, "cur", f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// placeFile puts a message under a name that tells its sizes, as deliveries do.
func placeFile(t testing.TB, dir, name, flags string, i int) {
	t.Helper()
	text := fmt.Sprintf("Return-Path: <eve@sender.example>\nDelivered-To: bob@example.test\nReceived: from sender.example by mx.example.test\n"+
		"From: Eve Sender <eve@sender.example>\nTo: Bob <bob@example.test>, carol@example.test\nSubject: message number %d of many\n"+
		"Date: Mon, 02 Mar 2026 10:00:00 +0900\nMessage-ID: <%d@sender.example>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n%s",
		i, i, strings.Repeat("All work and no play makes a long message, sixty-three octets.\n", 58))
	tmp := filepath.Join(dir, "tmp", filepath.Base(name))
	write(t, tmp, text)
	if owner := nobody(t); owner != nil {
		if err := os.Chown(tmp, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	name += fmt.Sprintf(",S=%d,W=%d%s", len(text), len(text)+strings.Count(text, "\n"), flags)
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// imapPeer is a server that is measured, and imapConn a client that spends no time on what it reads.
type imapPeer struct {
	t       testing.TB
	address string
}

type imapConn struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// connect logs in.
func (p *imapPeer) connect() *imapConn {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // a connection that takes none fails at its first read
	c := &imapConn{conn, p.t, bufio.NewReaderSize(conn, 256<<10)}
	c.until("* OK")
	c.must(fmt.Sprintf("LOGIN bob@example.test %q", secret))
	return c
}

// login logs in and opens the inbox.
func (p *imapPeer) login() *imapConn {
	p.t.Helper()
	c := p.connect()
	c.must("SELECT INBOX")
	return c
}

func (c *imapConn) must(command string) {
	c.t.Helper()
	fmt.Fprintf(c, "ta9g %s\r\n", command)
	if line := c.until("ta9g "); !strings.HasPrefix(line, "ta9g OK") {
		c.t.Fatalf("%s: %s", command, line)
	}
}

// until reads to the line that begins with a prefix.
func (c *imapConn) until(prefix string) string {
	c.t.Helper()
	for whole := true; ; {
		line, err := c.r.ReadSlice('\n')
		if whole && bytes.HasPrefix(line, []byte(prefix)) {
			return string(line)
		}
		if err != nil && err != bufio.ErrBufferFull {
			c.t.Fatal(err)
		}
		whole = err == nil
	}
}

func pidOf(t testing.TB, s *site, name string) int {
	t.Helper()
	st, err := admin.NewClient(filepath.Join(s.dir, "var/admin.sock")).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Plugins {
		if p.Name == name {
			return p.PID
		}
	}
	t.Fatal("there is no plugin " + name)
	return 0
}

// family returns a process, named by a file, and all below it.
func family(t testing.TB, file string) []int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", list[i]))
		for _, f := range tasks {
			children, _ := os.ReadFile(f)
			for word := range strings.FieldsSeq(string(children)) {
				n, _ := strconv.Atoi(word)
				list = append(list, n)
			}
		}
	}
	return list
}

// memoryOf adds up, in KiB, what processes have for themselves, and their share of what they share.
func memoryOf(pids []int) (sum int) {
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended
		}
		b, _ := io.ReadAll(f)
		f.Close()
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.Atoi(strings.Fields(rest)[0])
				sum += n
			}
		}
	}
	return sum
}
