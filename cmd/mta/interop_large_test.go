//go:build linux

package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
)

// manyMailboxes starts a server with so many accounts, u0@example.test and so on. Their passwords are cheap to prove: what
// a login costs is not what is measured.
func manyMailboxes(t *testing.T, accounts int) (s *system, mx, imap string) {
	t.Helper()
	p := freePorts(t, 3)
	config := strings.Replace(readerConfig, `address       = ["${IMAP}"]`,
		"address       = [\"${IMAP}\"]\n      connections_per_ip = 8000\n      connections_per_account = 40", 1)
	s = newSystem(t, config, map[string]string{"MX": p[0], "IMAP": p[1], "POP3": p[2]})
	salt := make([]byte, 16)
	coded := base64.RawStdEncoding.EncodeToString
	hash := fmt.Sprintf("$argon2id$v=19$m=64,t=1,p=1$%s$%s", coded(salt), coded(argon2.IDKey([]byte(secret), salt, 1, 64, 1, 32)))
	var users strings.Builder
	for i := range accounts {
		fmt.Fprintf(&users, "u%d@example.test:%s\n", i, hash)
	}
	if err := os.Mkdir(s.path("var"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("var/users"), []byte(users.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, p[0], p[1]
}

// TestInteropLargeFolder: a folder of 100,000 messages opens within a second and tells the flags of all within two, when it
// was opened before. The best of a few tries counts: another program's work is not ours.
func TestInteropLargeFolder(t *testing.T) {
	interop(t)
	const n = 100_000
	s, _, address := manyMailboxes(t, 1)
	mailbox := s.path("var/mail/example.test/u0")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(mailbox, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		name := fmt.Sprintf("cur/%d.M%dQ0123456789abcdef0123.host,S=14,W=16:2,S", 1_700_000_000+i, i)
		if err := os.WriteFile(filepath.Join(mailbox, name), []byte("Subject: x\n\nx\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	connect := func() *imapConn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // a connection that takes none fails at its first read
		c := &imapConn{conn, t, bufio.NewReaderSize(conn, 256<<10)}
		c.until("* OK")
		c.must(fmt.Sprintf("LOGIN u0@example.test %q", secret))
		return c
	}
	took := func(do func()) time.Duration {
		began := time.Now()
		do()
		return time.Since(began)
	}
	c := connect()
	t.Logf("the first opening of %d messages took %v", n, took(func() { c.must("SELECT INBOX") }))
	c.Close()
	var opening, flags []time.Duration
	for range 5 {
		c := connect()
		opening = append(opening, took(func() {
			fmt.Fprint(c, "b SELECT INBOX\r\n")
			c.until(fmt.Sprintf("* %d EXISTS", n))
			c.until("b OK")
		}))
		told := 0
		flags = append(flags, took(func() {
			fmt.Fprint(c, "c FETCH 1:* (FLAGS)\r\n")
			for {
				line, err := c.r.ReadSlice('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(string(line), "c ") {
					break
				}
				told++
			}
		}))
		if told < n {
			t.Errorf("the flags of %d messages are told", told)
		}
		c.Close()
	}
	t.Logf("SELECT took %v, FETCH FLAGS %v", opening, flags)
	if best := slices.Min(opening); best > time.Second {
		t.Errorf("SELECT took %v at best, more than 1 s", best)
	}
	if best := slices.Min(flags); best > 2*time.Second {
		t.Errorf("FETCH FLAGS took %v at best, more than 2 s", best)
	}
}

// TestInteropIdleSessions: 5,000 sessions of 500 people wait at the plugin's own process, all of them get mail by SMTP, and
// each session is told within a second of the file being there; a session costs little memory.
func TestInteropIdleSessions(t *testing.T) {
	interop(t)
	const accounts, each = 500, 10
	const maxKiB = 100 // for a session
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < accounts*each+200 {
		t.Skipf("so many sessions need %d open files: %d, %v", accounts*each+200, limit.Cur, err)
	}
	s, mx, address := manyMailboxes(t, accounts)
	s.start()
	pid := []int{s.plugin("mailboxes").PID}
	waitFor(t, address, 0).Close() // what the first one needs is shared by all
	before := memoryOf(pid)
	sessions := make([]*imapConn, accounts*each)
	slots := make(chan struct{}, 32)
	var opening sync.WaitGroup
	for i := range sessions {
		slots <- struct{}{}
		opening.Go(func() {
			sessions[i] = waitFor(t, address, i/each)
			<-slots
		})
	}
	opening.Wait()
	if t.Failed() {
		return
	}
	t.Cleanup(func() {
		for _, c := range sessions {
			c.Close()
		}
	})
	kib := (memoryOf(pid) - before) / len(sessions)
	t.Logf("%d KiB for a session", kib)
	if kib > maxKiB {
		t.Errorf("a session costs %d KiB, more than %d", kib, maxKiB)
	}

	var best time.Duration
	for round := 1; round <= 3; round++ {
		late := tellAll(t, s, mx, sessions, each, round)
		half, most, last := late[len(late)/2], late[len(late)*99/100], late[len(late)-1]
		t.Logf("round %d: of %d sessions half were told within %v, 99 %% within %v, the last after %v", round, len(late), half, most, last)
		if best == 0 || most < best {
			best = most
		}
	}
	if best > time.Second {
		t.Errorf("99 %% of the sessions were told within %v at best, not within 1 s", best)
	}
}

// tellAll sends every account a message and returns how long after its file was there each session was told, sorted.
func tellAll(t *testing.T, s *system, mx string, sessions []*imapConn, each, round int) []time.Duration {
	t.Helper()
	told := make([]time.Time, len(sessions))
	var waiting sync.WaitGroup
	for i, c := range sessions {
		waiting.Go(func() {
			prefix := fmt.Sprintf("* %d EXISTS", round)
			for {
				line, err := c.r.ReadSlice('\n')
				if err != nil {
					t.Errorf("session %d: %v", i, err)
					return
				}
				if strings.HasPrefix(string(line), prefix) {
					told[i] = time.Now()
					return
				}
			}
		})
	}
	var to []string
	for i := range len(sessions) / each {
		to = append(to, fmt.Sprintf("u%d@example.test", i))
	}
	for part := range slices.Chunk(to, 100) {
		hand(t, mx, "carol@sender.test", []sample{{part, "Subject: x\n\nx\n"}})
	}
	waiting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	var late []time.Duration
	for i := range sessions {
		late = append(late, told[i].Sub(newest(t, s.path(fmt.Sprintf("var/mail/example.test/u%d", i/each)))))
	}
	slices.Sort(late)
	return late
}

// newest is when the last message of a mailbox came.
func newest(t *testing.T, mailbox string) (last time.Time) {
	t.Helper()
	for _, sub := range []string{"new", "cur"} {
		files, _ := filepath.Glob(filepath.Join(mailbox, sub, "*"))
		for _, f := range files {
			var st syscall.Stat_t
			if err := syscall.Stat(f, &st); err != nil {
				t.Fatal(err)
			}
			if at := time.Unix(st.Mtim.Unix()); at.After(last) {
				last = at
			}
		}
	}
	return last
}

// waitFor logs in as an account and begins an IDLE.
func waitFor(t *testing.T, address string, account int) *imapConn {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute)) // so that a session that is never told fails
	c := &imapConn{conn, t, bufio.NewReaderSize(conn, 512)}
	for _, step := range [][2]string{{"", "* OK"}, {fmt.Sprintf("a LOGIN u%d@example.test %q", account, secret), "a OK"}, {"b SELECT INBOX", "b OK"}, {"c IDLE", "+"}} {
		if step[0] != "" {
			fmt.Fprintf(conn, "%s\r\n", step[0])
		}
		for {
			line, err := c.r.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "a NO") {
				t.Errorf("%s: %q, %v", step[0], line, err)
				return c
			}
			if strings.HasPrefix(line, step[1]) {
				break
			}
		}
	}
	return c
}
