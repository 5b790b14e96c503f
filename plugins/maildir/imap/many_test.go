package imap

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// TestManyIdleSessions keeps many sessions open, each in an IDLE: all are told of new mail, and another one can come and
// work. MTA_IMAP_SESSIONS=5000 is how .ci/interop runs it.
func TestManyIdleSessions(t *testing.T) {
	n := 300
	if text := os.Getenv("MTA_IMAP_SESSIONS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(2*n+200) {
		t.Skipf("so many sessions need %d open files: %d, %v", 2*n+200, limit.Cur, err)
	}
	r := newRig(t, func(c *gate.Config) { c.Connections, c.ConnectionsPerIP, c.ConnectionsPerLogin = n+10, n+10, n+10 })
	r.deliver("ann", "1.a.h", letter)
	before := heap()
	sessions := make([]*idler, n)
	var opening sync.WaitGroup
	slots := make(chan struct{}, 50)
	for i := range sessions {
		slots <- struct{}{}
		opening.Go(func() {
			sessions[i] = openIdler(t, r.addr)
			<-slots
		})
	}
	opening.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d KiB for a session, with the client's half", (heap()-before)/int64(n)/1024)
	c := r.login("ann", nil)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("one more session: %+v, %v", data, err)
	}
	r.deliver("ann", "2.a.h", letter)
	for i, s := range sessions {
		if line, err := s.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "* 2 EXISTS") {
			t.Fatalf("session %d is told %q, %v", i, line, err)
		}
	}
}

type idler struct {
	net.Conn
	r *bufio.Reader
}

// openIdler logs in and begins an IDLE.
func openIdler(t *testing.T, addr string) *idler {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // so that a session that is never told fails
	s := &idler{conn, bufio.NewReaderSize(conn, 512)}
	for _, step := range [][2]string{{"", "* OK"}, {"a LOGIN ann right", "a OK"}, {"b SELECT INBOX", "b OK"}, {"c IDLE", "+"}} {
		if step[0] != "" {
			fmt.Fprintf(conn, "%s\r\n", step[0])
		}
		for {
			line, err := s.r.ReadString('\n')
			if err != nil {
				t.Errorf("%s: %v", step[0], err)
				return s
			}
			if strings.HasPrefix(line, step[1]) {
				break
			}
		}
	}
	return s
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestHalfCommands: whoever goes in the middle of a command, at any byte of it, leaves nothing behind that holds others up.
func TestHalfCommands(t *testing.T) {
	r := newRig(t, func(c *gate.Config) { c.ConnectionsPerIP, c.ConnectionsPerLogin = 100, 100 })
	r.deliver("ann", "1.a.h", letter)
	const dialogue = "a LOGIN ann right\r\nb SELECT INBOX\r\nc UID STORE 1 +FLAGS (\\Flagged)\r\nd APPEND Sent (\\Seen) {12+}\r\nSubject: x\r\n\r\ne IDLE\r\n"
	for cut := 1; cut < len(dialogue); cut += 3 {
		conn, _ := raw(t, r.addr)
		fmt.Fprint(conn, dialogue[:cut])
		conn.Close()
	}
	c := r.login("ann", nil)
	if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("%+v, %v", data, err)
	}
}

// TestOneByteAtATime: commands and literals come in any pieces.
func TestOneByteAtATime(t *testing.T) {
	r := newRig(t, nil)
	conn, br := raw(t, r.addr)
	for _, c := range []byte("a LOGIN ann {5+}\r\nright\r\nb APPEND INBOX {12+}\r\nSubject: x\r\n\r\nc SELECT INBOX\r\nd FETCH 1 (UID RFC822.SIZE)\r\n") {
		if _, err := conn.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
	}
	if got := until(br, "* 1 FETCH"); got != "* 1 FETCH (UID 1 RFC822.SIZE 12)\r\n" {
		t.Error(got)
	}
}

// TestPipelinedGarbage: commands that are wrong have an answer each, and those between them are obeyed.
func TestPipelinedGarbage(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1.a.h", letter)
	conn, br := raw(t, r.addr)
	tests := [][2]string{
		{"LOGIN ann right", "OK"}, {"SELECT INBOX", "OK"}, {"FROB \x01\xff", "BAD"}, {"FETCH", "BAD"}, {"FETCH 1 (", "BAD"},
		{"STORE 1 FLAGS (((", "BAD"}, {"UID", "closed"},
	}
	for i, test := range tests {
		fmt.Fprintf(conn, "t%d %s\r\n", i, test[0])
	}
	for i, test := range tests {
		if got := strings.TrimPrefix(until(br, fmt.Sprintf("t%d ", i)), fmt.Sprintf("t%d ", i)); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%q: %q, want %s", test[0], got, test[1])
		}
	}
	if data, err := r.login("ann", nil).Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("%+v, %v", data, err)
	}
}
