package imap

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
)

// second is the second message of a dialogue.
const second = "Subject: two\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n" +
	"--b\r\nContent-Type: image/png; name=a.png\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n--b--\r\n"

// TestDialogue plays the dialogues of testdata, each with a server and a mailbox of its own that has two messages. A line
// "C: text" is sent; "S: pattern" is a regular expression for all of the next line that comes. "TLS" is a handshake, "END"
// the end of the connection, and "NEW" another connection. A file whose name begins with tls wants TLS before a password.
func TestDialogue(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	cert, key, client := newCertificate(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			r := newRig(t, func(c *gate.Config) {
				if strings.HasPrefix(filepath.Base(file), "tls") {
					c.CertFile, c.KeyFile, c.InsecureAuth = cert, key, false
				}
			})
			r.deliver("ann", "1700000000.a.h", letter)
			r.deliver("ann", "1700000001.b.h", second)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, r, file, strings.Split(string(b), "\n"), client)
		})
	}
}

func play(t *testing.T, r *rig, file string, lines []string, client *tls.Config) {
	conn, br := raw(t, r.addr)
	for i, line := range lines {
		word, text, _ := strings.Cut(line, ": ")
		switch word {
		case "C":
			fmt.Fprintf(conn, "%s\r\n", text)
		case "TLS":
			conn = tls.Client(conn, client)
			br = bufio.NewReader(conn)
		case "NEW":
			conn, br = raw(t, r.addr)
		case "END":
			if got, err := br.ReadString('\n'); err == nil {
				t.Fatalf("%s:%d: the connection goes on: %q", file, i+1, got)
			}
		case "S":
			want := regexp.MustCompile("^" + text + "$")
			got, err := br.ReadString('\n')
			if got = strings.TrimSuffix(got, "\r\n"); err != nil || !want.MatchString(got) {
				t.Fatalf("%s:%d: %q is not %s, %v", file, i+1, got, want, err)
			}
		default:
			if line != "" && line[0] != '#' {
				t.Fatalf("%s:%d: %q is no line of a dialogue", file, i+1, line)
			}
		}
	}
}
