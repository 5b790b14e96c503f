package pop3

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

func more(c *gate.Config) { c.Connections, c.ConnectionsPerIP = 1000, 1000 }

// TestHalfCommands: whoever goes in the middle of a command, at any byte of it, removes nothing and holds nobody up. A command
// is none before its line has ended.
func TestHalfCommands(t *testing.T) {
	addr, dir := newServer(t, more, "Subject: one\n\nx\n")
	const dialogue = "USER ann\r\nPASS right one\r\nDELE 1\r\nRETR 1\r\nTOP 1 0\r\nUIDL\r\nQUIT"
	for cut := range len(dialogue) + 1 {
		k := dial(t, addr)
		fmt.Fprint(k.conn, dialogue[:cut])
		k.conn.Close()
	}
	k := loginAgain(t, addr)
	if got := k.lines("RETR 1"); got != "+OK 19 octets\nSubject: one\n\nx\n" {
		t.Errorf("%q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "ann", "*", "1000*")); len(left) != 1 {
		t.Error(left)
	}
}

// TestOneByteAtATime: commands come in any pieces.
func TestOneByteAtATime(t *testing.T) {
	addr, dir := newServer(t, nil, "Subject: one\n\nx\n")
	k := dial(t, addr)
	for _, c := range []byte("USER ann\r\nPASS right one\r\nSTAT\r\nDELE 1\r\nQUIT\r\n") {
		if _, err := k.conn.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"+OK and the password?", "+OK 1 messages", "+OK 1 19", "+OK it goes with QUIT", "+OK bye", "closed"} {
		if got := k.line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "ann", "*", "1000*")); len(left) != 0 {
		t.Error(left)
	}
}

// TestPipelinedGarbage: each line has its one answer, in order, whatever stands between them.
func TestPipelinedGarbage(t *testing.T) {
	addr, _ := newServer(t, nil, "Subject: one\n\nx\n")
	var in strings.Builder
	tests := [][2]string{
		{"USER ann", "+OK"}, {"PASS right one", "+OK 1 messages"}, {"", "-ERR no such command"}, {"\x00\xff", "-ERR no such command"},
		{" STAT", "-ERR no such command"}, {"RETR", "-ERR no such message"}, {"RETR -1", "-ERR no such message"}, {"RETR 1x", "-ERR no such message"},
		{"LIST 1\r", "+OK 1 19"}, {"TOP 1 1 1", "-ERR TOP"}, {"DELE 1 \x00", "+OK"}, {"RSET junk", "+OK"}, {"uidl 1", "+OK 1 "},
		{"AUTH PLAIN", "-ERR no such command"}, {"STLS", "-ERR no such command"}, {"STAT" + strings.Repeat(" ", 4000), "+OK 1 19"},
	}
	for _, test := range tests {
		in.WriteString(test[0] + "\r\n")
	}
	k := dial(t, addr)
	fmt.Fprint(k.conn, in.String())
	for _, test := range tests {
		if got := k.line(); !strings.HasPrefix(got, test[1]) {
			t.Errorf("%.40q: %q, want %q", test[0], got, test[1])
		}
	}
	// A line that is too long ends the session: its rest, and what follows it, is no command.
	fmt.Fprint(k.conn, "DELE 1\r\n"+strings.Repeat("DELE 1 ", 1000)+"\r\nQUIT\r\n")
	for got := k.line(); got != "closed"; got = k.line() {
		if got == "+OK bye" {
			t.Error("QUIT is obeyed")
		}
	}
	if got := loginAgain(t, addr).do("LIST 1"); got != "+OK 1 19" {
		t.Errorf("the message has been removed: %q", got)
	}
}
