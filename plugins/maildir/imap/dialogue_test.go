package imap

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDialogue plays a dialogue of all commands of RFC 9051. A line "C: text" is sent; "S: pattern" is a regular
// expression for all of the next line that comes.
func TestDialogue(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("ann", "1700000000.a.h", letter)
	r.deliver("ann", "1700000001.b.h", "Subject: two\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n"+
		"--b\r\nContent-Type: image/png; name=a.png\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n--b--\r\n")
	b, err := os.ReadFile("testdata/rfc9051.txt")
	if err != nil {
		t.Fatal(err)
	}
	conn, br := raw(t, r.addr)
	for i, line := range strings.Split(string(b), "\n") {
		switch text, isClient := strings.CutPrefix(line, "C: "); {
		case line == "" || line[0] == '#':
		case isClient:
			fmt.Fprintf(conn, "%s\r\n", text)
		default:
			want := regexp.MustCompile("^" + strings.TrimPrefix(line, "S: ") + "$")
			got, err := br.ReadString('\n')
			if got = strings.TrimSuffix(got, "\r\n"); err != nil || !want.MatchString(got) {
				t.Fatalf("testdata/rfc9051.txt:%d: %q is not %s, %v", i+1, got, want, err)
			}
		}
	}
}
