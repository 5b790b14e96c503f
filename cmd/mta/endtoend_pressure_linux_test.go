package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pabal-mta/mta/core/torture/peer"
)

// TestRoomAgain fills the disk of a server and empties it: a peer and a client that submits are refused with 452 at MAIL while
// it is full, and on the same connections their mail is taken when there is room again, and arrives. Root is needed for a disk.
func TestRoomAgain(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 4)
	vars := map[string]string{"MX": ports[0], "SUB": ports[1], "ONE": ports[2], "TWO": ports[3], "TIMEOUT": "10s"}
	s := newSystem(t, strings.Replace(wholeConfig, `min_free = "1MiB"`, `min_free = "64MiB"`, 1), vars)
	disk := s.path("var")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("no disk of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil { // the server has it open still
			t.Error(err)
		}
	})
	s.must(passwordOfAnn+"\n", "user", "add", "ann@example.test")
	s.start()
	stranger, ann := mustDial(t, ports[0]), mustDial(t, ports[1])
	if reply, err := ann.Login(235, "ann@example.test", passwordOfAnn); err != nil {
		t.Fatal(reply, err)
	}
	from := map[*peer.Client]string{stranger: "<carol@sender.example>", ann: "<ann@example.test>"}
	says := func(c *peer.Client, want string) bool {
		if _, err := c.Say(250, "RSET"); err != nil {
			t.Fatal(err)
		}
		reply, err := c.Say(0, "MAIL FROM:%s", from[c])
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasPrefix(reply, want)
	}
	fillDisk(t, disk, s.path("var/filler"), 32<<20)
	for c, who := range from {
		if !poll(func() bool { return says(c, "452 4.3.1 ") }) {
			t.Errorf("the mail of %s is taken though the disk is full", who)
		}
	}
	if err := os.Remove(s.path("var/filler")); err != nil {
		t.Fatal(err)
	}
	for c, who := range from {
		if !poll(func() bool { return says(c, "250 ") }) {
			t.Fatalf("no mail of %s is taken though there is room again", who)
		}
		if reply, err := c.Say(250, "RCPT TO:<ann@example.test>"); err != nil {
			t.Fatal(reply, err)
		}
		if err := c.Data(fmt.Appendf(nil, "From: %s\r\nSubject: room\r\n\r\nfrom %s\r\n", who, who)); err != nil {
			t.Error(err)
		}
	}
	got := strings.Join(s.mailbox("ann", 2), "")
	for _, who := range from {
		if !strings.Contains(got, "from "+who) {
			t.Errorf("the message of %s has not arrived", who)
		}
	}
	log, _ := os.ReadFile(s.path("log"))
	if !poll(func() bool {
		log, _ = os.ReadFile(s.path("log"))
		return strings.Contains(string(log), "intake_resumed")
	}) ||
		strings.Count(string(log), "intake_resumed") != 1 || strings.Count(string(log), "intake_stopped") != 1 {
		t.Errorf("the log does not tell once that no mail is taken, and once that it is again:\n%s", log)
	}
}

// fillDisk makes a file that leaves so many bytes of its disk free.
func fillDisk(t *testing.T, disk, name string, left int64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Frsize-left); err != nil {
		t.Fatal(err)
	}
}
